//! Models of the central cache: the functions that ship, over a page heap that ships, explored by
//! loom in every order in which threads can meet.
//!
//! Whoever gets an object, and gives it up, says so to [`Hands`], which fails as soon as two have it.
#![cfg(tiermalloc_loom)]

mod arena;
mod shards;
mod single;
mod way;

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;

use loom::sync::Arc;
use loom::thread;
use tiermalloc_central_cache::{CentralCache, Chain, ClassStats, SpanSource};
use tiermalloc_page_heap::Span;
use tiermalloc_size_class::{Class, PAGE_SIZE};
use tiermalloc_sync::DefaultRawMutex;

use arena::{Arena, Hands, Heap, Map, PAIR, SINGLE, class};

/// The page heap as a source of spans that knows which of them are out.
struct Spans {
    heap: Heap,
    out: StdMutex<BTreeSet<usize>>,
    /// What it says it has reserved: by that goes how much may wait above it.
    reserved: usize,
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
    unsafe fn unregister(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.heap.unregister_objects(span) }
    }
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.heap.recarve_objects(span, class) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.heap.map().span(address)
    }
    fn surplus(&self) {
        panic!("no model holds 2 MiB: what is held has fallen below nothing");
    }
    fn reserved_bytes(&self) -> usize {
        self.reserved
    }
}

/// A central cache and all that lies below it. The order of the fields is the order of the drops.
struct World {
    central: CentralCache<DefaultRawMutex, Spans>,
    class: Class,
    hands: Hands,
    _map: Box<Map>,
}

// SAFETY: loom sees to it that nobody is where somebody else is.
unsafe impl Sync for World {}

impl World {
    /// Over a heap so large that nothing that is held is much.
    fn new(size: usize) -> Arc<Self> {
        Self::over(usize::MAX, size)
    }

    fn over(reserved: usize, size: usize) -> Arc<Self> {
        let map = Box::new(Map::new());
        // SAFETY: the map is dropped after everything that refers to it.
        let (heap, hands) = unsafe { Arena::new().heap(&map) };
        let spans = Spans { heap, out: StdMutex::new(BTreeSet::new()), reserved };
        Arc::new(Self { central: CentralCache::new(spans), class: class(size), hands, _map: map })
    }

    /// Marks the objects of a chain as the caller's and returns them.
    fn receive(&self, mut chain: Chain) -> Vec<usize> {
        let mut all = Vec::new();
        // SAFETY: the chain is the caller's.
        while let Some(object) = unsafe { chain.pop() } {
            self.hands.receive(object as usize);
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
            self.hands.give_up(object);
            // SAFETY: the object is the caller's.
            unsafe { chain.push(object as *mut u8) };
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
        let kept = self.central.kept_bytes() / PAGE_SIZE / self.class.pages();
        assert_eq!(stats.spans + kept, self.spans_out(), "the class knows its spans");
    }

    /// With nothing in the threads' hands, everything goes back: nothing is lost.
    fn finish(&self) {
        self.check(0);
        self.central.drain(self.class, usize::MAX).unwrap();
        self.central.free_kept_spans();
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
