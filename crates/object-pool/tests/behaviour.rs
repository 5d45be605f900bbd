//! What the pools promise to one thread and to several.
#![cfg(not(tiermalloc_loom))]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiermalloc_object_pool::{ChunkSource, OsChunks, Pool, RawPool};

/// Counts chunks, and refuses once `left` are gone.
#[derive(Default)]
struct Counting {
    left: AtomicUsize,
    out: AtomicUsize,
}

impl Counting {
    fn with(left: usize) -> Self {
        Self { left: AtomicUsize::new(left), out: AtomicUsize::new(0) }
    }
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl ChunkSource for Counting {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok()?;
        self.out.fetch_add(1, Ordering::Relaxed);
        // SAFETY: chunks are not empty.
        NonNull::new(unsafe { alloc(layout) })
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        unsafe { dealloc(chunk.as_ptr(), layout) }
    }
}

#[test]
fn objects_are_aligned_apart_and_reused_last_in_first_out() {
    for (size, align) in [(1, 1), (8, 8), (24, 8), (64, 64), (100, 4), (4096, 256), (70_000, 16)] {
        let layout = Layout::from_size_align(size, align).unwrap();
        let source = Counting::with(usize::MAX);
        let mut pool = RawPool::new(layout, 64 * 1024);
        let mut taken = Vec::new();
        for i in 0..300 {
            let object = pool.take(&source).unwrap();
            assert_eq!(object.as_ptr() as usize % align, 0);
            // SAFETY: the object is ours and `size` bytes long.
            unsafe { object.as_ptr().write_bytes(i as u8, size) };
            taken.push(object);
        }
        let distinct: HashSet<_> = taken.iter().collect();
        assert_eq!(distinct.len(), 300);
        for (i, object) in taken.iter().enumerate() {
            // SAFETY: still ours.
            let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
            assert!(bytes.iter().all(|&b| b == i as u8), "objects overlap");
        }
        for &object in &taken {
            // SAFETY: given back once.
            unsafe { pool.give(object) };
        }
        for &object in taken.iter().rev() {
            assert_eq!(pool.take(&source), Some(object));
        }
        assert_eq!(pool.live(), 300);
        // SAFETY: the objects are not used any more.
        unsafe { pool.release(&source) };
        assert_eq!((source.out.load(Ordering::Relaxed), pool.live()), (0, 0));
    }
}

#[test]
fn a_source_that_refuses_costs_nothing_but_the_answer() {
    let source = Counting::with(0);
    let pool: Pool<[u64; 100], _> = Pool::with_chunk_bytes(&source, 2000);
    assert_eq!(pool.insert([7; 100]).unwrap_err(), [7; 100]);
    source.left.store(2, Ordering::Relaxed);
    let mut kept = Vec::new();
    while let Ok(value) = pool.insert([kept.len() as u64; 100]) {
        kept.push(value);
    }
    assert_eq!(pool.live(), kept.len());
    assert!(kept.iter().enumerate().all(|(i, v)| v[99] == i as u64));
    kept.pop();
    assert!(pool.insert([1; 100]).is_ok(), "a returned object serves the next one");
    drop(kept);
    drop(pool);
    assert_eq!(source.out.load(Ordering::Relaxed), 0, "chunks go back with the pool");
}

#[test]
fn values_are_dropped_once() {
    struct Counted<'a>(&'a AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = AtomicUsize::new(0);
    let pool: Pool<Counted<'_>, _> = Pool::new(OsChunks);
    let values: Vec<_> = (0..100).filter_map(|_| pool.insert(Counted(&drops)).ok()).collect();
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(values);
    assert_eq!((drops.load(Ordering::Relaxed), pool.live()), (100, 0));
}

#[test]
fn threads_share_a_pool_and_give_back_each_others_values() {
    let pool: Pool<u64, _> = Pool::new(OsChunks);
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        for t in 0..4u64 {
            let (sender, pool) = (sender.clone(), &pool);
            scope.spawn(move || {
                for i in 0..5_000 {
                    sender.send((t * 10_000 + i, pool.insert(t * 10_000 + i).unwrap())).unwrap();
                }
            });
        }
        drop(sender);
        for (expected, value) in receiver {
            assert_eq!(*value, expected);
        }
    });
    assert_eq!(pool.live(), 0);
}

