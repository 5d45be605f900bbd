//! Models of the thread cache: threads that end, that free what others allocated, and that take each
//! other's share of the budget, explored by loom in every order in which they can meet. What runs is
//! what ships, down to the page heap.
//!
//! Each object has a cell of loom's beside it. Whoever holds an object writes into its cell, so that an
//! object in two hands, or one that was handed over without the second hand seeing what the first one
//! wrote, is a failure.
#![cfg(tiermalloc_loom)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize as StdUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tiermalloc_central_cache::CentralCache;
use tiermalloc_page_heap::{PageHeap, PageSource, Span};
use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_size_class::{Class, PAGE_SIZE, class_of};
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Budget, Registry, ThreadCache};

/// Two objects a span, two objects a batch, one batch in the transfer cache: 7 pages a span.
const PAIR: usize = 28672;
/// Objects that cost the budget little; those of the other class lie at multiples of it, too.
const SMALL: usize = 4096;
/// Bytes of the budget that a cache claims at least at once.
const CLAIM: usize = 16 * 1024;

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

type Central = CentralCache<DefaultRawMutex, Heap>;

/// Everything that the threads of a process share. The order of the fields is the order of the drops.
struct World {
    central: Central,
    budget: Budget,
    total: usize,
    registry: Registry<DefaultRawMutex>,
    class: Class,
    start: usize,
    /// One for each place in the arena where an object may start.
    cells: Vec<UnsafeCell<bool>>,
    _map: Box<Map>,
}

// SAFETY: the cells are loom's, which sees to it that nobody is where somebody else is.
unsafe impl Sync for World {}

impl World {
    /// Built on a thread with a large stack, for under loom the central cache is some 100 KiB long.
    fn new(total: usize) -> Arc<Self> {
        let build = thread::Builder::new().stack_size(64 * 1024);
        let built = build.spawn(move || {
            let map = Box::new(Map::new());
            // SAFETY: the map is dropped after everything that refers to it.
            let shared: &'static Map = unsafe { NonNull::from(&*map).as_ref() };
            let arena = Arena::new();
            let start = arena.start;
            // The arena lies in the home window whichever region is the first.
            shared.ensure(start + ARENA.size() - 1, 1, &NoLeaves).unwrap();
            Arc::new(Self {
                central: CentralCache::new(PageHeap::new(shared, arena)),
                budget: Budget::new(total, total),
                total,
                registry: Registry::new(),
                class: class_of(PAIR, 8).unwrap(),
                start,
                cells: (0..ARENA.size() / SMALL).map(|_| UnsafeCell::new(false)).collect(),
                _map: map,
            })
        });
        built.unwrap().join().unwrap()
    }

    fn cell(&self, object: usize) -> &UnsafeCell<bool> {
        &self.cells[(object - self.start) / SMALL]
    }

    /// With every cache retired, all that is left goes back: nothing is lost.
    fn finish(&self) {
        assert_eq!((self.registry.count(), self.budget.unclaimed()), (0, self.total));
        for class in [self.class, small(), tiny()] {
            let stats = self.central.stats(class);
            assert_eq!(stats.out, stats.transfer, "objects are conserved");
            self.central.drain(class, usize::MAX).unwrap();
            assert_eq!(self.central.stats(class).spans, 0);
        }
        assert_eq!(self.central.source().stats().object_pages, 0);
    }
}

/// For a slow step that costs the budget next to nothing; one object of it at a time.
fn tiny() -> Class {
    class_of(64, 8).unwrap()
}

fn small() -> Class {
    class_of(SMALL, 8).unwrap()
}

/// A thread's cache, in the registry from its beginning to its end.
struct Thread {
    world: Arc<World>,
    cache: Box<ThreadCache>,
}

impl Thread {
    fn new(world: &Arc<World>) -> Self {
        let cache = Box::new(ThreadCache::new());
        // SAFETY: removed in `end`, before the cache goes.
        unsafe { world.registry.add(NonNull::from(&*cache)) };
        Self { world: world.clone(), cache }
    }

    fn alloc(&self, class: Class) -> usize {
        let world = &self.world;
        // SAFETY: the cache is this thread's, and the bin is empty when `pop` says so.
        let object = unsafe {
            let object = ThreadCache::pop(&raw const *self.cache, class.id());
            if object.is_null() {
                self.cache.refill(class, &world.central, &world.budget, &world.registry).unwrap()
            } else {
                object
            }
        } as usize;
        assert_ne!(object, 0, "memory ran out");
        // SAFETY: loom checks that nobody else is there.
        let had = world.cell(object).with_mut(|held| unsafe { held.replace(true) });
        assert!(!had, "an object is handed out twice");
        self.check();
        object
    }

    fn free(&self, class: Class, object: usize) {
        let world = &self.world;
        // SAFETY: as in `alloc`.
        let had = world.cell(object).with_mut(|held| unsafe { held.replace(false) });
        assert!(had, "an object is given up twice");
        let object = object as *mut u8;
        // SAFETY: as above; the object is the caller's.
        unsafe {
            if !ThreadCache::push(&raw const *self.cache, class.id(), object) {
                let (central, budget) = (&world.central, &world.budget);
                self.cache.overflow(class, object, central, budget, &world.registry).unwrap();
            }
        }
        self.check();
    }

    /// T2, and that no more is claimed than there is.
    fn check(&self) {
        assert!(self.cache.used() <= self.cache.limit());
        assert!(self.cache.limit() + self.world.budget.unclaimed() <= self.world.total);
    }

    fn end(self) {
        // SAFETY: the cache is this thread's, and was added in `new`.
        unsafe {
            self.cache.retire(&self.world.central, &self.world.budget).unwrap();
            self.world.registry.remove(NonNull::from(&*self.cache));
        }
    }
}

