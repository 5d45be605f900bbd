//! What the tests of the heap share: a source of pages that can fail, a model to compare with, and short
//! ways to a heap over the one.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod arena;
mod check;
pub mod model;

use tiermalloc_page_heap::{PageHeap, State};
use tiermalloc_sync::RawFutexMutex;

use arena::Arena;
use model::{SMALL_LEAF, SMALL_ROOT, with_model};

pub type Heap<'m> = PageHeap<'m, RawFutexMutex, &'m Arena, SMALL_ROOT, SMALL_LEAF>;

pub fn with_heap(pages: usize, os_page: usize, f: impl FnOnce(&Heap<'_>, &Arena)) {
    let arena = Arena::new(pages, os_page, 11);
    with_model(&arena, true, |model| f(&model.heap, &arena));
}

/// The address of a new large span.
pub fn large(heap: &Heap, pages: usize) -> usize {
    // SAFETY: the span is ours.
    unsafe { heap.alloc_large(pages, 1).expect("memory").as_ref() }.address()
}

pub fn free(heap: &Heap, address: usize) {
    // SAFETY: the span is ours, and not used any more.
    unsafe { heap.free_large(address) }.unwrap();
}

pub fn state_at(heap: &Heap, address: usize) -> Option<(State, usize)> {
    // SAFETY: one thread: what the map names is there.
    heap.map().span(address).map(|span| unsafe { (span.as_ref().state(), span.as_ref().pages()) })
}
