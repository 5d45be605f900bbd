//! What the model says must be true of the heap between two steps, and in the end.

use std::ptr::NonNull;

use tiermalloc_page_heap::{Span, State};
use tiermalloc_size_class::Class;

use super::arena::{PAGE, Refusals, is_zero};
use super::model::{Model, Step};

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    /// Everything that must be true between two steps; returns the pages that are lost.
    #[allow(clippy::needless_range_loop)] // the number of the page is what it is about
    pub fn check(&self) -> usize {
        #[derive(Clone, Copy, PartialEq)]
        enum Expected {
            NotOurs,
            Entry(NonNull<Span>, usize),
            Inside,
        }
        let (base, count) = (self.arena.base_page(), self.arena.pages());
        let mut expected = vec![Expected::NotOurs; count];
        let (mut objects, mut large, mut larges, mut huge, mut huges) = (0, 0, 0, 0, 0);
        let mut bits = 0;
        for live in &self.live {
            let (state, span) = (live.span().state(), live.span());
            assert_eq!((state, span.start(), span.pages()), (live.state, live.start, live.pages));
            let first = live.start - base;
            for n in first..first + live.pages {
                assert!(expected[n] == Expected::NotOurs, "spans overlap at page {n}");
                assert!(self.arena.is_mapped(n), "page {n} is not the heap's");
                let class = live.class.map_or(0, Class::id);
                let entry = match live.state {
                    // What nobody has carved is in the map with no page.
                    State::Objects => live.class.is_some(),
                    State::Large => n == first || n == first + live.pages - 1,
                    _ => n == first,
                };
                expected[n] =
                    if entry { Expected::Entry(live.span, class) } else { Expected::Inside };
            }
            for n in (first - live.guard..first)
                .chain(first + live.pages..first + live.pages + live.guard)
            {
                assert!(expected[n] == Expected::NotOurs, "page {n} is a guard and somebody's");
                assert!(self.arena.is_mapped(n), "guard page {n} is not the heap's");
                expected[n] = Expected::Inside;
            }
            match live.state {
                State::Objects => {
                    assert_eq!((span.class(), span.owner()), (live.class, live.owner));
                    objects += live.pages;
                }
                State::Large => (large, larges) = (large + live.pages, larges + 1),
                _ => (huge, huges) = (huge + live.pages, huges + 1),
            }
            bits += live.class.map_or(0, |class| match class.objects() {
                0..=128 => 0,
                129..=512 => 64,
                _ => 128,
            });
        }

        let map = self.heap.map();
        let (mut free, mut frees, mut others, mut leaves) = (0, 0, 0, 0);
        let mut after_free = false;
        let mut n = 0;
        while n < count {
            let address = (base + n) * PAGE + n % PAGE;
            let (entry, class) = (map.span(address), map.class_id(address));
            match expected[n] {
                Expected::Entry(span, id) => {
                    assert_eq!((entry, class), (Some(span), id), "H3: {n}")
                }
                Expected::Inside => assert_eq!((entry, class), (None, 0), "H3: {n}"),
                Expected::NotOurs => {
                    assert_eq!(class, 0);
                    let Some(span) = entry else {
                        others += usize::from(self.arena.is_mapped(n));
                        leaves += usize::from(self.arena.is_single(n));
                        after_free = false;
                        n += 1;
                        continue;
                    };
                    // SAFETY: what the map names is there (that is what is being tested).
                    let span = unsafe { span.as_ref() };
                    let waits = span.state() == State::Waiting;
                    assert!(waits || span.state() == State::Free, "{:?}", span.state());
                    assert_eq!(span.start(), base + n);
                    assert!(waits || !after_free, "H2: free neighbours unmerged at page {n}");
                    let last = n + span.pages() - 1;
                    for inside in n..=last {
                        assert!(expected[inside] == Expected::NotOurs, "H4: {inside}");
                        assert!(self.arena.is_mapped(inside), "H4: {inside}");
                        let entry = map.span((base + inside) * PAGE);
                        let ends = inside == n || inside == last;
                        assert_eq!(entry, ends.then_some(NonNull::from(span)), "H3: {inside}");
                    }
                    free += span.pages();
                    frees += 1;
                    after_free = !waits;
                    n = last + 1;
                    continue;
                }
            }
            after_free = false;
            n += 1;
        }

        let stats = self.heap.stats();
        assert_eq!((stats.free_pages, stats.object_pages), (free, objects));
        assert_eq!((stats.large_pages, stats.large_spans), (large, larges));
        assert_eq!((stats.huge_pages, stats.huge_spans), (huge, huges));
        let guarded = self.live.iter().filter(|live| live.guard > 0).count();
        assert_eq!(stats.guarded_spans, guarded);
        assert_eq!(stats.reserved_pages, free + objects + large, "H4");
        assert_eq!(self.heap.reserved_bytes(), stats.reserved_pages * PAGE);
        assert!(stats.dirty_pages <= stats.free_pages);
        // What is mapped and in no span: records, leaves of the map, and what was lost.
        let known = stats.record_bytes / PAGE + leaves;
        let lost = others.checked_sub(known).expect("fewer pages mapped than the heap believes");
        // Records are not lost with the pages, but for those of a huge span that nobody would take.
        let records = 64 * (self.live.len() + frees) + bits;
        assert!(
            stats.record_live_bytes >= records
                && (lost > 0 || self.lost > 0 || stats.record_live_bytes == records),
            "{} {records}",
            stats.record_live_bytes
        );
        lost
    }

    /// H5: no free page holds anything but the dirty ones.
    pub fn free_pages_are_zero_but_for_the_dirty_ones(&self) {
        let mut held = 0;
        for n in 0..self.arena.pages() {
            let page = self.arena.base_page() + n;
            // SAFETY: as in `check`.
            let span = self.heap.map().span(page * PAGE).map(|span| unsafe { span.as_ref() });
            let is_first = |span: &&Span| span.state() == State::Free && span.start() == page;
            if let Some(span) = span.filter(is_first) {
                held += (page..span.end()).filter(|page| !is_zero(page * PAGE, PAGE)).count();
            }
        }
        assert!(held <= self.heap.stats().dirty_pages);
    }

    /// Frees everything that is out, checks that nothing is missing, and that it can all be had again.
    pub fn finish(&mut self) {
        self.arena.refuse(Refusals::Never);
        self.step(&Step::Limits { hard: 0, soft: 0 });
        self.free_pages_are_zero_but_for_the_dirty_ones();
        while !self.live.is_empty() {
            self.step(&Step::Free(0));
        }
        let stats = self.heap.stats();
        assert_eq!(stats.reserved_pages, stats.free_pages);
        let longest = (0..self.arena.pages())
            .filter_map(|n| {
                let page = self.arena.base_page() + n;
                // SAFETY: as in `check`.
                let span = unsafe { self.heap.map().span(page * PAGE)?.as_ref() };
                (span.state() == State::Free).then_some(span.pages())
            })
            .max();
        if let Some(longest) = longest {
            self.step(&Step::AllocLarge { pages: longest, align: 1 });
            assert_eq!(self.heap.stats().reserved_pages, stats.reserved_pages, "no need to grow");
            self.step(&Step::Free(0));
        }
        self.step(&Step::ReleasePages(usize::MAX));
        self.free_pages_are_zero_but_for_the_dirty_ones();
        self.step(&Step::UnmapFree);
    }
}
