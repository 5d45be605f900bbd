//! Threads that begin and end, and the registry that knows them.

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Registry, ThreadCache};

use crate::arena::{PAIR, SMALL, TINY, class};
use crate::world::{CLAIM, Thread, World};

/// A thread ends, returning all it has cached, while another frees what the first one allocated into
/// its own cache and ends as well: every object comes back once, and every span.
#[test]
fn a_thread_ends_while_another_frees_its_objects() {
    loom::model(|| {
        let world = World::new(1 << 20);
        let (ending, freeing) = (Thread::new(&world), Thread::new(&world));
        let pair = class(PAIR);
        let objects: Vec<usize> = (0..3).map(|_| ending.alloc(pair)).collect();
        let first = thread::spawn(move || ending.end());
        let second = thread::spawn(move || {
            objects.into_iter().for_each(|object| freeing.free(pair, object));
            freeing.end();
        });
        first.join().unwrap();
        second.join().unwrap();
        world.finish();
    });
}

/// A thread that begins while another one ends gets objects of its own, perhaps those that the other
/// has just returned, with what was written to them.
#[test]
fn a_thread_begins_while_another_ends() {
    loom::model(|| {
        let world = World::new(1 << 20);
        let ending = Thread::new(&world);
        let pair = class(PAIR);
        let objects = [ending.alloc(pair), ending.alloc(pair)];
        objects.into_iter().for_each(|object| ending.free(pair, object));
        let first = thread::spawn(move || ending.end());
        let shared = world.clone();
        let second = thread::spawn(move || {
            let beginning = Thread::new(&shared);
            let object = beginning.alloc(pair);
            beginning.free(pair, object);
            beginning.end();
        });
        first.join().unwrap();
        second.join().unwrap();
        world.finish();
    });
}

/// Once a cache has left the registry nobody touches it: a new cache in the same memory, which nobody
/// knows, is not asked for anything.
#[test]
fn a_cache_that_has_left_the_registry_is_not_asked_any_more() {
    loom::model(|| {
        let world = World::new(1 << 20);
        // The newest comes first: the first request goes to the one in the middle, and the one that
        // leaves is next.
        let leaving = Thread::new(&world);
        let (middle, other) = (Thread::new(&world), Thread::new(&world));
        let asking = world.clone();
        let asks = thread::spawn(move || {
            asking.registry.ask_another(&other.cache, CLAIM);
            asking.registry.ask_another(&other.cache, CLAIM);
            [middle, other]
        });
        let mut cache = {
            let Thread { world, cache, .. } = leaving;
            // SAFETY: added by `Thread::new`; the cache is this thread's.
            unsafe { world.registry.remove(NonNull::from(&*cache)) };
            cache
        };
        *cache = ThreadCache::new();
        let unknown = Thread { world: world.clone(), cache, busy: false.into() };
        let objects: [usize; 5] = std::array::from_fn(|_| unknown.alloc(class(SMALL)));
        objects.into_iter().for_each(|object| unknown.free(class(SMALL), object));
        assert_eq!(unknown.cache.limit(), 2 * CLAIM);
        asks.join().unwrap().into_iter().for_each(|thread| thread.end());
        // A slow step, at which it would give what it was asked for.
        let object = unknown.alloc(class(TINY));
        assert!(unknown.cache.limit() >= 2 * CLAIM, "it was asked");
        unknown.free(class(TINY), object);
        // SAFETY: the cache is this thread's.
        unsafe { unknown.cache.retire(&world.central, &world.budget) }.unwrap();
        world.finish();
    });
}

/// Whoever walks the registry sees a cache only while it is there: what its owner does after it has
/// left is never met.
#[test]
fn a_walk_through_the_registry_meets_no_cache_that_has_left() {
    loom::model(|| {
        let registry = Arc::new(Registry::<DefaultRawMutex>::new());
        let caches = [Box::new(ThreadCache::new()), Box::new(ThreadCache::new())];
        let alive = Arc::new([UnsafeCell::new(true), UnsafeCell::new(true)]);
        let places: Vec<usize> = caches.iter().map(|cache| &raw const **cache as usize).collect();
        for cache in &caches {
            // SAFETY: removed before they go.
            unsafe { registry.add(NonNull::from(&**cache)) };
        }
        let (walked, seen) = (registry.clone(), alive.clone());
        let walker = thread::spawn(move || {
            walked.for_each(|cache| {
                let index = places.iter().position(|&place| place == &raw const *cache as usize);
                // SAFETY: loom checks that its owner is not writing.
                seen[index.unwrap()].with(|alive| assert!(unsafe { *alive }));
            });
        });
        for (cache, alive) in caches.iter().zip(alive.iter()) {
            // SAFETY: added above.
            unsafe { registry.remove(NonNull::from(&**cache)) };
            // SAFETY: loom checks that nobody is reading.
            alive.with_mut(|alive| unsafe { *alive = false });
        }
        walker.join().unwrap();
        assert_eq!(registry.count(), 0);
    });
}
