//! Models of the page heap: threads that take, free, resize, decommit and unmap spans at once.
//!
//! The heap never touches the pages that it hands out, so the models give it addresses without memory:
//! pages 8 to 31 of a map of 4 x 8. What each page holds, and whose it is, is kept in a table, which
//! fails as soon as two own a page, an owner's contents change, or `was_zeroed` is not true. The heap's
//! records are in real memory, as ever.
#![cfg(tiermalloc_loom)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;

use loom::thread::{JoinHandle, spawn};

use tiermalloc_page_heap::{FreeError, PageHeap, PageSource, Span, State};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, class_of};
use tiermalloc_sync::RawFutexMutex;
use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 8192;
const FIRST_PAGE: usize = 8;
const END_PAGE: usize = 32;
/// Pages that a heap takes at once under loom.
const STEP: usize = 4;

type Map = PageMap<Span, 4, 8>;
type Heap = PageHeap<'static, RawFutexMutex, &'static Source, 4, 8>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// Not mapped.
    Absent,
    /// Mapped and nobody's, with what it holds (0: it is zero).
    Idle(u8),
    /// Somebody's, with what that one wrote.
    Owned(u8),
}

/// The table of pages, and real memory for records. Its locks are std's: they are no part of what is
/// modelled.
struct Source {
    pages: StdMutex<[Page; END_PAGE]>,
    /// Pages from here on are not given out.
    limit: usize,
    records: StdMutex<Vec<(usize, Layout)>>,
}

impl Source {
    fn range(start: NonNull<u8>, bytes: usize) -> std::ops::Range<usize> {
        let first = start.as_ptr() as usize / PAGE;
        first..first + bytes / PAGE
    }

    /// Marks a span as somebody's, filled with `value`.
    fn take(&self, span: &Span, value: u8) {
        for page in &mut self.pages.lock().unwrap()[span.start()..span.end()] {
            match *page {
                Page::Idle(held) => assert!(held == 0 || !span.was_zeroed(), "not zero: {held}"),
                other => panic!("{other:?} handed out"),
            }
            *page = Page::Owned(value);
        }
    }

    /// Checks that the pages are still as their owner left them, and makes them nobody's.
    fn give(&self, range: std::ops::Range<usize>, value: u8) {
        for page in &mut self.pages.lock().unwrap()[range] {
            assert_eq!(*page, Page::Owned(value));
            *page = Page::Idle(value);
        }
    }
}

/// Regions of the models are 2 to 15 pages long; nodes of the map are shorter, chunks of records longer.
fn is_region(bytes: usize) -> bool {
    (2 * PAGE..16 * PAGE).contains(&bytes)
}

// SAFETY: pages are nobody else's and are never touched; the heap's records get real, zeroed memory.
unsafe impl PageSource for Source {
    fn os_page_size(&self) -> usize {
        PAGE
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if !is_region(bytes) {
            let layout = Layout::from_size_align(bytes, PAGE).unwrap();
            // SAFETY: the layout is not empty.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            self.records.lock().unwrap().push((memory.as_ptr() as usize, layout));
            return Some(memory);
        }
        let mut pages = self.pages.lock().unwrap();
        let count = bytes / PAGE;
        let start = (FIRST_PAGE..(self.limit + 1).saturating_sub(count))
            .find(|&at| pages[at..at + count].iter().all(|page| *page == Page::Absent))?;
        pages[start..start + count].fill(Page::Idle(0));
        NonNull::new((start * PAGE) as *mut u8)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        if is_region(bytes) {
            for page in &mut self.pages.lock().unwrap()[Self::range(start, bytes)] {
                assert!(matches!(*page, Page::Idle(_)), "released {page:?}");
                *page = Page::Absent;
            }
        } else {
            let address = start.as_ptr() as usize;
            let mut records = self.records.lock().unwrap();
            let index = records.iter().position(|record| record.0 == address).unwrap();
            let (_, layout) = records.swap_remove(index);
            assert_eq!(layout.size(), bytes);
            // SAFETY: passed on to the caller.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
        true
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        for page in &mut self.pages.lock().unwrap()[Self::range(start, bytes)] {
            assert!(matches!(*page, Page::Idle(_)), "decommitted {page:?}");
            *page = Page::Idle(0);
        }
        true
    }
}

struct World {
    heap: Heap,
    source: &'static Source,
    /// Touched by owners between two steps: a point at which loom lets the others in, which no access of
    /// the heap would give it.
    gate: AtomicUsize,
}

impl World {
    /// A large span of `pages` pages, filled with `value`.
    fn large(&self, pages: usize, value: u8) -> Option<&'static Span> {
        let span = self.heap.alloc_large(pages, 1)?;
        // SAFETY: records live as long as their spans.
        let span = unsafe { span.as_ref() };
        assert_eq!((span.state(), span.pages()), (State::Large, pages));
        self.source.take(span, value);
        Some(span)
    }

