//! Any sequence of takes and gives, of any layout, over a source that refuses at random: objects never
//! overlap, keep their contents, come back last in first out, and none is lost.
#![cfg(not(tiermalloc_loom))]

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use proptest::prelude::*;
use tiermalloc_object_pool::{ChunkSource, Pool, RawPool};

/// Chunks from std's allocator; refuses while told to.
#[derive(Default)]
struct Source {
    refuse: Cell<bool>,
    out: Cell<usize>,
    bytes: Cell<usize>,
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl ChunkSource for Source {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.refuse.get() {
            return None;
        }
        self.out.set(self.out.get() + 1);
        self.bytes.set(self.bytes.get() + layout.size());
        // SAFETY: chunks are not empty.
        NonNull::new(unsafe { alloc(layout) })
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        self.out.set(self.out.get() - 1);
        self.bytes.set(self.bytes.get() - layout.size());
        // SAFETY: passed on to the caller.
        unsafe { dealloc(chunk.as_ptr(), layout) }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Take one; the source refuses, should it be asked, or does not.
    Take(bool),
    /// Give back one of those that are out.
    Give(prop::sample::Index),
    /// Everything goes back to the source at once.
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<bool>().prop_map(Step::Take),
        6 => any::<prop::sample::Index>().prop_map(Step::Give),
        1 => Just(Step::Release),
    ]
}

fn layout() -> impl Strategy<Value = Layout> {
    (1..300usize, 0..9u32)
        .prop_map(|(size, align)| Layout::from_size_align(size, 1 << align).unwrap())
}

/// What is written over the whole of object number `n`.
fn pattern(n: usize) -> u8 {
    (n as u8).wrapping_mul(31) ^ 0xa5
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_never_overlap_and_none_is_lost(
        object in layout(),
        chunk_bytes in 0..6000usize,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let source = Source::default();
        let mut pool = RawPool::new(object, chunk_bytes);
        let mut out: BTreeMap<usize, usize> = BTreeMap::new(); // address to number
        let mut free: Vec<usize> = Vec::new(); // given back, newest last
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Take(refuse) => {
                    source.refuse.set(*refuse);
                    let before = (pool.live(), pool.reserved_bytes());
                    let Some(taken) = pool.take(&source) else {
                        prop_assert!(*refuse && free.is_empty());
                        prop_assert_eq!((pool.live(), pool.reserved_bytes()), before);
                        continue;
                    };
                    let address = taken.as_ptr() as usize;
                    prop_assert_eq!(address % object.align(), 0);
                    if let Some(newest) = free.pop() {
                        prop_assert_eq!(address, newest);
                    }
                    if let Some((&below, _)) = out.range(..=address).next_back() {
                        prop_assert!(below + object.size() <= address);
                    }
                    if let Some((&above, _)) = out.range(address..).next() {
                        prop_assert!(address + object.size() <= above);
                    }
                    // SAFETY: the object is ours and of that size.
                    unsafe { taken.as_ptr().write_bytes(pattern(number), object.size()) };
                    out.insert(address, number);
                }
                Step::Give(which) => {
                    if out.is_empty() {
                        continue;
                    }
                    let all: Vec<_> = out.iter().map(|(&address, &number)| (address, number)).collect();
                    let (address, number) = *which.get(&all);
                    out.remove(&address);
                    // SAFETY: the object is ours, initialised, and given back once.
                    unsafe {
                        let bytes = std::slice::from_raw_parts(address as *const u8, object.size());
                        prop_assert!(bytes.iter().all(|&byte| byte == pattern(number)));
                        pool.give(NonNull::new(address as *mut u8).unwrap());
                    }
                    free.push(address);
                }
                Step::Release => {
                    out.clear();
                    free.clear();
                    // SAFETY: nothing is used any more.
                    unsafe { pool.release(&source) };
                    prop_assert_eq!(source.out.get(), 0);
                }
            }
            prop_assert_eq!(pool.live(), out.len());
            prop_assert_eq!(pool.reserved_bytes(), source.bytes.get());
        }
        for (&address, &number) in &out {
            // SAFETY: still ours.
            let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, object.size()) };
            prop_assert!(bytes.iter().all(|&byte| byte == pattern(number)));
        }
        // SAFETY: nothing is used any more.
        unsafe { pool.release(&source) };
        prop_assert_eq!((source.out.get(), source.bytes.get()), (0, 0));
    }
}

#[test]
fn a_source_that_fails_at_any_one_call_loses_nothing() {
    /// The call with this number fails.
    struct FailsAt<'a>(&'a Source, usize, &'a Cell<usize>);
    // SAFETY: passed on.
    unsafe impl ChunkSource for FailsAt<'_> {
        fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
            let call = self.2.replace(self.2.get() + 1);
            if call == self.1 { None } else { self.0.alloc_chunk(layout) }
        }
        unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
            // SAFETY: passed on to the caller.
            unsafe { self.0.free_chunk(chunk, layout) }
        }
    }
    for n in 0.. {
        let (source, calls) = (Source::default(), Cell::new(0));
        let pool: Pool<[usize; 50], _> = Pool::with_chunk_bytes(FailsAt(&source, n, &calls), 1000);
        let mut refused = 0;
        let mut values = Vec::new();
        for i in 0..20 {
            match pool.insert([i; 50]) {
                Ok(value) => values.push((i, value)),
                Err(value) => {
                    assert_eq!(value, [i; 50]);
                    refused += 1;
                }
            }
        }
        assert!(values.iter().all(|(i, value)| **value == [*i; 50]));
        assert_eq!(pool.live(), values.len());
        drop(values);
        drop(pool);
        assert_eq!(source.out.get(), 0);
        if refused == 0 {
            assert!(n >= 10, "two objects a chunk: ten calls");
            break;
        }
        assert_eq!(refused, 1);
    }
}