#[cfg(feature = "memmap2")]
#[test]
fn memmap2_chunks_serve_and_go_back() {
    let pool: Pool<[u8; 1000], _> = Pool::new(tiermalloc_object_pool::MemmapChunks);
    let values: Vec<_> = (0..1000u32).filter_map(|i| pool.insert([i as u8; 1000]).ok()).collect();
    assert!(values.iter().enumerate().all(|(i, v)| v[999] == i as u8));
}

#[test]
fn chunks_as_large_as_the_address_space_are_refused_and_no_more() {
    for bytes in [usize::MAX, usize::MAX - 4096, isize::MAX as usize] {
        let pool: Pool<u64, _> = Pool::with_chunk_bytes(OsChunks, bytes);
        assert_eq!(pool.insert(7).unwrap_err(), 7, "{bytes:#x}");
        assert_eq!((pool.live(), pool.reserved_bytes()), (0, 0));
    }
}

#[test]
fn values_without_size_and_with_large_alignment_are_served() {
    #[repr(align(4096))]
    #[derive(Debug)]
    struct Page([u8; 4096]);
    let nothing: Pool<(), _> = Pool::new(OsChunks);
    let units: Vec<_> = (0..100).filter_map(|_| nothing.insert(()).ok()).collect();
    assert_eq!((units.len(), nothing.live()), (100, 100));

    let pages: Pool<Page, _> = Pool::new(OsChunks);
    let kept: Vec<_> = (0..40u8).filter_map(|i| pages.insert(Page([i; 4096])).ok()).collect();
    assert_eq!(kept.len(), 40);
    for (i, page) in kept.iter().enumerate() {
        // Out of the compiler's sight, which knows what a reference to such a value is aligned to.
        assert_eq!(std::hint::black_box(&raw const **page as usize) % 4096, 0);
        assert!(page.0.iter().all(|&byte| byte == i as u8));
    }

    #[repr(align(8192))]
    #[derive(Debug)]
    struct TooMuch(#[allow(dead_code)] u8);
    if tiermalloc_sync::sys::os_page_size() < 8192 {
        let refused: Pool<TooMuch, _> = Pool::new(OsChunks);
        assert!(refused.insert(TooMuch(1)).is_err(), "no chunk is aligned like that");
    }
}

#[test]
fn a_forgotten_value_is_not_dropped_and_its_memory_goes_with_the_pool() {
    let source = Counting::with(usize::MAX);
    let pool: Pool<Vec<u8>, _> = Pool::new(&source);
    std::mem::forget(pool.insert(Vec::new()).unwrap());
    assert_eq!(pool.live(), 1);
    assert_eq!(format!("{pool:?}"), "Pool { live: 1, .. }");
    drop(pool);
    assert_eq!(source.out.load(Ordering::Relaxed), 0);
}

#[test]
fn values_can_be_changed_and_shown() {
    let pool: Pool<Vec<u8>, _> = Pool::new(OsChunks);
    let mut value = pool.insert(vec![1]).unwrap();
    value.push(2);
    assert_eq!(format!("{value:?} {}", value.len()), "[1, 2] 2");
    assert_eq!(pool.reserved_bytes(), 64 * 1024);
}

#[cfg(feature = "memmap2")]
#[test]
fn memmap2_chunks_are_not_aligned_to_more_than_a_page() {
    #[repr(align(8192))]
    struct Aligned(#[allow(dead_code)] u8);
    let pool: Pool<Aligned, _> = Pool::new(tiermalloc_object_pool::MemmapChunks);
    assert!(pool.insert(Aligned(1)).is_err());
}

#[test]
fn what_was_never_handed_out_is_known() {
    use tiermalloc_object_pool::RawPool;
    let source = Counting::with(usize::MAX);
    let mut pool = RawPool::new(std::alloc::Layout::new::<[u64; 8]>(), 1024);
    assert_eq!(pool.fresh_bytes(), 0, "no chunk yet");
    let first = pool.take(&source).unwrap();
    let fresh = pool.fresh_bytes();
    assert!(fresh > 0 && fresh + 64 <= pool.reserved_bytes());
    // SAFETY: it came from this pool, and is not used any more.
    unsafe { pool.give(first) };
    pool.take(&source).unwrap();
    assert_eq!(pool.fresh_bytes(), fresh, "the one that was given back comes first");
    pool.take(&source).unwrap();
    assert_eq!(pool.fresh_bytes(), fresh - 64);
    // SAFETY: nothing of it is used any more.
    unsafe { pool.release(&source) };
}