    fn free_large(&self, span: &Span, value: u8) {
        self.source.give(span.start()..span.end(), value);
        // SAFETY: the span is the caller's and not used any more.
        unsafe { self.heap.free_large(span.address()) }.unwrap();
        self.gate.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the first region: two threads that find the heap empty may each ask for one.
    fn grow(&self) {
        let span = self.large(1, 0).unwrap();
        self.free_large(span, 0);
    }

    /// A span of objects of a class, one of them taken, the pages filled with `value`.
    fn objects(&self, class: Class, value: u8) -> Option<NonNull<Span>> {
        let span = self.heap.alloc_objects(class)?;
        // SAFETY: records live as long as their spans; nobody else has this one.
        let record = unsafe { span.as_ref() };
        self.source.take(record, value);
        // Here the use count is 0, while the others do what they like.
        self.gate.fetch_add(1, Ordering::Relaxed);
        self.is_whole(record, class, 0);
        let mut address = 0;
        // SAFETY: the span is ours alone, as under its class's lock.
        assert_eq!(unsafe { record.take_objects(1, |at, _| address = at) }, 1);
        assert_eq!(address, record.address());
        self.is_whole(record, class, 1);
        Some(span)
    }

    /// An object span that nobody has merged or taken away: it is as it was handed out, and the map
    /// knows every page of it (H3).
    fn is_whole(&self, span: &Span, class: Class, live: usize) {
        assert_eq!(span.state(), State::Objects);
        assert_eq!((span.pages(), span.class(), span.live()), (class.pages(), Some(class), live));
        for page in span.start()..span.end() {
            assert_eq!(self.heap.map().span(page * PAGE), Some(NonNull::from(span)));
            assert_eq!(self.heap.map().class_id(page * PAGE), class.id());
        }
    }

    fn free_objects(&self, span: NonNull<Span>, value: u8) {
        // SAFETY: the span is ours alone; its one object comes back and is not used any more.
        unsafe {
            let record = span.as_ref();
            let _ = record.put_object(record.address());
            self.source.give(record.start()..record.end(), value);
            self.heap.free_objects(span);
        }
        self.gate.fetch_add(1, Ordering::Relaxed);
    }

    /// When nobody is at work: every free span is in the map with its first and last page only (H3),
    /// none has a free neighbour (H2), and the pages of all spans are those of the source (H4).
    fn check(&self) {
        let stats = self.heap.stats();
        let pages = *self.source.pages.lock().unwrap();
        let mapped = pages.iter().filter(|page| **page != Page::Absent).count();
        assert_eq!(mapped, stats.reserved_pages + stats.huge_pages);
        assert_eq!(stats.reserved_pages, stats.free_pages + stats.object_pages + stats.large_pages);
        let owned = pages.iter().filter(|page| matches!(page, Page::Owned(_))).count();
        assert_eq!(owned, stats.object_pages + stats.large_pages + stats.huge_pages);
        let mut free = 0;
        let mut page = 0;
        let mut after_free = false;
        while page < END_PAGE {
            // SAFETY: nobody changes spans meanwhile, so what the map names is there.
            let span = self.heap.map().span(page * PAGE).map(|span| unsafe { span.as_ref() });
            let is_free = span.is_some_and(|span| span.state() == State::Free);
            match span {
                Some(span) if is_free => {
                    assert!(!after_free, "free neighbours unmerged at page {page}");
                    assert_eq!(span.start(), page);
                    assert!(pages[page..span.end()].iter().all(|p| matches!(p, Page::Idle(_))));
                    let inside = page + 1..span.end() - 1;
                    assert!(inside.into_iter().all(|p| self.heap.map().span(p * PAGE).is_none()));
                    let last = self.heap.map().span((span.end() - 1) * PAGE);
                    assert_eq!(last, Some(NonNull::from(span)));
                    free += span.pages();
                    page = span.end();
                }
                Some(span) => page = span.end(),
                None => {
                    assert_eq!(pages[page], Page::Absent);
                    page += 1;
                }
            }
            after_free = is_free;
        }
        assert_eq!(free, stats.free_pages);
    }
}

/// Runs a model on a heap that can have `regions` regions of [`STEP`] pages, and checks the heap when
/// its threads are done.
fn model(regions: usize, f: impl Fn(&'static World) + Sync + Send + 'static) {
    loom::model(move || {
        // Threads of a model are 'static; all this is freed below, when the threads are joined.
        let source = Box::into_raw(Box::new(Source {
            pages: StdMutex::new([Page::Absent; END_PAGE]),
            limit: FIRST_PAGE + regions * STEP,
            records: StdMutex::default(),
        }));
        let map = Box::into_raw(Box::new(Map::new()));
        // SAFETY: both are valid until freed below.
        let (source_ref, map_ref) = unsafe { (&*source, &*map) };
        let world = Box::into_raw(Box::new(World {
            heap: Heap::new(map_ref, source_ref),
            source: source_ref,
            gate: AtomicUsize::new(0),
        }));
        // SAFETY: valid until freed below.
        let world_ref: &'static World = unsafe { &*world };
        f(world_ref);
        world_ref.check();
        // SAFETY: all threads are joined; the heap goes before what it points to.
        unsafe {
            drop(Box::from_raw(world));
            drop(Box::from_raw(map));
            for (memory, layout) in (*source).records.lock().unwrap().drain(..) {
                dealloc(memory as *mut u8, layout);
            }
            drop(Box::from_raw(source));
        }
    });
}

fn run(world: &'static World, f: impl FnOnce(&'static World) + 'static) -> JoinHandle<()> {
    spawn(move || f(world))
}

/// One page, one object.
fn page_class() -> Class {
    class_of(PAGE, 8).unwrap()
}

/// The race of the original design: while one thread takes a fresh span, whose use count is still 0,
/// and carves it, another frees the span before it and coalesces; the fresh span is never merged,
/// because mergeable is a state and not a use count.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_with_the_free_neighbour_before_it() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let other = run(world, |world| world.free_large(left, 1));
        // Two pages: they do not fit into the one that the other thread frees.
        let class = class_of(2 * PAGE, 8).unwrap();
        let span = world.objects(class, 2).unwrap();
        other.join().unwrap();
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, class, 1);
        world.check();
        world.free_objects(span, 2);
    });
}

