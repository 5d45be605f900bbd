//! When addresses run out while another thread has the only free span in its hands.
#![cfg(not(tiermalloc_loom))]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tiermalloc_page_heap::{OsPages, PageHeap, PageSource, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_sync::RawFutexMutex;

const PAGE: usize = 8192;

/// The kernel with so many bytes of addresses, who takes his time.
struct Short {
    kernel: OsPages,
    left: AtomicUsize,
    refused: AtomicUsize,
    /// Whether he is asked to take something back and has not begun to yet.
    asked: AtomicBool,
    /// Whether he begins only once somebody else has been refused, and 30 ms later.
    slow: AtomicBool,
    /// Told when he is asked to take pages back and keep the addresses.
    decommitting: Option<fn()>,
}

/// Waits, but not for ever.
fn wait_until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() && began.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
}

impl Short {
    const fn new() -> Self {
        Self {
            kernel: OsPages::new(),
            left: AtomicUsize::new(64 << 20),
            refused: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            decommitting: None,
        }
    }

    fn take_time(&self) {
        if self.slow.swap(false, Ordering::SeqCst) {
            let before = self.refused.load(Ordering::SeqCst);
            self.asked.store(true, Ordering::SeqCst);
            wait_until(|| self.refused.load(Ordering::SeqCst) > before);
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

// SAFETY: the kernel's promises; it is only asked less often.
unsafe impl PageSource for Short {
    fn os_page_size(&self) -> usize {
        self.kernel.os_page_size()
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let left = |left: usize| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        self.kernel.reserve(bytes)
    }
    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.take_time();
        // SAFETY: passed on to the caller.
        let released = unsafe { self.kernel.release(start, bytes) };
        self.left.fetch_add(bytes, Ordering::SeqCst);
        released
    }
    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        self.take_time();
        if let Some(told) = self.decommitting {
            told();
        }
        // SAFETY: passed on to the caller.
        unsafe { self.kernel.decommit(start, bytes) }
    }
}

type Heap = PageHeap<'static, RawFutexMutex, Short>;

/// A heap with nothing but a free span of 1000 pages, which another thread has in its hands; no more addresses.
fn with_all_in_hand(heap: &Heap, hand: impl Fn(&Heap) + Sync, then: impl FnOnce()) {
    // SAFETY: ours, and not used any more.
    unsafe { heap.free_large(heap.alloc_large(1000, 1).unwrap().as_ref().address()).unwrap() };
    let source = heap.source();
    source.left.store(0, Ordering::SeqCst);
    source.slow.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| hand(heap));
        wait_until(|| source.asked.load(Ordering::SeqCst));
        then();
    });
}

fn huge(heap: &Heap, pages: usize) -> Option<NonNull<Span>> {
    heap.alloc_huge(pages * PAGE, 1)
}

#[test]
fn what_another_gives_back_without_its_addresses_is_waited_for() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap = PageHeap::new(&MAP, Short::new());
    let decommit = |heap: &Heap| assert!(heap.release_step(10, true).is_some());
    with_all_in_hand(&HEAP, decommit, || assert!(huge(&HEAP, 900).is_some()));
}

#[test]
fn what_another_unmaps_is_waited_for() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap = PageHeap::new(&MAP, Short::new());
    let unmap = |heap: &Heap| assert!(heap.unmap_free() >= 1000);
    with_all_in_hand(&HEAP, unmap, || assert!(huge(&HEAP, 900).is_some()));
}

#[test]
fn who_comes_later_and_goes_earlier_is_not_taken_for_another() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap = PageHeap::new(&MAP, Short::new());
    // SAFETY: ours.
    let small = unsafe { HEAP.alloc_large(40, 1).unwrap().as_ref() }.address();
    let decommit = |heap: &Heap| assert!(heap.release_step(10, true).is_some());
    with_all_in_hand(&HEAP, decommit, || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // While the request below waits.
                std::thread::sleep(Duration::from_millis(10));
                // SAFETY: ours, and not used any more.
                unsafe { HEAP.free_large(small).unwrap() };
                assert!(HEAP.release_step(10, true).is_some());
            });
            assert!(huge(&HEAP, 900).is_some());
        });
    });
}

#[test]
fn several_may_wait_for_the_same() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap = PageHeap::new(&MAP, Short::new());
    let decommit = |heap: &Heap| assert!(heap.release_step(10, true).is_some());
    for _ in 0..3 {
        HEAP.source().left.store(64 << 20, Ordering::SeqCst);
        with_all_in_hand(&HEAP, decommit, || {
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| huge(&HEAP, 200).map(|span| span.as_ptr() as usize)))
                    .collect();
                for waiter in all {
                    assert!(waiter.join().unwrap().is_some());
                }
            });
        });
        assert_eq!((HEAP.stats().moving_pages, HEAP.in_hand_pages()), (0, 0));
    }
}

#[test]
fn who_comes_out_of_a_fork_with_pages_in_hand_puts_them_down_all_the_same() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap =
        PageHeap::new(&MAP, Short { decommitting: Some(|| HEAP.forget_moving()), ..Short::new() });
    // SAFETY: ours, and not used any more.
    unsafe { HEAP.free_large(HEAP.alloc_large(100, 1).unwrap().as_ref().address()).unwrap() };
    assert_eq!(HEAP.release_step(100, true), Some(100));
    let stats = HEAP.stats();
    assert_eq!((stats.moving_pages, stats.dirty_pages), (0, 0));
    assert_eq!(HEAP.in_use_bytes(), stats.record_bytes);
    assert!(!HEAP.await_others());
}

#[test]
fn nobody_is_waited_for_twice_or_who_is_not_there() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: Heap = PageHeap::new(&MAP, Short::new());
    assert!(!HEAP.await_others());
    let decommit = |heap: &Heap| assert!(heap.release_step(10, true).is_some());
    with_all_in_hand(&HEAP, decommit, || {
        // What would not do even with that fails.
        assert!(huge(&HEAP, 5000).is_none());
        HEAP.await_others();
        assert!(!HEAP.await_others());
    });
    assert_eq!(HEAP.stats().moving_pages, 0);
}
