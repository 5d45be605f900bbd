//! The reference model: what is out, what it holds, and what must be true of the heap after each step.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ptr::NonNull;

use tiermalloc_page_heap::{HeapStats, PageHeap, Span, State};
use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_size_class::{CLASSES, Class};
use tiermalloc_sync::RawFutexMutex;

use super::arena::{Arena, PAGE, is_zero};
use super::waits::Waits;

/// Leaves of 256 pages, so that an arena lies across many of them: its leaves take one page each.
pub const SMALL_ROOT: usize = 1 << 17;
pub const SMALL_LEAF: usize = 256;

#[derive(Clone, Debug)]
pub enum Step {
    AllocObjects(usize),
    /// A span of objects and so many behind it.
    AllocRun(usize, usize),
    /// Make the n-th object span one of another class of as many pages.
    Recarve(usize, usize),
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
    AllocGuarded {
        bytes: usize,
        align: usize,
    },
    /// Resize the n-th large or huge span to so many pages.
    Resize(usize, usize),
    /// Free the n-th span.
    Free(usize),
    /// Free the n-th large span so that it waits, near to somebody.
    FreeToWait(usize, usize),
    /// Allocate one that waits near to somebody, or near to anybody else.
    AllocWaiting {
        pages: usize,
        near: usize,
        elsewhere: bool,
    },
    /// What has waited since the last such step becomes free.
    ReturnIdle,
    ReleasePages(usize),
    ReleaseDownTo(usize),
    ReleaseDownToWorth(usize),
    ReleaseSome(usize),
    UnmapFree,
    PassTime(u64),
    /// Set the limits, in MiB, as far as they are there.
    Limits {
        hard: usize,
        soft: usize,
    },
    /// Free an address at which no large span starts.
    Misuse(usize),
}

pub(super) struct Live {
    pub(super) span: NonNull<Span>,
    pub(super) state: State,
    pub(super) start: usize,
    pub(super) pages: usize,
    /// None of an object span that nobody has carved.
    pub(super) class: Option<Class>,
    /// Pages on either side that are no others'.
    pub(super) guard: usize,
    /// Objects handed out.
    pub(super) objects: BTreeSet<usize>,
    /// Objects that were handed out at some time.
    pub(super) used: BTreeSet<usize>,
    pub(super) seed: u64,
    /// Whose an object span was said to be.
    pub(super) owner: usize,
}

impl Live {
    pub(super) fn span(&self) -> &Span {
        // SAFETY: records live as long as their spans.
        unsafe { self.span.as_ref() }
    }
    pub(super) fn address(&self) -> usize {
        self.start * PAGE
    }
}