/// The same race with the neighbour behind the fresh span, and with one that served objects itself.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_with_the_free_neighbour_behind_it() {
    model(1, |world| {
        let first = world.large(1, 1).unwrap();
        let second = world.objects(page_class(), 2).unwrap().as_ptr() as usize;
        let rest = world.large(2, 3).unwrap();
        world.free_large(first, 1); // the only free page: the fresh span will be this one
        let other = run(world, move |world| {
            world.free_objects(NonNull::new(second as *mut Span).unwrap(), 2);
        });
        let span = world.objects(page_class(), 4).unwrap();
        other.join().unwrap();
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, page_class(), 1);
        world.check();
        world.free_objects(span, 4);
        world.free_large(rest, 3);
    });
}

/// The same race from both sides at once.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_from_either_side() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let middle = world.large(1, 2).unwrap();
        let right = world.large(2, 3).unwrap();
        world.free_large(middle, 2);
        let others = [
            run(world, |world| world.free_large(left, 1)),
            run(world, |world| world.free_large(right, 3)),
        ];
        let span = world.objects(page_class(), 4).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, page_class(), 1);
        world.check();
        world.free_objects(span, 4);
        assert_eq!(world.heap.stats().free_pages, STEP);
    });
}

/// A thread frees the last span while another one wants it: the other gets it whole or nothing, and
/// then it is free for the next.
#[test]
fn a_free_and_an_allocation_race_for_the_last_span() {
    model(1, |world| {
        let last = world.large(STEP, 1).unwrap();
        let other = run(world, |world| world.free_large(last, 1));
        let mine = world.large(STEP, 2);
        other.join().unwrap();
        world.check();
        if let Some(mine) = mine {
            assert!(world.large(1, 3).is_none());
            world.free_large(mine, 2);
        }
        let next = world.large(STEP, 3).expect("free now");
        world.free_large(next, 3);
    });
}

