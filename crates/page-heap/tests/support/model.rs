//! The reference model: what is out, what it holds, and what must be true of the heap after each step.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ptr::NonNull;

use tiermalloc_page_heap::{FreeError, PageHeap, Past, Put, Span, State};
use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_size_class::{CLASSES, Class};
use tiermalloc_sync::RawFutexMutex;

use super::arena::{Arena, PAGE, is_zero};

/// Leaves of 256 pages, so that an arena lies across many of them: its leaves take one page each.
pub const SMALL_ROOT: usize = 1 << 17;
pub const SMALL_LEAF: usize = 256;

#[derive(Clone, Debug)]
pub enum Step {
    AllocObjects(usize),
    /// Take so many objects of the n-th object span; give so many back.
    TakeObjects(usize, usize),
    PutObjects(usize, usize),
    AllocLarge {
        pages: usize,
        align: usize,
    },
    AllocHuge {
        bytes: usize,
        align: usize,
    },
    /// Resize the n-th large or huge span to so many pages.
    Resize(usize, usize),
    /// Free the n-th span.
    Free(usize),
    ReleasePages(usize),
    ReleaseDownTo(usize),
    ReleaseDownToWorth(usize),
    ReleaseSome(usize),
    UnmapFree,
    PassTime(u64),
    /// Free an address at which no large span starts.
    Misuse(usize),
}

struct Live {
    span: NonNull<Span>,
    state: State,
    start: usize,
    pages: usize,
    class: Option<Class>,
    /// Objects handed out.
    objects: BTreeSet<usize>,
    seed: u64,
}

impl Live {
    fn span(&self) -> &Span {
        // SAFETY: records live as long as their spans.
        unsafe { self.span.as_ref() }
    }
    fn address(&self) -> usize {
        self.start * PAGE
    }
}

fn mix(seed: u64, n: usize) -> u64 {
    let x = (seed ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}

/// Three words of each page of a span, at places that depend on span and page.
fn words(seed: u64, pages: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
    pages.flat_map(move |page| {
        [0, 1, 2].map(|n| page * PAGE + (mix(seed, page * 3 + n) >> 32) as usize % (PAGE / 8) * 8)
    })
}

/// The map's own memory, from std's allocator, for what the test makes room for beforehand.
#[derive(Default)]
pub struct MapNodes(RefCell<Vec<(NonNull<u8>, Layout)>>);

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl MapMemory for MapNodes {
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: nodes are not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        self.0.borrow_mut().push((memory, layout));
        Some(memory)
    }
    unsafe fn free(&self, _: NonNull<u8>, _: Layout) {
        unreachable!("one thread never loses a race for a leaf");
    }
}

impl Drop for MapNodes {
    fn drop(&mut self) {
        for (memory, layout) in self.0.take() {
            // SAFETY: the map, dropped before, was the only one to use it.
            unsafe { dealloc(memory.as_ptr(), layout) }
        }
    }
}

/// An empty map on the heap; an all-zero one is.
pub fn boxed_map<const ROOT: usize, const LEAF: usize>() -> Box<PageMap<Span, ROOT, LEAF>> {
    let layout = Layout::new::<PageMap<Span, ROOT, LEAF>>();
    // SAFETY: the layout is not empty, all-zero is a valid map, Box frees with the same layout.
    unsafe { Box::from_raw(alloc_zeroed(layout).cast()) }
}

pub struct Model<'m, const ROOT: usize, const LEAF: usize> {
    pub heap: PageHeap<'m, RawFutexMutex, &'m Arena, ROOT, LEAF>,
    arena: &'m Arena,
    live: Vec<Live>,
    serial: u64,
    /// Pages that the source kept and that the heap could not take either.
    pub lost: usize,
}

