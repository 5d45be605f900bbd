//! Runs of object spans in the model, and object spans that change their class.

use std::collections::BTreeSet;

use tiermalloc_page_heap::{Put, State};
use tiermalloc_size_class::{CLASSES, Class};

use super::arena::is_zero;
use super::model::Model;

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    pub(super) fn alloc_run(&mut self, id: usize, more: usize) {
        let class = Class::from_id(1 + id % CLASSES).unwrap();
        let pages = class.pages();
        let mut spares = Vec::new();
        let span = self.heap.alloc_objects_run(class, more, |spare| spares.push(spare));
        self.must_serve(span.is_some(), pages);
        assert!(spares.len() <= more);
        let limited = (self.hard, self.soft) != (usize::MAX, usize::MAX);
        assert!(!limited || spares.is_empty(), "under a limit nobody keeps what he does not need");
        if let (Some(span), 0) = (span, self.arena.refused()) {
            // SAFETY: ours.
            let mut end = unsafe { span.as_ref() }.end();
            for spare in spares.iter().rev() {
                // SAFETY: ours.
                let spare = unsafe { spare.as_ref() };
                assert_eq!(spare.start(), end, "side by side");
                end = spare.end();
            }
        }
        if let Some(span) = span {
            self.add(span, State::Objects, pages, 1, Some(class));
        }
        for spare in spares {
            self.add(spare, State::Objects, pages, 1, None);
        }
    }

    pub(super) fn recarve(&mut self, n: usize, id: usize) {
        let Some(which) = self.which(n, |live| live.state == State::Objects) else { return };
        self.objects_are_kept(which);
        let live = &mut self.live[which];
        for &object in &live.objects {
            // SAFETY: the span is ours alone, as under its class's lock.
            assert_eq!(unsafe { live.span().put_object(object) }, Put::Done);
        }
        let fitting: Vec<Class> =
            Class::all().filter(|class| class.pages() == live.pages).collect();
        let class = fitting[id % fitting.len()];
        let zeroed = live.span().was_zeroed() && live.used.is_empty();
        // SAFETY: the span is ours, and nothing of it is out.
        let done = unsafe { self.heap.recarve_objects(live.span, class) };
        (live.objects, live.used) = (BTreeSet::new(), BTreeSet::new());
        live.class = done.then_some(class);
        let span = live.span();
        assert_eq!((span.class(), span.was_zeroed()), (live.class, zeroed));
        if zeroed {
            assert!(is_zero(span.address(), span.bytes()), "not zero as it says");
        }
        if done {
            assert_eq!(span.live(), 0);
            return;
        }
        assert!(
            class.objects() > 128 && self.arena.refused() > 0,
            "no bits, and yet there is room"
        );
        // It has no class any more, while the map may still name the old one: it is good for nothing else.
        let live = self.live.swap_remove(which);
        // SAFETY: as above.
        unsafe { self.heap.free_objects(live.span) };
    }
}
