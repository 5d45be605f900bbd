//! Models of the central cache: the functions that ship, over a page heap that ships, explored by
//! loom in every order in which threads can meet.
//!
//! Each object has a cell of loom's beside it. Whoever gets an object writes into its cell, so that an
//! object in two hands, or one that was handed over without the second hand seeing what the first one
//! wrote, is a failure.
#![cfg(tiermalloc_loom)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize as StdUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tiermalloc_central_cache::{CentralCache, Chain, ClassStats, SpanSource};
use tiermalloc_page_heap::{PageHeap, PageSource, Span};
use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_size_class::{Class, PAGE_SIZE, class_of};
use tiermalloc_sync::DefaultRawMutex;

/// Two objects a span, two objects a batch, one batch in the transfer cache: 7 pages a span.
const PAIR: usize = 28672;
/// One object a span and a batch: 3 pages a span.
const SINGLE: usize = 40960;

/// Pages that the map can hold.
const MAP_PAGES: usize = 64;
const ARENA_PAGES: usize = 40;
/// What the heap takes for its records is larger than any region of these models.
const RECORDS: usize = 128 * 1024;

type Map = PageMap<Span, 2, MAP_PAGES>;
type Heap = PageHeap<'static, DefaultRawMutex, Arena, 2, MAP_PAGES>;

/// Regions out of one piece of memory, from the top down; records from elsewhere. Std's own locks and
/// atomics: loom switches threads only at its own, so these add nothing to explore.
struct Arena {
    start: usize,
    left: StdUsize,
    records: StdMutex<Vec<usize>>,
}

/// Aligned so that the borders inside the map lie alike in every execution: models are deterministic.
const ARENA: Layout = layout(ARENA_PAGES * PAGE_SIZE, MAP_PAGES * PAGE_SIZE);
const RECORD_CHUNK: Layout = layout(RECORDS, PAGE_SIZE);

const fn layout(bytes: usize, align: usize) -> Layout {
    match Layout::from_size_align(bytes, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    }
}