/// Two threads want the last span: both are served if it is long enough, else one.
#[test]
fn two_allocations_race_for_the_last_span_and_one_gets_it() {
    model(1, |world| {
        world.grow();
        let other = spawn(move || world.large(3, 1).is_some());
        let mine = world.objects(page_class(), 2).is_some();
        let theirs = other.join().unwrap();
        assert!(mine && theirs, "both fit");
        assert!(world.large(1, 3).is_none());
    });
    model(1, |world| {
        world.grow();
        let other = spawn(move || world.large(3, 1).is_some());
        let mine = world.large(2, 2).is_some();
        assert!(mine ^ other.join().unwrap(), "one of them fits");
    });
}

/// Free pages go back to the system while a thread allocates: no page of an owner is decommitted, and
/// what is called zero is zero.
#[test]
fn decommitting_races_an_allocation() {
    model(2, |world| {
        let kept = world.large(1, 1).unwrap();
        let dirty = world.large(2, 2).unwrap();
        world.free_large(dirty, 2);
        let other = run(world, |world| {
            world.heap.release_pages(usize::MAX);
        });
        let mine = world.large(1, 3).unwrap();
        world.free_large(mine, 3);
        other.join().unwrap();
        world.free_large(kept, 1);
    });
}

/// Free pages go back to the system while the span next to them is freed: they are merged in the end,
/// whoever comes last.
#[test]
fn decommitting_races_the_free_of_a_neighbour() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let dirty = world.large(2, 2).unwrap();
        let right = world.large(1, 3).unwrap();
        world.free_large(dirty, 2);
        let other = run(world, |world| {
            world.heap.release_pages(2);
        });
        world.free_large(left, 1);
        other.join().unwrap();
        world.check();
        world.free_large(right, 3);
        assert_eq!(world.heap.stats().free_pages, STEP);
        let all = world.large(STEP, 4).expect("one span again");
        world.free_large(all, 4);
    });
}

/// Two threads give back to the system at once: no span is lost between them.
#[test]
fn two_threads_decommit_at_once() {
    model(1, |world| {
        let first = world.large(1, 1).unwrap();
        let between = world.large(1, 2).unwrap();
        world.free_large(first, 1);
        let last = world.large(2, 3).unwrap();
        world.free_large(last, 3);
        let other = run(world, |world| {
            world.heap.release_pages(usize::MAX);
        });
        world.heap.release_pages(usize::MAX);
        other.join().unwrap();
        world.free_large(between, 2);
        let stats = world.heap.stats();
        assert_eq!((stats.free_pages, stats.dirty_pages >= 1), (STEP, true));
    });
}