/// Runs `f` over a fresh heap. With `roomy` the map has room for the whole arena beforehand, so that
/// registering a region cannot fail.
pub fn with_model<const ROOT: usize, const LEAF: usize>(
    arena: &Arena,
    roomy: bool,
    f: impl FnOnce(&mut Model<'_, ROOT, LEAF>),
) {
    let nodes = MapNodes::default();
    let map = boxed_map::<ROOT, LEAF>();
    // The home window and the roots above the arena at least: the map's leaves are what may fail.
    map.ensure(arena.base(), if roomy { arena.bytes() } else { PAGE }, &nodes).unwrap();
    map.ensure(arena.base() + LEAF * PAGE, PAGE, &nodes).unwrap();
    map.ensure(arena.base() + arena.bytes() - PAGE, PAGE, &nodes).unwrap();
    let mut model =
        Model { heap: PageHeap::new(&map, arena), arena, live: Vec::new(), serial: 0, lost: 0 };
    f(&mut model);
    drop(map);
}

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    /// Does one step and checks everything.
    pub fn step(&mut self, step: &Step) {
        self.arena.begin();
        self.apply(step);
        let lost = self.check() - self.lost;
        let refused = self.arena.refused();
        assert!(lost == 0 || refused > 1, "{lost} pages lost over {refused} refusals");
        self.lost += lost;
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::AllocObjects(id) => {
                let class = Class::from_id(1 + id % CLASSES).unwrap();
                let span = self.heap.alloc_objects(class);
                self.must_serve(span.is_some());
                if let Some(span) = span {
                    self.add(span, State::Objects, class.pages(), 1, Some(class));
                }
            }
            Step::TakeObjects(n, count) => self.take_objects(n, count),
            Step::PutObjects(n, count) => self.put_objects(n, count),
            Step::AllocLarge { pages, align } => {
                let span = self.heap.alloc_large(pages, align);
                self.must_serve(span.is_some());
                if let Some(span) = span {
                    self.add(span, State::Large, pages, align, None);
                }
            }
            Step::AllocHuge { bytes, align } => {
                let span = self.heap.alloc_huge(bytes, align);
                self.must_serve(span.is_some());
                if let Some(span) = span {
                    let unit = PAGE.max(tiermalloc_page_heap::PageSource::os_page_size(self.arena));
                    let pages = bytes.next_multiple_of(unit) / PAGE;
                    // SAFETY: the span is ours.
                    let state = unsafe { span.as_ref() }.state();
                    assert!(matches!(state, State::Huge | State::Large));
                    self.add(span, state, pages, (align / PAGE).max(1), None);
                }
            }
            Step::Resize(n, pages) => self.resize(n, pages),
            Step::Free(n) => self.free(n),
            Step::ReleasePages(wanted) => {
                let before = self.heap.stats();
                let released = self.heap.release_pages(wanted);
                let after = self.heap.stats();
                assert_eq!(after.decommitted_pages - before.decommitted_pages, released);
                assert_eq!(after.free_pages, before.free_pages);
                assert!(after.dirty_pages <= before.dirty_pages);
                let small_pages = self.arena_os_page() <= PAGE;
                if small_pages && self.arena.refused() == 0 {
                    assert!(released >= wanted.min(before.dirty_pages));
                    assert_eq!(before.dirty_pages - after.dirty_pages, released);
                }
            }
            Step::ReleaseDownTo(keep) => {
                self.heap.release_down_to(keep);
                if self.arena_os_page() <= PAGE && self.arena.refused() == 0 {
                    assert!(self.heap.stats().dirty_pages <= keep);
                }
            }
            Step::ReleaseDownToWorth(keep) => {
                let before = self.heap.stats();
                let released = self.heap.release_down_to_worth(keep);
                let after = self.heap.stats();
                assert_eq!(after.decommitted_pages - before.decommitted_pages, released);
                assert_eq!(after.free_pages, before.free_pages);
            }
            Step::ReleaseSome(wanted) => {
                let (before, calls) = (self.heap.stats(), self.arena.calls());
                let released = self.heap.release_some(wanted);
                let after = self.heap.stats();
                assert_eq!(after.decommitted_pages - before.decommitted_pages, released);
                assert_eq!(after.free_pages, before.free_pages);
                assert!(self.arena.calls() - calls <= 32, "a bounded number of system calls");
                if self.arena_os_page() <= PAGE {
                    assert!(released <= wanted + 8, "{released} of {wanted}: not many more");
                    assert_eq!(before.dirty_pages - after.dirty_pages, released);
                }
            }
            Step::UnmapFree => {
                let before = self.heap.stats();
                let unmapped = self.heap.unmap_free();
                let after = self.heap.stats();
                assert_eq!(before.reserved_pages - after.reserved_pages, unmapped);
                assert_eq!(before.free_pages - after.free_pages, unmapped);
            }
            Step::PassTime(ms) => self.arena.pass_time(ms),
            Step::Misuse(n) => self.misuse(n),
        }
    }

    fn arena_os_page(&self) -> usize {
        tiermalloc_page_heap::PageSource::os_page_size(self.arena)
    }

    /// Nobody refused anything: then there is no reason to fail.
    fn must_serve(&self, served: bool) {
        assert!(served || self.arena.refused() > 0, "nothing was refused, and yet there is none");
    }

    fn add(
        &mut self,
        span: NonNull<Span>,
        state: State,
        pages: usize,
        align: usize,
        class: Option<Class>,
    ) {
        self.serial += 1;
        // SAFETY: the span is ours.
        let record = unsafe { span.as_ref() };
        assert_eq!((record.state(), record.pages()), (state, pages));
        assert_eq!((record.class(), record.live() * usize::from(class.is_some())), (class, 0));
        assert_eq!((record.address(), record.bytes()), (record.start() * PAGE, pages * PAGE));
        assert_eq!(record.end(), record.start() + pages);
        assert_eq!(record.start() % align, 0, "alignment");
        if record.was_zeroed() {
            assert!(is_zero(record.address(), record.bytes()), "not zero as it says");
        }
        let start = record.start();
        let (objects, seed) = (BTreeSet::new(), mix(self.serial, 0));
        self.live.push(Live { span, state, start, pages, class, objects, seed });
        if state != State::Objects {
            self.fill(self.live.len() - 1, 0);
        }
    }

    /// Writes to the pages of a large span from the n-th on.
    fn fill(&self, which: usize, from: usize) {
        let live = &self.live[which];
        for at in words(live.seed, from..live.pages) {
            // SAFETY: within the span, which is ours.
            unsafe { ((live.address() + at) as *mut u64).write(mix(live.seed, at)) };
        }
    }

    /// What was written is still there, in the pages up to the n-th.
    fn is_kept(&self, which: usize, to: usize) {
        let live = &self.live[which];
        for at in words(live.seed, 0..to) {
            // SAFETY: within the span, which is ours.
            let word = unsafe { ((live.address() + at) as *const u64).read() };
            assert_eq!(word, mix(live.seed, at), "contents of a live span changed");
        }
    }

    fn which(&self, n: usize, wanted: impl Fn(&Live) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.live.len()).filter(|&i| wanted(&self.live[i])).collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn take_objects(&mut self, n: usize, count: usize) {
        let Some(which) = self.which(n, |live| live.class.is_some()) else { return };
        let live = &mut self.live[which];
        let class = live.class.unwrap();
        let (span, seed, base) = (live.span, live.seed, live.address());
        let mut last = 0;
        // SAFETY: the span is ours alone, as under its class's lock.
        let taken = unsafe {
            span.as_ref().take_objects(count, |object, past| {
                assert!(object > last, "in order of address");
                last = object;
                assert_eq!((object - base) % class.size(), 0);
                assert!(past != Past::Zeroed || is_zero(object, class.size()), "not zero");
                for at in [object, object + class.size() - 8] {
                    (at as *mut u64).write(mix(seed, at - base));
                }
                assert!(live.objects.insert(object), "handed out twice");
            })
        };
        assert!(taken == count || live.objects.len() == class.objects());
        assert_eq!(live.span().live(), live.objects.len());
    }

    fn put_objects(&mut self, n: usize, count: usize) {
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

    fn objects_are_kept(&self, which: usize) {
        let live = &self.live[which];
        let size = live.class.unwrap().size();
        for &object in &live.objects {
            for at in [object, object + size - 8] {
                // SAFETY: within a live object.
                let word = unsafe { (at as *const u64).read() };
                assert_eq!(word, mix(live.seed, at - live.address()), "contents of a live object");
            }
        }
    }

    fn resize(&mut self, n: usize, pages: usize) {
        let Some(which) = self.which(n, |live| live.class.is_none()) else { return };
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
            self.must_serve(now.is_some());
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

    fn free(&mut self, n: usize) {
        let Some(which) = self.which(n, |_| true) else { return };
        if self.live[which].class.is_some() {
            self.objects_are_kept(which);
        } else {
            self.is_kept(which, self.live[which].pages);
        }
        let live = self.live.swap_remove(which);
        // SAFETY: the span is ours and not used any more; that it is freed twice is a test.
        unsafe {
            if live.class.is_some() {
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

    fn misuse(&mut self, n: usize) {
        let base = self.arena.base();
        let candidates =
            [0, 8, base + n % self.arena.bytes(), base + n * PAGE % self.arena.bytes()];
        for address in candidates {
            let live = self.live.iter().find(|live| live.address() == address);
            let is_live = live.is_some_and(|live| live.class.is_none());
            assert_eq!(self.heap.large_at(address).is_some(), is_live);
            if !is_live {
                // SAFETY: nothing large starts there.
                let freed = unsafe { self.heap.free_large(address) };
                assert_eq!(freed, Err(FreeError::NotAnAllocation));
            }
        }
    }

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
                    State::Objects => true,
                    State::Large => n == first || n == first + live.pages - 1,
                    _ => n == first,
                };
                expected[n] =
                    if entry { Expected::Entry(live.span, class) } else { Expected::Inside };
            }
            match live.state {
                State::Objects => objects += live.pages,
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
                    assert_eq!((span.state(), span.start()), (State::Free, base + n));
                    assert!(!after_free, "H2: free neighbours unmerged at page {n}");
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
                    after_free = true;
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
        assert_eq!(stats.reserved_pages, free + objects + large, "H4");
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
        self.arena.refuse(super::arena::Refusals::Never);
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