impl Arena {
    fn new() -> Self {
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(ARENA) } as usize;
        Self { start, left: StdUsize::new(ARENA.size()), records: StdMutex::new(Vec::new()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: taken with these layouts, and the heap over them is gone.
        unsafe {
            dealloc(self.start as *mut u8, ARENA);
            self.records
                .lock()
                .unwrap()
                .iter()
                .for_each(|&at| dealloc(at as *mut u8, RECORD_CHUNK));
        }
    }
}

// SAFETY: std's allocator gives zeroed, aligned memory that is ours until the drop.
unsafe impl PageSource for Arena {
    fn os_page_size(&self) -> usize {
        4096
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes == RECORDS {
            // SAFETY: the layout is not empty.
            let chunk = NonNull::new(unsafe { alloc_zeroed(RECORD_CHUNK) })?;
            self.records.lock().unwrap().push(chunk.as_ptr() as usize);
            return Some(chunk);
        }
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes)?;
        self.left.store(left, Ordering::Relaxed);
        NonNull::new((self.start + left) as *mut u8)
    }
    unsafe fn release(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
    unsafe fn decommit(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
}

/// The home window serves all of the arena, so that no leaf is ever needed.
struct NoLeaves;

// SAFETY: it returns nothing.
unsafe impl MapMemory for NoLeaves {
    fn alloc_zeroed(&self, _: Layout) -> Option<NonNull<u8>> {
        None
    }
    unsafe fn free(&self, _: NonNull<u8>, _: Layout) {}
}

/// The page heap as a source of spans that knows which of them are out.
struct Spans {
    heap: Heap,
    out: StdMutex<BTreeSet<usize>>,
}

// SAFETY: the page heap's word, which this passes on.
unsafe impl SpanSource for Spans {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        let span = self.heap.alloc_objects(class)?;
        // SAFETY: just allocated.
        let address = unsafe { span.as_ref() }.address();
        assert!(self.out.lock().unwrap().insert(address), "a span is out twice");
        Some(span)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: the caller's alone until it is freed below.
        let address = unsafe { span.as_ref() }.address();
        assert!(self.out.lock().unwrap().remove(&address), "a span is freed twice");
        // SAFETY: passed on to the caller.
        unsafe { self.heap.free_objects(span) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.heap.map().span(address)
    }
}

/// A central cache and all that lies below it. The order of the fields is the order of the drops.
struct World {
    central: CentralCache<DefaultRawMutex, Spans>,
    class: Class,
    start: usize,
    /// One for each page of the arena; an object's is that of its first page.
    cells: Vec<UnsafeCell<bool>>,
    _map: Box<Map>,
}

// SAFETY: the cells are loom's, which sees to it that nobody is where somebody else is.
unsafe impl Sync for World {}

impl World {
    /// Built on a thread with a large stack, for under loom the cache is some 100 KiB long.
    fn new(size: usize) -> Arc<Self> {
        let build = thread::Builder::new().stack_size(64 * 1024);
        let built = build.spawn(move || {
            let map = Box::new(Map::new());
            // SAFETY: the map is dropped after everything that refers to it.
            let shared: &'static Map = unsafe { NonNull::from(&*map).as_ref() };
            let arena = Arena::new();
            let start = arena.start;
            // The arena lies in the home window whichever region is the first.
            shared.ensure(start + ARENA.size() - 1, 1, &NoLeaves).unwrap();
            let spans =
                Spans { heap: PageHeap::new(shared, arena), out: StdMutex::new(BTreeSet::new()) };
            let cells = (0..ARENA_PAGES).map(|_| UnsafeCell::new(false)).collect();
            let class = class_of(size, 8).unwrap();
            Arc::new(Self { central: CentralCache::new(spans), class, start, cells, _map: map })
        });
        built.unwrap().join().unwrap()
    }

    fn cell(&self, object: *mut u8) -> &UnsafeCell<bool> {
        &self.cells[(object as usize - self.start) / PAGE_SIZE]
    }

    /// Marks the objects of a chain as the caller's and returns them.
    fn receive(&self, mut chain: Chain) -> Vec<usize> {
        let mut all = Vec::new();
        // SAFETY: the chain is the caller's.
        while let Some(object) = unsafe { chain.pop() } {
            // SAFETY: loom checks that nobody else is there.
            let had = self.cell(object).with_mut(|held| unsafe { held.replace(true) });
            assert!(!had, "an object is handed out twice");
            all.push(object as usize);
        }
        assert_eq!(chain.count, 0, "a chain is as long as it says");
        all
    }

    fn fetch(&self, wanted: usize) -> Vec<usize> {
        self.receive(self.central.fetch(self.class, wanted))
    }

    fn fetch_one(&self) -> Vec<usize> {
        let one = self.central.fetch_one(self.class);
        self.receive(one.map_or(Chain::EMPTY, |(head, _)| Chain { head: head.as_ptr(), count: 1 }))
    }

    /// Gives objects up, as one chain.
    fn store(&self, objects: Vec<usize>) {
        let mut chain = Chain::EMPTY;
        for object in objects {
            let object = object as *mut u8;
            // SAFETY: as in `receive`.
            let had = self.cell(object).with_mut(|held| unsafe { held.replace(false) });
            assert!(had, "an object is given up twice");
            // SAFETY: the object is the caller's.
            unsafe { chain.push(object) };
        }
        // SAFETY: as above.
        unsafe { self.central.store(self.class, chain) }.unwrap();
    }

    fn stats(&self) -> ClassStats {
        self.central.stats(self.class)
    }

    fn spans_out(&self) -> usize {
        self.central.source().out.lock().unwrap().len()
    }

    /// With `held` objects in the threads' hands, every other one is in its place.
    fn check(&self, held: usize) {
        let stats = self.stats();
        assert_eq!(stats.out, stats.transfer + held, "objects are conserved");
        assert_eq!(stats.spans, self.spans_out(), "the class knows its spans");
    }

    /// With nothing in the threads' hands, everything goes back: nothing is lost.
    fn finish(&self) {
        self.check(0);
        self.central.drain(self.class, usize::MAX).unwrap();
        let stats = self.stats();
        assert_eq!((stats.spans, stats.out, stats.transfer), (0, 0, 0));
        assert_eq!(self.spans_out(), 0);
        assert_eq!(self.central.source().heap.stats().object_pages, 0);
    }
}

/// Runs `work` on a thread of its own.
fn spawn<T: 'static>(
    world: &Arc<World>,
    work: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = world.clone();
    thread::spawn(move || work(&world))
}

/// A batch that one thread stores reaches the other whole, with what was written to it, or stays.
#[test]
fn a_batch_passes_through_the_transfer_cache_whole() {
    loom::model(|| {
        let world = World::new(PAIR);
        let batch = world.fetch(2);
        let storing = spawn(&world, move |world| world.store(batch));
        let got = world.fetch(2);
        storing.join().unwrap();
        world.check(2);
        world.store(got);
        world.finish();
    });
}

/// With room for one batch, of two threads that insert, one goes to the spans, and a third that
/// removes gets a whole batch from whichever place: none is lost or doubled.
#[test]
fn inserts_and_a_remove_meet_at_a_full_transfer_cache() {
    loom::model(|| {
        let world = World::new(PAIR);
        let (one, two) = (world.fetch(2), world.fetch(2));
        let first = spawn(&world, move |world| world.store(one));
        let second = spawn(&world, move |world| world.store(two));
        let got = world.fetch(2);
        first.join().unwrap();
        second.join().unwrap();
        assert!(!got.is_empty());
        world.check(got.len());
        world.store(got);
        world.finish();
    });
}

/// Two threads that both want the one batch of the transfer cache: one gets it, the other objects of a
/// span.
#[test]
fn two_removes_never_get_the_same_batch() {
    loom::model(|| {
        let world = World::new(PAIR);
        let batch = world.fetch(2);
        world.store(batch);
        let other = spawn(&world, |world| world.fetch(2));
        let mine = world.fetch(2);
        let theirs = other.join().unwrap();
        world.check(mine.len() + theirs.len());
        world.store(mine);
        world.store(theirs);
        world.finish();
    });
}

/// While one thread returns both objects of a span, one by one, another takes from that span: it is
/// freed once, and only with both objects in it.
#[test]
fn a_span_that_empties_while_another_thread_takes_from_it_is_freed_once_or_stays() {
    loom::model(|| {
        let world = World::new(PAIR);
        let mut pair = world.fetch(2);
        let (last, first) = (pair.pop().unwrap(), pair.pop().unwrap());
        let emptying = spawn(&world, move |world| {
            world.store(vec![first]);
            world.store(vec![last]);
        });
        let got = world.fetch(1);
        emptying.join().unwrap();
        world.check(1);
        world.store(got);
        world.finish();
    });
}

/// The last object of a span returns while another thread, which finds the class empty, brings a span:
/// the old one is freed once, and the new one serves.
#[test]
fn the_return_of_the_last_object_races_a_refill() {
    loom::model(|| {
        let world = World::new(SINGLE);
        let only = world.fetch_one();
        // The transfer cache is full, so that the object goes to its span.
        let kept = world.fetch_one();
        world.store(kept);
        let returning = spawn(&world, move |world| world.store(only));
        let got = world.fetch_one();
        returning.join().unwrap();
        assert_eq!(got.len(), 1);
        world.check(1);
        world.store(got);
        world.finish();
    });
}

/// Two threads return the two objects of one span at once: exactly one of them frees it.
#[test]
fn two_threads_that_return_the_last_objects_of_a_span_free_it_once() {
    loom::model(|| {
        let world = World::new(PAIR);
        let mut pair = world.fetch(2);
        let one = vec![pair.pop().unwrap()];
        let returning = spawn(&world, move |world| world.store(one));
        world.store(pair);
        returning.join().unwrap();
        assert_eq!((world.spans_out(), world.stats().spans), (0, 0));
        world.finish();
    });
}

/// Two threads that find the class empty each bring a span; both spans serve, and no object is in two
/// hands.
#[test]
fn two_refills_at_once_bring_a_span_each() {
    loom::model(|| {
        let world = World::new(PAIR);
        let other = spawn(&world, |world| world.fetch(1));
        let mine = world.fetch(1);
        let theirs = other.join().unwrap();
        world.check(2);
        assert!(world.spans_out() <= 2);
        world.store(mine);
        world.store(theirs);
        world.finish();
    });
}

/// A thread that brings a span is served from it, however fast others are: two threads that want all
/// that a span has get it, each from a span of its own.
#[test]
fn whoever_brings_a_span_is_served_from_it() {
    loom::model(|| {
        let world = World::new(PAIR);
        let other = spawn(&world, |world| world.fetch(2));
        let mine = world.fetch(2);
        let theirs = other.join().unwrap();
        assert_eq!((mine.len(), theirs.len()), (2, 2));
        world.check(4);
        world.store(mine);
        world.store(theirs);
        world.finish();
    });
}

/// Draining the transfer cache, fetching from it and storing to it at once moves each batch to one
/// place.
#[test]
fn a_drain_races_a_fetch_and_a_store() {
    loom::model(|| {
        let world = World::new(PAIR);
        let (waiting, batch) = (world.fetch(2), world.fetch(2));
        world.store(waiting);
        let storing = spawn(&world, move |world| world.store(batch));
        let draining = spawn(&world, |world| {
            world.central.drain(world.class, 1).unwrap();
        });
        let got = world.fetch(2);
        storing.join().unwrap();
        draining.join().unwrap();
        world.check(got.len());
        world.store(got);
        world.finish();
    });
}

/// A span that one thread frees to the page heap is carved again by another: what was written to its
/// objects is seen, and its record is in one hand at a time.
#[test]
fn a_freed_span_serves_the_next_thread() {
    loom::model(|| {
        let world = World::new(SINGLE);
        let (full, only) = (world.fetch_one(), world.fetch_one());
        world.store(full);
        let freeing = spawn(&world, move |world| world.store(only));
        let (one, two) = (world.fetch_one(), world.fetch_one());
        freeing.join().unwrap();
        world.check(2);
        world.store(one);
        world.store(two);
        world.finish();
    });
}
