//! A heap over a source with huge pages, and what its tests do with long allocations.

use std::cell::Cell;
use std::ops::Range;

use tiermalloc_page_heap::{PageHeap, Span};
use tiermalloc_size_class::{Class, STAGGER, class_of};

use super::arena::{Arena, PAGE};
use super::model::{SMALL_LEAF, SMALL_ROOT, boxed_map};
use super::{Heap, free, large};

/// Pages of a huge page: 2 MiB.
pub const BLOCK: usize = 256;
/// Pages of small objects from which on fresh blocks are asked for: 4 MiB.
pub const GATE: usize = 512;
/// Pages of which a test fills some times as many.
pub const BULK: usize = 1024;

pub type Advice = Vec<(Range<usize>, bool)>;

thread_local! {
    /// Bytes of small objects that have been handed out at one time.
    pub static TOUCHED: Cell<usize> = const { Cell::new(0) };
}

/// A heap over a source of 64 MiB with huge pages.
pub fn with_blocks(test: impl FnOnce(&Heap, &Arena)) {
    let arena = Arena::new(8192, 4096, 11);
    arena.set_block(BLOCK * PAGE);
    let map = boxed_map::<SMALL_ROOT, SMALL_LEAF>();
    TOUCHED.set(0);
    let touched = |size| {
        assert_eq!(size, 8192 + STAGGER);
        TOUCHED.get()
    };
    let heap: Heap = PageHeap::new(&map, &arena).with_touched(touched);
    test(&heap, &arena);
}

pub fn small() -> Class {
    class_of(1000, 8).expect("a class")
}

/// Object spans until the heap has so many pages of them. Of each `share` parts one stays untouched.
pub fn fill_up(heap: &Heap, class: Class, pages: usize, share: usize) -> Vec<&'static Span> {
    let mut spans = Vec::new();
    while heap.stats().object_pages < pages {
        // SAFETY: the record stays while the heap does, which is as long as the test.
        spans.push(unsafe { heap.alloc_objects(class).expect("memory").as_ref() });
        if class.size() <= 8192 + STAGGER {
            TOUCHED.set(TOUCHED.get() + class.pages() * PAGE / share * (share - 1));
        }
    }
    spans
}

pub fn whole_blocks(range: &Range<usize>) -> bool {
    range.start % BLOCK == 0 && range.end % BLOCK == 0 && !range.is_empty()
}

pub fn asked(advice: &Advice) -> usize {
    advice.iter().filter(|(_, full)| *full).map(|(range, _)| range.len()).sum()
}

/// Pages of the arena of a span.
pub fn pages_of(arena: &Arena, span: &Span) -> Range<usize> {
    let first = span.start() - arena.base_page();
    first..first + span.pages()
}
/// The page of the arena where an allocation starts.
pub fn page_of(arena: &Arena, at: usize) -> usize {
    at / PAGE - arena.base_page()
}

/// Writes into every `each`th page of the system's.
pub fn write(at: usize, pages: usize, each: usize) {
    for page in (0..pages * 2).step_by(each) {
        // SAFETY: callers pass an allocation of theirs.
        unsafe { ((at + page * 4096 + 4000) as *mut u8).write(1) };
    }
}

/// Takes an allocation of so many blocks in a place that has never been used, writes into every `each`th page, and
/// frees it. Whether pages were asked for.
pub fn long(heap: &Heap, arena: &Arena, blocks: usize, each: usize) -> bool {
    let at = large(heap, blocks * BLOCK);
    let advice = arena.take_advice();
    assert!(advice.iter().all(|(range, full)| *full && whole_blocks(range)), "{advice:?}");
    let first = page_of(arena, at);
    let last = first + blocks * BLOCK;
    assert!(advice.iter().all(|(range, _)| first <= range.start), "not before");
    let end = if blocks < 4 { last } else { last.next_multiple_of(BLOCK) };
    assert!(advice.iter().all(|(range, _)| range.end <= end), "no further");
    write(at, blocks * BLOCK, each);
    free(heap, at);
    heap.release_pages(usize::MAX);
    arena.take_advice();
    !advice.is_empty()
}

/// One free span of so many pages at least, of which none is dirty.
pub fn one_free_span(heap: &Heap, arena: &Arena, pages: usize) {
    let all = large(heap, pages);
    free(heap, all);
    heap.release_pages(usize::MAX);
    arena.take_advice();
}
