//! Several threads that lack pages at the same moment: one of them adds a region, the others wait for it.
//!
//! The lock tells who waits for what, so that the first region is not there before all others wait for it: no
//! test here depends on how fast anybody is.
#![cfg(not(tiermalloc_loom))]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tiermalloc_page_heap::{OsPages, PageHeap, PageSource, RawLock, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_sync::RawFutexMutex;

const PAGE: usize = 8192;
/// Pages of the first region.
const REGION: usize = 128;
/// How long somebody may take to come to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many wait for the lock at an address.
static WAITING: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Addresses of the locks that the thread holds.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn waiting(lock: usize) -> usize {
    WAITING.lock().unwrap().get(&lock).copied().unwrap_or(0)
}

/// The lock that ships, and who waits for it.
struct Told(RawFutexMutex);

impl Told {
    fn address(&self) -> usize {
        ptr::from_ref(self) as usize
    }
    fn note_held(&self) {
        HELD.with_borrow_mut(|held| held.push(self.address()));
    }
}

// SAFETY: the lock inside excludes.
unsafe impl RawLock for Told {
    #[allow(clippy::declare_interior_mutable_const)] // what the trait asks for
    const INIT: Self = Self(<RawFutexMutex as RawLock>::INIT);
    type GuardMarker = <RawFutexMutex as RawLock>::GuardMarker;

    fn lock(&self) {
        if !RawLock::try_lock(&self.0) {
            *WAITING.lock().unwrap().entry(self.address()).or_default() += 1;
            RawLock::lock(&self.0);
            *WAITING.lock().unwrap().entry(self.address()).or_default() -= 1;
        }
        self.note_held();
    }

    fn try_lock(&self) -> bool {
        let got = RawLock::try_lock(&self.0);
        if got {
            self.note_held();
        }
        got
    }

    unsafe fn unlock(&self) {
        HELD.with_borrow_mut(|held| held.retain(|&lock| lock != self.address()));
        // SAFETY: passed on to the caller.
        unsafe { RawLock::unlock(&self.0) };
    }
}

/// The operating system, which makes the first region only when `others` threads wait for the one that has asked.
struct Slow {
    os: OsPages,
    others: usize,
    regions: AtomicUsize,
    /// How many are making one at this moment.
    inside: AtomicUsize,
}

impl Slow {
    fn new(others: usize) -> Self {
        let (regions, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { os: OsPages::new(), others, regions, inside }
    }
}

// SAFETY: passed on to the source that ships.
unsafe impl PageSource for Slow {
    fn os_page_size(&self) -> usize {
        self.os.os_page_size()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.os.reserve(bytes)
    }

    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two make regions at once");
        if self.regions.fetch_add(1, Ordering::SeqCst) == 0 && self.others > 0 {
            let held = HELD.with_borrow(|held| held.clone());
            assert_eq!(held.len(), 1, "the heap's own lock is not held over the system call");
            let begun = Instant::now();
            while waiting(held[0]) < self.others {
                assert!(begun.elapsed() < PATIENCE, "the others do not wait");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let region = self.os.reserve_region(bytes);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        region
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.os.release(start, bytes) }
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.os.decommit(start, bytes) }
    }
}

type Heap<'m> = PageHeap<'m, Told, Slow>;

/// A thread for each of the lengths, in pages; the spans in order of address.
fn all_at_once(heap: &Heap, lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut spans: Vec<_> = std::thread::scope(|scope| {
        let take = |&pages: &usize| {
            // SAFETY: the span is ours.
            scope.spawn(move || unsafe {
                let span: NonNull<Span> = heap.alloc_large(pages, 1).expect("memory");
                (span.as_ref().address(), span.as_ref().bytes())
            })
        };
        let threads: Vec<_> = lengths.iter().map(take).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{spans:x?}");
    spans
}

#[test]
fn of_many_who_lack_pages_at_once_one_adds_a_region() {
    static MAP: PageMap<Span> = PageMap::new();
    let heap = Heap::new(&MAP, Slow::new(7));
    let spans = all_at_once(&heap, &[REGION / 8; 8]);
    let regions = heap.source().regions.load(Ordering::SeqCst);
    assert_eq!((regions, heap.stats().grown, heap.stats().free_pages), (1, 1, 0));
    assert_eq!(spans[7].0 + spans[7].1 - spans[0].0, REGION * PAGE);
}

#[test]
fn whoever_needs_more_than_the_others_have_brought_adds_a_region_of_his_own() {
    static MAP: PageMap<Span> = PageMap::new();
    let heap = Heap::new(&MAP, Slow::new(3));
    all_at_once(&heap, &[3 * REGION, 2 * REGION, 1, 1]);
    let stats = heap.stats();
    assert_eq!(stats.large_pages, 5 * REGION + 2);
    assert!(heap.source().regions.load(Ordering::SeqCst) >= 2, "{stats:?}");
}

#[test]
fn a_fork_waits_for_a_region_that_somebody_is_adding_and_behind_it_the_next_one_can_be() {
    static MAP: PageMap<Span> = PageMap::new();
    let heap = Heap::new(&MAP, Slow::new(1));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| heap.alloc_large(REGION, 1).is_some());
        while heap.source().regions.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // The region is made when this waits for it.
        heap.lock_for_fork();
        assert_eq!(heap.reserved_bytes(), REGION * PAGE);
        assert_eq!(heap.source().inside.load(Ordering::SeqCst), 0);
        // SAFETY: locked by this thread, above.
        unsafe { heap.unlock_after_fork() };
        assert!(thread.join().unwrap());
    });
    assert!(heap.alloc_large(REGION, 1).is_some());
    assert_eq!(heap.stats().grown, 2);
}