pub(super) fn mix(seed: u64, n: usize) -> u64 {
    let x = (seed ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}

/// Three words of each page of a span, at places that depend on span and page.
pub(super) fn words(seed: u64, pages: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
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
    pub(super) arena: &'m Arena,
    pub(super) live: Vec<Live>,
    /// What was freed to wait, and may wait no more.
    pub(super) waits: Vec<Waits>,
    serial: u64,
    /// Pages that the source kept and that the heap could not take either.
    pub lost: usize,
    /// Guard pages of the span that the step has freed.
    pub(super) guards_freed: usize,
    /// The limits in pages.
    pub(super) hard: usize,
    pub(super) soft: usize,
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
    let mut model = Model {
        heap: PageHeap::new(&map, arena),
        arena,
        live: Vec::new(),
        waits: Vec::new(),
        serial: 0,
        lost: 0,
        guards_freed: 0,
        hard: usize::MAX,
        soft: usize::MAX,
    };
    f(&mut model);
    drop(map);
}

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    /// Does one step and checks everything.
    pub fn step(&mut self, step: &Step) {
        self.arena.begin();
        let before = self.heap.stats();
        self.apply(step);
        self.check_limits(step, before);
        let lost = self.check() - self.lost;
        let refused = self.arena.refused();
        // The guards of a mapping that the source keeps cannot be made use of.
        let guards = std::mem::take(&mut self.guards_freed);
        let excused = refused > 1 || refused == 1 && lost <= guards;
        assert!(lost == 0 || excused, "{lost} pages lost over {refused} refusals");
        self.lost += lost;
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::AllocObjects(id) => {
                let class = Class::from_id(1 + id % CLASSES).unwrap();
                let span = self.heap.alloc_objects(class);
                self.must_serve(span.is_some(), class.pages());
                if let Some(span) = span {
                    self.add(span, State::Objects, class.pages(), 1, Some(class));
                }
            }
            Step::AllocRun(id, more) => self.alloc_run(id, more),
            Step::Recarve(n, id) => self.recarve(n, id),
            Step::TakeObjects(n, count) => self.take_objects(n, count),
            Step::PutObjects(n, count) => self.put_objects(n, count),
            Step::AllocLarge { pages, align } => {
                let span = self.heap.alloc_large(pages, align);
                self.must_serve(span.is_some(), pages);
                if let Some(span) = span {
                    self.add(span, State::Large, pages, align, None);
                }
            }
            Step::AllocHuge { bytes, align } => {
                let unit = PAGE.max(tiermalloc_page_heap::PageSource::os_page_size(self.arena));
                let pages = bytes.next_multiple_of(unit) / PAGE;
                let span = self.heap.alloc_huge(bytes, align);
                self.must_serve(span.is_some(), pages);
                if let Some(span) = span {
                    // SAFETY: the span is ours.
                    let state = unsafe { span.as_ref() }.state();
                    assert!(matches!(state, State::Huge | State::Large));
                    self.add(span, state, pages, (align / PAGE).max(1), None);
                }
            }
            Step::AllocGuarded { bytes, align } => self.alloc_guarded(bytes, align),
            Step::Resize(n, pages) => self.resize(n, pages),
            Step::Free(n) => self.free(n),
            Step::FreeToWait(n, near) => self.free_to_wait(n, near),
            Step::AllocWaiting { pages, near, elsewhere } => {
                self.alloc_waiting(pages, near, elsewhere);
            }
            Step::ReturnIdle => {
                let before = self.heap.stats();
                self.heap.return_idle();
                assert_eq!(self.heap.stats().free_pages, before.free_pages);
            }
            Step::ReleasePages(wanted) => {
                let before = self.heap.stats();
                // What is clean between two dirty spans that meet counts with them.
                let joins = self.anything_waits();
                let released = self.heap.release_pages(wanted);
                let after = self.heap.stats();
                assert_eq!(after.decommitted_pages - before.decommitted_pages, released);
                assert_eq!(after.free_pages, before.free_pages);
                assert!(after.dirty_pages <= before.dirty_pages || joins);
                let small_pages = self.arena_os_page() <= PAGE;
                if small_pages && self.arena.refused() == 0 {
                    assert!(released >= wanted.min(before.dirty_pages));
                    let gone = before.dirty_pages.saturating_sub(after.dirty_pages);
                    assert!(gone == released || joins && gone < released);
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
            Step::Limits { hard, soft } => {
                let pages = |mib: usize| match mib {
                    0 => usize::MAX,
                    _ => (mib << 20) / (PAGE + 9),
                };
                (self.hard, self.soft) = (pages(hard), pages(soft));
                let before = self.heap.hard_limit();
                assert_eq!(self.heap.set_hard_limit(hard << 20), before);
                assert_eq!(self.heap.hard_limit(), hard << 20);
                self.heap.set_soft_limit(soft << 20);
            }
            Step::Misuse(n) => self.misuse(n),
        }
    }

    pub(super) fn arena_os_page(&self) -> usize {
        tiermalloc_page_heap::PageSource::os_page_size(self.arena)
    }

    /// Nobody refused anything, and it would have been within the limit: then there is no reason to fail.
    pub(super) fn must_serve(&self, served: bool, pages: usize) {
        let stats = self.heap.stats();
        let in_use = stats.committed_pages - stats.dirty_pages;
        // Of larger pages some are dirty for good.
        let full = in_use.saturating_add(pages) > self.hard
            || self.hard != usize::MAX && self.arena_os_page() > PAGE;
        assert!(
            served || full || self.arena.refused() > 0,
            "nothing was refused, and yet there is none"
        );
    }

    /// What the limits promise after a step.
    fn check_limits(&self, step: &Step, before: HeapStats) {
        let stats = self.heap.stats();
        let pages = stats.object_pages + stats.large_pages + stats.huge_pages + stats.dirty_pages;
        assert_eq!(stats.moving_pages, 0, "nothing is on its way between two steps");
        assert_eq!(stats.committed_pages, pages + stats.record_bytes / PAGE);
        // A chunk of records, three kinds of which there are, is what the limit may be exceeded by.
        let most = before.committed_pages.max(self.hard).saturating_add(3 * 16);
        // What is clean between two dirty spans that a free joins counts with them.
        let joins = matches!(
            step,
            Step::Free(_)
                | Step::Recarve(..)
                | Step::Resize(..)
                | Step::UnmapFree
                | Step::ReleaseSome(_)
                | Step::Limits { .. }
        );
        assert!(joins || stats.committed_pages <= most, "H6: {stats:?}, {}", self.hard);
        // What has failed may leave a chunk behind.
        let told = self.heap.is_tight() == (stats.committed_pages > self.soft);
        assert!(told || before.record_bytes != stats.record_bytes, "{step:?} {stats:?}");
        let used = |stats: &HeapStats| (stats.object_pages, stats.large_pages);
        let acts = matches!(step, Step::Limits { .. }) || used(&before) != used(&stats);
        if acts && self.heap.is_tight() && self.arena.refused() == 0 && self.arena_os_page() <= PAGE
        {
            assert_eq!(stats.dirty_pages, 0, "free pages go back at once: {step:?} {stats:?}");
        }
    }

    pub(super) fn add(
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
        let used = BTreeSet::new();
        let mut owner = 0;
        if state == State::Objects {
            assert_eq!(record.owner(), 0, "nobody's yet");
            owner = self.serial as usize % 128;
            record.set_owner(owner);
        }
        let guard = 0;
        self.live.push(Live {
            span,
            state,
            start,
            pages,
            class,
            guard,
            objects,
            used,
            seed,
            owner,
        });
        if state != State::Objects {
            self.fill(self.live.len() - 1, 0);
        }
    }

    fn alloc_guarded(&mut self, bytes: usize, align: usize) {
        let span = self.heap.alloc_guarded(bytes, align);
        // It never comes out of what the heap has free, and that may be all there is.
        let Some(span) = span else { return };
        let unit = PAGE.max(self.arena_os_page());
        self.add(
            span,
            State::Huge,
            bytes.next_multiple_of(unit) / PAGE,
            (align / PAGE).max(1),
            None,
        );
        let guard = unit / PAGE;
        let live = self.live.last_mut().unwrap();
        live.guard = guard;
        let first = live.start - self.arena.base_page();
        let guards = [first - guard..first, first + live.pages..first + live.pages + guard];
        let forbidden = guards.into_iter().flatten().all(|page| self.arena.is_forbidden(page));
        assert!(forbidden || self.arena.refused() > 0, "guards that nobody refused are there");
        let within = (first..first + live.pages).any(|page| self.arena.is_forbidden(page));
        assert!(!within, "the block itself is to be used");
    }
}
