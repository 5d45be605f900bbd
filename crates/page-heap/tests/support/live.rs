//! What the model does with spans that are alive: fill them, look at them, resize and free them.

use tiermalloc_page_heap::{FreeError, Past, Put, State};
use tiermalloc_size_class::Class;

use super::arena::{PAGE, is_zero};
use super::model::{Live, Model, mix, words};

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    /// Writes to the pages of a large span from the n-th on.
    pub(super) fn fill(&self, which: usize, from: usize) {
        let live = &self.live[which];
        for at in words(live.seed, from..live.pages) {
            // SAFETY: within the span, which is ours.
            unsafe { ((live.address() + at) as *mut u64).write(mix(live.seed, at)) };
        }
    }

    /// What was written is still there, in the pages up to the n-th.
    pub(super) fn is_kept(&self, which: usize, to: usize) {
        let live = &self.live[which];
        for at in words(live.seed, 0..to) {
            // SAFETY: within the span, which is ours.
            let word = unsafe { ((live.address() + at) as *const u64).read() };
            assert_eq!(word, mix(live.seed, at), "contents of a live span changed");
        }
    }

    pub(super) fn which(&self, n: usize, wanted: impl Fn(&Live) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.live.len()).filter(|&i| wanted(&self.live[i])).collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    pub(super) fn take_objects(&mut self, n: usize, count: usize) {
        let Some(which) = self.which(n, |live| live.class.is_some()) else { return };
        let live = &mut self.live[which];
        let class = live.class.unwrap();
        let (span, seed, base) = (live.span, live.seed, live.address());
        let first = class.shape().first_object(base);
        let mut last = 0;
        // SAFETY: the span is ours alone, as under its class's lock.
        let taken = unsafe {
            span.as_ref().take_objects(count, |object, past| {
                assert!(object > last, "in order of address");
                last = object;
                assert_eq!((object - first) % class.size(), 0);
                assert!(past != Past::Zeroed || is_zero(object, class.size()), "not zero");
                assert_eq!(past == Past::Used, !live.used.insert(object), "{past:?}");
                for at in [object, object + class.size() - 8] {
                    (at as *mut u64).write(mix(seed, at - base));
                }
                assert!(live.objects.insert(object), "handed out twice");
            })
        };
        assert!(taken == count || live.objects.len() == class.objects());
        assert_eq!(live.span().live(), live.objects.len());
    }

    pub(super) fn put_objects(&mut self, n: usize, count: usize) {
        let Some(which) = self.which(n, |live| live.class.is_some()) else { return };
        self.objects_are_kept(which);
        let live = &mut self.live[which];
        for i in 0..count {
            let Some(&object) = live.objects.iter().nth(i * 7 % live.objects.len().max(1)) else {
                break;
            };
            live.objects.remove(&object);
            // SAFETY: the span is ours alone, as under its class's lock.
            unsafe {
                assert_eq!(live.span().put_object(object), Put::Done);
                assert_eq!(live.span().put_object(object), Put::Twice);
            }
        }
        assert_eq!(live.span().live(), live.objects.len());
    }

    pub(super) fn objects_are_kept(&self, which: usize) {
        let live = &self.live[which];
        let size = live.class.map_or(0, Class::size);
        for &object in &live.objects {
            for at in [object, object + size - 8] {
                // SAFETY: within a live object.
                let word = unsafe { (at as *const u64).read() };
                assert_eq!(word, mix(live.seed, at - live.address()), "contents of a live object");
            }
        }
    }

    pub(super) fn resize(&mut self, n: usize, pages: usize) {
        let Some(which) = self.which(n, |live| live.state != State::Objects) else { return };
        let (address, old) = (self.live[which].address(), self.live[which].pages);
        if self.live[which].state == State::Large {
            // SAFETY: the span is ours, and its end is not used when it shrinks.
            if unsafe { self.heap.resize_large(address, pages) } {
                self.live[which].pages = pages;
            } else {
                assert!(pages > old || self.arena.refused() > 0, "shrinking needs only a record");
            }
        } else {
            let unit = (self.arena_os_page() / PAGE).max(1);
            // SAFETY: as above; the old address is not used when it moves.
            let now = unsafe { self.heap.resize_huge(address, pages * PAGE) };
            let guarded = self.live[which].guard > 0;
            let same = pages.next_multiple_of(unit) == old;
            assert!(!guarded || now == same.then_some(address), "guards stay where they are");
            if !guarded {
                self.must_serve(now.is_some(), pages.saturating_sub(old));
            }
            if let Some(now) = now {
                self.live[which].start = now / PAGE;
                self.live[which].pages = pages.next_multiple_of(unit);
                if let Some(more) = self.live[which].pages.checked_sub(old) {
                    assert!(is_zero(now + old * PAGE, more * PAGE), "what is new is zero");
                }
            }
        }
        self.is_kept(which, old.min(self.live[which].pages));
        self.fill(which, old.min(self.live[which].pages));
    }

    pub(super) fn free(&mut self, n: usize) {
        let Some(which) = self.which(n, |_| true) else { return };
        if self.live[which].state == State::Objects {
            self.objects_are_kept(which);
        } else {
            self.is_kept(which, self.live[which].pages);
        }
        let live = self.live.swap_remove(which);
        self.guards_freed = 2 * live.guard;
        // SAFETY: the span is ours and not used any more; that it is freed twice is a test.
        unsafe {
            if live.state == State::Objects {
                for &object in &live.objects {
                    assert_eq!(live.span().put_object(object), Put::Done);
                }
                self.heap.free_objects(live.span);
            } else {
                self.heap.free_large(live.address()).unwrap();
            }
            assert_eq!(self.heap.free_large(live.address()), Err(FreeError::NotAnAllocation));
        }
    }

    pub(super) fn misuse(&mut self, n: usize) {
        let base = self.arena.base();
        let candidates =
            [0, 8, base + n % self.arena.bytes(), base + n * PAGE % self.arena.bytes()];
        for address in candidates {
            let live = self.live.iter().find(|live| live.address() == address);
            let is_live = live.is_some_and(|live| live.state != State::Objects);
            assert_eq!(self.heap.is_large(address), is_live);
            if !is_live {
                // SAFETY: nothing large starts there.
                let freed = unsafe { self.heap.free_large(address) };
                assert_eq!(freed, Err(FreeError::NotAnAllocation));
            }
        }
    }
}
