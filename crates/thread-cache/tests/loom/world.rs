//! Everything that the threads of a process share, and a thread with its cache.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::sync::Arc;
use tiermalloc_central_cache::CentralCache;
use tiermalloc_size_class::Class;
use tiermalloc_sync::{DefaultRawMutex, modelled};
use tiermalloc_thread_cache::{Budget, Orphans, Registry, ThreadCache};

use crate::arena::{Arena, Hands, Heap, Map, PAIR, SMALL, TINY, class};

/// Bytes of the budget that a cache claims at least at once.
pub const CLAIM: usize = 16 * 1024;

/// Everything that the threads of a process share. The order of the fields is the order of the drops.
pub struct World {
    pub central: CentralCache<DefaultRawMutex, Heap>,
    pub budget: Budget,
    pub total: usize,
    pub registry: Registry<DefaultRawMutex>,
    pub orphans: Orphans,
    pub hands: Hands,
    _map: Box<Map>,
}

// SAFETY: loom sees to it that nobody is where somebody else is.
unsafe impl Sync for World {}

impl World {
    pub fn new(total: usize) -> Arc<Self> {
        modelled::begin();
        let map = Box::new(Map::new());
        // SAFETY: the map is dropped after everything that refers to it.
        let (heap, hands) = unsafe { Arena::new().heap(&map) };
        Arc::new(Self {
            central: CentralCache::new(heap),
            budget: Budget::new(total, total),
            total,
            registry: Registry::new(),
            orphans: Orphans::new(),
            hands,
            _map: map,
        })
    }

    /// With every cache retired, all that is left goes back: nothing is lost.
    pub fn finish(&self) {
        assert_eq!((self.registry.count(), self.budget.unclaimed()), (0, self.total));
        for class in classes() {
            let stats = self.central.stats(class);
            assert_eq!(stats.out, stats.transfer, "objects are conserved");
            self.central.drain(class, usize::MAX).unwrap();
            assert_eq!(self.central.stats(class).spans, 0);
        }
        assert_eq!(self.central.source().stats().object_pages, 0);
    }
}

/// The classes of these models.
pub fn classes() -> [Class; 3] {
    [PAIR, SMALL, TINY].map(class)
}

/// A thread's cache, in the registry from its beginning to its end.
pub struct Thread {
    pub world: Arc<World>,
    pub cache: Box<ThreadCache>,
    /// Whether it is in the middle of something.
    pub busy: AtomicBool,
}

// SAFETY: a thread's cache moves to its thread before that begins.
unsafe impl Send for Thread {}

impl Thread {
    pub fn new(world: &Arc<World>) -> Self {
        let cache = Box::new(ThreadCache::new());
        // SAFETY: removed in `end`, before the cache goes.
        unsafe { world.registry.add(NonNull::from(&*cache)) };
        Self { world: world.clone(), cache, busy: AtomicBool::new(false) }
    }

    pub fn alloc(&self, class: Class) -> usize {
        self.busy.store(true, Ordering::Relaxed);
        let World { central, budget, registry, hands, .. } = &*self.world;
        // SAFETY: the cache is this thread's, and the bin is empty when `pop` says so.
        let object = unsafe {
            let object = ThreadCache::pop(&raw const *self.cache, class.id());
            if object.is_null() {
                self.cache.refill(class, central, budget, registry).unwrap()
            } else {
                object
            }
        } as usize;
        assert_ne!(object, 0, "memory ran out");
        hands.receive(object);
        self.busy.store(false, Ordering::Relaxed);
        self.check();
        object
    }

    pub fn free(&self, class: Class, object: usize) {
        let World { central, budget, registry, hands, .. } = &*self.world;
        self.busy.store(true, Ordering::Relaxed);
        hands.give_up(object);
        let object = object as *mut u8;
        // SAFETY: as above; the object is the caller's.
        unsafe {
            if !ThreadCache::push(&raw const *self.cache, class.id(), object) {
                self.cache.overflow(class, object, central, budget, registry).unwrap();
            }
        }
        self.busy.store(false, Ordering::Relaxed);
        self.check();
    }

    /// T2, and that no more is claimed than there is: but for what the child of a fork has taken back from
    /// a thread that does not exist there.
    fn check(&self) {
        assert!(self.cache.used() <= self.cache.limit());
        let known = self.cache.limit() + self.world.budget.unclaimed();
        assert!(known <= self.world.total || self.world.hands.is_forked());
    }

    pub fn end(&self) {
        self.busy.store(true, Ordering::Relaxed);
        // SAFETY: the cache is this thread's, and was added in `new`; the thread does no more with it.
        unsafe {
            self.cache.retire(&self.world.central, &self.world.budget).unwrap();
            self.world.registry.remove(NonNull::from(&*self.cache));
        }
        self.busy.store(false, Ordering::Relaxed);
    }
}