/// Of two threads that free the same large address, exactly one succeeds; the other is told.
#[test]
fn of_two_frees_of_one_address_exactly_one_succeeds() {
    model(1, |world| {
        let span = world.large(2, 1).unwrap();
        let address = span.address();
        world.source.give(span.start()..span.end(), 1);
        // SAFETY: nobody uses the allocation; that it is freed twice is the point.
        let free = move || unsafe { world.heap.free_large(address) };
        let other = spawn(free);
        let mine = free();
        let theirs = other.join().unwrap();
        assert!(mine.is_ok() ^ theirs.is_ok());
        assert_eq!(mine.and(theirs), Err(FreeError::NotAnAllocation));
    });
}

/// Two threads free neighbours at once: they end up as one span.
#[test]
fn neighbours_freed_at_once_end_up_merged() {
    model(1, |world| {
        let spans = [(); STEP].map(|()| world.large(1, 7).unwrap());
        let [a, b, c, d] = spans;
        let other = run(world, |world| {
            world.free_large(a, 7);
            world.free_large(c, 7);
        });
        world.free_large(b, 7);
        other.join().unwrap();
        world.check();
        world.free_large(d, 7);
        let all = world.large(STEP, 1).expect("one span again");
        world.free_large(all, 1);
    });
}

/// A large allocation grows into the free pages behind it while another thread wants them too: they go
/// to one of the two.
#[test]
fn growing_in_place_races_an_allocation_of_the_next_pages() {
    model(1, |world| {
        let first = world.large(2, 1).unwrap();
        let other = spawn(move || world.large(2, 2).is_some());
        // SAFETY: the allocation is ours.
        let grown = unsafe { world.heap.resize_large(first.address(), 3) };
        if grown {
            let mut pages = world.source.pages.lock().unwrap();
            let page = &mut pages[first.end() - 1];
            assert_eq!(*page, Page::Idle(0));
            *page = Page::Owned(1);
        }
        let theirs = other.join().unwrap();
        assert!(grown ^ theirs);
        assert_eq!(first.pages(), if grown { 3 } else { 2 });
        world.free_large(first, 1);
    });
}

/// Two threads find the heap empty and grow it at once: both regions are in the heap, merged.
#[test]
fn growing_at_once_loses_no_region() {
    model(2, |world| {
        let other = run(world, |world| {
            let span = world.objects(page_class(), 1).unwrap();
            world.free_objects(span, 1);
        });
        let span = world.large(2, 2).unwrap();
        world.free_large(span, 2);
        other.join().unwrap();
        let stats = world.heap.stats();
        assert_eq!(stats.free_pages, stats.grown * STEP);
    });
}

/// Mappings of their own come and go while the heap works beside them.
#[test]
fn huge_allocations_come_and_go_beside_the_heap() {
    model(3, |world| {
        let neighbour = world.large(STEP, 1).unwrap();
        let other = run(world, |world| {
            // SAFETY: the record lives as long as the span.
            let huge = unsafe { world.heap.alloc_huge(3 * PAGE, PAGE).unwrap().as_ref() };
            assert_eq!((huge.state(), huge.was_zeroed()), (State::Huge, true));
            world.source.take(huge, 2);
            world.free_large(huge, 2);
        });
        world.free_large(neighbour, 1);
        let again = world.large(2, 3).unwrap();
        other.join().unwrap();
        world.free_large(again, 3);
        assert_eq!(world.heap.stats().huge_pages, 0);
    });
}

/// Free spans are unmapped while a neighbour is freed and another thread allocates: nobody's pages are
/// unmapped, and the heap forgets what is gone.
#[test]
fn unmapping_races_a_free_and_an_allocation() {
    model(2, |world| {
        let left = world.large(1, 1).unwrap();
        let other = run(world, |world| {
            world.heap.unmap_free();
        });
        world.free_large(left, 1);
        let mine = world.large(2, 2).unwrap();
        other.join().unwrap();
        world.check();
        world.free_large(mine, 2);
    });
}