// SAFETY: a thread's cache moves to its thread before that begins.
unsafe impl Send for Thread {}

/// Runs `work` on a thread of its own.
fn spawn<T: 'static>(work: impl FnOnce() -> T + 'static) -> thread::JoinHandle<T> {
    thread::spawn(work)
}

/// Two threads that claim at once, one of which gives back in between, never have more than there is,
/// and what they have and what is left make up the total.
#[test]
fn claims_never_exceed_the_total() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(100, 80));
        let other = budget.clone();
        let claiming = spawn(move || {
            let first = other.claim(70, 0);
            other.give_back(first / 2);
            let has = first - first / 2;
            has + other.claim(30, has)
        });
        let first = budget.claim(70, 0);
        assert!(first + budget.unclaimed() <= 100);
        let mine = first + budget.claim(50, first);
        let theirs = claiming.join().unwrap();
        assert!(mine <= 80 && theirs <= 80, "nobody has more than a thread's share");
        assert_eq!(mine + theirs + budget.unclaimed(), 100);
    });
}

/// Three threads that want all there is share it out: no byte is granted twice.
#[test]
fn the_last_bytes_go_to_one_thread_each() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(3, 3));
        let claims: Vec<_> = (0..2)
            .map(|_| {
                let budget = budget.clone();
                spawn(move || budget.claim(2, 0))
            })
            .collect();
        let mine = budget.claim(2, 0);
        let theirs: usize = claims.into_iter().map(|claim| claim.join().unwrap()).sum();
        assert_eq!((mine + theirs, budget.unclaimed()), (3, 0));
    });
}

/// A thread ends, returning all it has cached, while another frees what the first one allocated into
/// its own cache and ends as well: every object comes back once, and every span.
#[test]
fn a_thread_ends_while_another_frees_its_objects() {
    loom::model(|| {
        let world = World::new(1 << 20);
        let (ending, freeing) = (Thread::new(&world), Thread::new(&world));
        let class = world.class;
        let objects: Vec<usize> = (0..3).map(|_| ending.alloc(class)).collect();
        let first = spawn(move || ending.end());
        let second = spawn(move || {
            objects.into_iter().for_each(|object| freeing.free(class, object));
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
        let class = world.class;
        let pair = [ending.alloc(class), ending.alloc(class)];
        pair.into_iter().for_each(|object| ending.free(class, object));
        let first = spawn(move || ending.end());
        let shared = world.clone();
        let second = spawn(move || {
            let beginning = Thread::new(&shared);
            let object = beginning.alloc(class);
            beginning.free(class, object);
            beginning.end();
        });
        first.join().unwrap();
        second.join().unwrap();
        world.finish();
    });
}

/// Two threads take what the other has claimed of a budget that is too small for both: each asks the
/// other, each gives at its next slow step, and no byte is lost or granted twice.
#[test]
fn two_threads_take_from_each_others_share_of_the_budget() {
    loom::model(|| {
        let world = World::new(CLAIM);
        let (one, two) = (Thread::new(&world), Thread::new(&world));
        let work = |thread: Thread| {
            let object = thread.alloc(small());
            thread.free(small(), object);
            let object = thread.alloc(small());
            thread.free(small(), object);
            thread
        };
        let other = spawn(move || work(two));
        let one = work(one);
        let two = other.join().unwrap();
        let claimed = one.cache.limit() + two.cache.limit();
        assert_eq!(claimed + world.budget.unclaimed(), CLAIM);
        one.end();
        two.end();
        world.finish();
    });
}

/// What is asked back while the owner is at work is given back at its next slow step at the latest, and
/// what it holds stays within what is left.
#[test]
fn what_is_asked_back_is_given_back() {
    loom::model(|| {
        let world = World::new(2 * CLAIM);
        let owner = Thread::new(&world);
        let object = owner.alloc(small());
        owner.free(small(), object);
        assert_eq!(owner.cache.limit(), CLAIM);
        let asking = world.clone();
        let asks = spawn(move || {
            let nobody = ThreadCache::new();
            asking.registry.ask_another(&nobody, CLAIM);
        });
        let kept = [owner.alloc(small()), owner.alloc(small())];
        asks.join().unwrap();
        kept.into_iter().for_each(|object| owner.free(small(), object));
        let limit = owner.cache.limit();
        assert!(limit <= CLAIM, "one claim was given back: {limit}");
        assert_eq!(limit + world.budget.unclaimed(), 2 * CLAIM);
        owner.end();
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
        let asks = spawn(move || {
            asking.registry.ask_another(&other.cache, CLAIM);
            asking.registry.ask_another(&other.cache, CLAIM);
            [middle, other]
        });
        let mut cache = {
            let Thread { world, cache } = leaving;
            // SAFETY: added by `Thread::new`; the cache is this thread's.
            unsafe { world.registry.remove(NonNull::from(&*cache)) };
            cache
        };
        *cache = ThreadCache::new();
        let unknown = Thread { world: world.clone(), cache };
        let objects: [usize; 5] = std::array::from_fn(|_| unknown.alloc(small()));
        objects.into_iter().for_each(|object| unknown.free(small(), object));
        assert_eq!(unknown.cache.limit(), 2 * CLAIM);
        asks.join().unwrap().into_iter().for_each(Thread::end);
        // A slow step, at which it would give what it was asked for.
        let object = unknown.alloc(tiny());
        assert!(unknown.cache.limit() >= 2 * CLAIM, "it was asked");
        unknown.free(tiny(), object);
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
        let walker = spawn(move || {
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
