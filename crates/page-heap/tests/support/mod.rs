//! What the tests of the heap share: a source of pages that can fail, a model to compare with, and short
//! ways to a heap over the one.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub mod arena;
pub mod blocks;
mod check;
mod live;
pub mod model;
mod runs;
mod waits;

use std::ptr::NonNull;

use tiermalloc_page_heap::{PageHeap, Past, Put, Span, State};
use tiermalloc_size_class::Class;
use tiermalloc_sync::RawFutexMutex;

use arena::{Arena, PAGE, is_zero};
use model::{SMALL_LEAF, SMALL_ROOT, with_model};

/// Pages of the first region.
pub const REGION: usize = 128;

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

/// A heap of one free span of [`REGION`] pages that nobody has used, and its address.
pub fn with_region(f: impl FnOnce(&Heap<'_>, &Arena, usize)) {
    with_heap(2048, 4096, |heap, arena| {
        let first = large(heap, 1);
        free(heap, first);
        assert_eq!(heap.release_pages(usize::MAX), 1);
        assert_eq!((heap.stats().free_pages, heap.stats().dirty_pages), (REGION, 0));
        f(heap, arena, first);
    });
}

/// A first span, and those that came with it, in order of address.
pub fn run(heap: &Heap, class: Class, more: usize) -> (&'static Span, Vec<&'static Span>) {
    // SAFETY: records stay where they are until their spans are freed, and no test uses them then.
    let record = |span: NonNull<Span>| unsafe { &*span.as_ptr().cast_const() };
    let mut spares = Vec::new();
    let first = heap.alloc_objects_run(class, more, |spare| spares.push(record(spare)));
    spares.sort_unstable_by_key(|spare| spare.start());
    (record(first.expect("memory")), spares)
}

pub fn recarve(heap: &Heap, span: &Span, class: Class) -> bool {
    // SAFETY: the span is ours, and nothing of it is out.
    unsafe { heap.recarve_objects(NonNull::from(span), class) }
}

pub fn free_span(heap: &Heap, span: &Span) {
    // SAFETY: as above.
    unsafe { heap.free_objects(NonNull::from(span)) };
}

/// Takes objects and writes to all of each.
pub fn take(span: &Span, wanted: usize) -> Vec<(usize, Past)> {
    let size = span.class().unwrap().size();
    let mut taken = Vec::new();
    // SAFETY: the span is ours alone, as under its class's lock, and so are its objects.
    unsafe {
        span.take_objects(wanted, |object, past| {
            assert!(past != Past::Zeroed || is_zero(object, size), "not zero as it says");
            taken.push((object, past));
        });
        for &(object, _) in &taken {
            (object as *mut u8).write_bytes(0xa5, size);
        }
    }
    taken
}

pub fn put_all(span: &Span, taken: &[(usize, Past)]) {
    for &(object, _) in taken {
        // SAFETY: the span is ours alone, and nobody uses the object.
        assert_eq!(unsafe { span.put_object(object) }, Put::Done);
    }
}

/// Every page answers with the span and its class, and all objects are there once.
pub fn is_whole(heap: &Heap, span: &Span, class: Class) {
    assert_eq!((span.state(), span.class()), (State::Objects, Some(class)));
    for page in span.start()..span.end() {
        assert_eq!(heap.map().span(page * PAGE + 77), Some(NonNull::from(span)));
        assert_eq!(heap.map().class_id(page * PAGE + 77), class.id());
    }
    let taken = take(span, usize::MAX);
    let first = class.shape().first_object(span.address());
    let places = (0..class.objects()).map(|index| first + index * class.size());
    assert!(taken.iter().map(|&(object, _)| object).eq(places), "class {}", class.id());
    put_all(span, &taken);
}

/// All is one free span again, but for what it may hold.
pub fn is_one_free_span(heap: &Heap, at: usize) {
    let stats = heap.stats();
    assert_eq!((stats.object_pages, stats.free_pages), (0, REGION));
    assert_eq!(state_at(heap, at), Some((State::Free, REGION)));
    assert_eq!(stats.record_live_bytes, 64, "the record of that span, and no other");
}
