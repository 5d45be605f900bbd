//! The process's one heap.

use core::ptr::NonNull;

use tiermalloc_central_cache::{CentralCache, Near, SpanSource};
use tiermalloc_page_heap::{OsPages, PageHeap, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::Class;
use tiermalloc_sync::{CachePadded, RawFutexMutex};
use tiermalloc_thread_cache::{Budget, Registry, ThreadCache};

use crate::{background, fork, limits};

/// From pages to spans and classes. All zero: it lies in `.bss` and costs no memory until used.
pub(crate) static MAP: PageMap<Span> = PageMap::new();

/// Spans of pages, from the operating system.
static HEAP: PageHeap<'static, RawFutexMutex, OsPages> = PageHeap::new(&MAP, OsPages::new())
    .with_keeper(background::keeper)
    .with_relief(limits::relieve)
    .with_touched(touched);

/// Batches and spans of every class. All zero, for which its source has to be without content.
pub(crate) static CENTRAL: CentralCache<RawFutexMutex, Pages> = CentralCache::new(Pages);

/// The central cache as it is for the threads that are near to one of its shards.
pub(crate) type Central = Near<'static, RawFutexMutex, Pages>;

/// What caches may hold: nothing, before the configuration has said how much.
pub(crate) static BUDGET: CachePadded<Budget> = CachePadded::new(Budget::shared(0, 0, 0));

pub(crate) static REGISTRY: CachePadded<Registry<RawFutexMutex>> =
    CachePadded::new(Registry::new());

/// The page heap as the central cache sees it.
pub(crate) struct Pages;

/// The page heap.
#[inline]
pub(crate) fn heap() -> &'static PageHeap<'static, RawFutexMutex, OsPages> {
    &HEAP
}

// SAFETY: the page heap's word, which this passes on.
unsafe impl SpanSource for Pages {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        // Before the process takes more memory: what a fork has left behind.
        fork::adopt_one();
        HEAP.alloc_objects(class)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.free_objects(span) }
    }
    fn alloc_span_run(
        &self,
        class: Class,
        more: usize,
        spare: &mut dyn FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        fork::adopt_one();
        HEAP.alloc_objects_run(class, more, spare)
    }
    unsafe fn unregister(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.unregister_objects(span) }
    }
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { HEAP.recarve_objects(span, class) }
    }
    #[inline]
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        MAP.span(address)
    }
    fn surplus(&self) {
        if !background::keeper() {
            HEAP.look_if_due();
        }
    }
    #[inline]
    fn reserved_bytes(&self) -> usize {
        HEAP.reserved_bytes()
    }
    #[inline]
    fn is_tight(&self) -> bool {
        HEAP.is_tight()
    }
    #[inline]
    fn cache_room(&self) -> usize {
        limits::transfer_room()
    }
}

/// What shards keep speaks neither for nor against: it counts as if it were touched.
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn touched(size: usize) -> usize {
    CENTRAL.touched_bytes(size) + CENTRAL.kept_bytes()
}

/// A cache that all threads may share because nobody ever writes to it (G1).
#[repr(transparent)]
pub(crate) struct SharedCache(ThreadCache);

// SAFETY: T3 of the thread cache: its fast paths do not write to an all-zero cache, and nothing else
// is ever called on these two.
unsafe impl Sync for SharedCache {}

impl SharedCache {
    #[inline(always)]
    pub(crate) const fn as_ptr(&self) -> *const ThreadCache {
        &raw const self.0
    }
}

/// What a thread has before its first allocation.
pub(crate) static EMPTY: SharedCache = SharedCache(ThreadCache::new());
/// What a thread has after its cache was taken down at its end.
pub(crate) static DEAD: SharedCache = SharedCache(ThreadCache::new());
