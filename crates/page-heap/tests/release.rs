//! What goes back to the system, and when: idle memory, a little at a time, whole OS pages only.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;

use support::arena::{Arena, PAGE, is_zero};
use support::model::boxed_map;
use support::{Heap, free, large, with_heap};
use tiermalloc_page_heap::{PageHeap, PageSource};
use tiermalloc_page_map::{LEAF_ENTRIES, ROOT_ENTRIES};
use tiermalloc_sync::{Patience, RawFutexMutex};

#[test]
fn what_nobody_wanted_for_a_while_goes_back() {
    with_heap(2048, 4096, |heap, arena| {
        let busy = |heap: &Heap| {
            // Frees enough for the heap to look at the clock.
            for _ in 0..40 {
                let at = large(heap, 1);
                free(heap, at);
            }
        };
        let big = large(heap, 400);
        let small = large(heap, 1);
        free(heap, big);
        arena.pass_time(1000);
        busy(heap);
        let first = heap.stats().dirty_pages;
        let mut last = first;
        for _ in 0..10 {
            arena.pass_time(150);
            busy(heap);
            let now = heap.stats().dirty_pages;
            assert!(now <= last, "{now} {last}");
            last = now;
        }
        assert!(first >= 400 && last <= 140, "{first} {last}: what is idle halves at each look");
        assert!(last > 0, "a little is kept");
        // Without time passing, nothing does.
        let again = large(heap, 300);
        free(heap, again);
        let before = heap.stats().decommitted_pages;
        busy(heap);
        assert_eq!(heap.stats().decommitted_pages, before);
        free(heap, small);
    });
}

#[test]
fn a_little_at_a_time_is_a_little() {
    with_heap(4096, 4096, |heap, arena| {
        let at = large(heap, 1000);
        free(heap, at);
        let mut left = 1000;
        while left > 0 {
            let calls = arena.calls();
            let released = heap.release_some(50);
            assert_eq!((released, arena.calls() - calls), (left.min(50), 1));
            left -= released;
            assert_eq!(heap.stats().dirty_pages, left);
        }
        assert_eq!(heap.release_some(50), 0);
        // Spans so short that a call for each is hardly worth it stay, until somebody insists.
        let short: Vec<usize> = (0..20).map(|_| large(heap, 3)).collect();
        short.iter().step_by(2).take(9).for_each(|&at| free(heap, at));
        assert_eq!((heap.release_some(50), heap.release_down_to_worth(0)), (0, 0));
        assert_eq!((heap.release_pages(usize::MAX), heap.stats().dirty_pages), (27, 0));
    });
}

#[test]
fn with_os_pages_of_64_kib_every_whole_one_that_is_free_goes_back() {
    const OS: usize = 64 * 1024;
    with_heap(4096, OS, |heap, arena| {
        // Spans that begin and end anywhere within OS pages; every other one is freed.
        let spans: Vec<(usize, usize)> =
            (0..40).map(|i| 1 + i * 7 % 60).map(|pages| (large(heap, pages), pages)).collect();
        for &(at, pages) in &spans {
            // SAFETY: the span is ours.
            unsafe { (at as *mut u8).write_bytes(0xa5, pages * PAGE) };
        }
        let freed: Vec<_> = spans.iter().copied().step_by(2).collect();
        for &(at, _) in &freed {
            free(heap, at);
        }
        let dirty = heap.stats().dirty_pages;
        let released = heap.release_pages(usize::MAX);
        let whole: usize = freed
            .iter()
            .map(|&(at, pages)| {
                let inner = at.next_multiple_of(OS)..(at + pages * PAGE) / OS * OS;
                assert!(inner.is_empty() || is_zero(inner.start, inner.len()), "went back");
                inner.len() / PAGE
            })
            .sum();
        assert!(whole > 100 && released >= whole && released <= dirty, "{released} {whole}");
        assert_eq!(heap.stats().decommitted_pages, released);
        // The source checks that only whole OS pages are given back; the others are as they were.
        for &(at, pages) in spans.iter().skip(1).step_by(2) {
            // SAFETY: the span is ours.
            let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, pages * PAGE) };
            assert!(bytes.iter().all(|&byte| byte == 0xa5));
        }
        // What is left over cannot go back, and does not stand in the way of what can.
        let calls = arena.calls();
        assert_eq!(heap.release_pages(usize::MAX), 0);
        assert_eq!(arena.calls(), calls, "nothing to try");
        let one = large(heap, 100);
        free(heap, one);
        assert!(heap.release_pages(usize::MAX) >= 80);
        // Merged, the left-overs can.
        for &(at, _) in spans.iter().skip(1).step_by(2) {
            free(heap, at);
        }
        heap.release_pages(usize::MAX);
        assert_eq!(heap.stats().dirty_pages, 0, "regions are in whole OS pages");
    });
}

#[test]
fn with_os_pages_of_64_kib_a_little_at_a_time_gives_everything_back_too() {
    const OS: usize = 64 * 1024;
    with_heap(4096, OS, |heap, _| {
        // Dirty from the middle of one OS page to the middle of another.
        let [before, at, behind] = [3, 1000, 5].map(|pages| large(heap, pages));
        assert!(at % OS != 0 && behind % OS != 0);
        // SAFETY: the span is ours.
        unsafe { (at as *mut u8).write_bytes(0xa5, 1000 * PAGE) };
        free(heap, at);
        let mut released = 0;
        for _ in 0..1000 {
            released += heap.release_some(16);
        }
        let whole = at.next_multiple_of(OS)..(at + 1000 * PAGE) / OS * OS;
        assert!(is_zero(whole.start, whole.len()), "{released} pages went back");
        assert_eq!(released, whole.len() / PAGE);
        free(heap, before);
        free(heap, behind);
    });
}

#[test]
fn a_source_that_keeps_what_is_released_loses_nothing() {
    /// Refuses to unmap, as a kernel that is out of mappings does.
    struct Keeps<'a>(&'a Arena);
    // SAFETY: passed on, but for releases, which it may refuse.
    unsafe impl PageSource for Keeps<'_> {
        fn os_page_size(&self) -> usize {
            self.0.os_page_size()
        }
        fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
            self.0.reserve(bytes)
        }
        unsafe fn release(&self, _: NonNull<u8>, _: usize) -> bool {
            false
        }
        unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
            // SAFETY: passed on to the caller.
            unsafe { self.0.decommit(start, bytes) }
        }
    }
    let arena = Arena::new(2048, 4096, 5);
    let map = boxed_map::<ROOT_ENTRIES, LEAF_ENTRIES>();
    let heap: PageHeap<'_, RawFutexMutex, _> = PageHeap::new(&map, Keeps(&arena));
    // What is cut off for the alignment, and then the mapping itself, become free pages of the heap.
    let huge = heap.alloc_huge(64 * PAGE, 64 * PAGE).unwrap();
    // SAFETY: the span is ours.
    let at = unsafe { huge.as_ref() }.address();
    assert_eq!(at % (64 * PAGE), 0);
    // SAFETY: ours; that it cannot change its length changes nothing.
    unsafe {
        assert_eq!(heap.resize_huge(at, 32 * PAGE), None);
        assert_eq!(heap.resize_huge(at, 64 * PAGE), Some(at), "as it is");
        assert_eq!(heap.resize_huge(at, 65 * PAGE), None, "nor moved");
    }
    // SAFETY: ours, and not used any more.
    unsafe { heap.free_large(at) }.unwrap();
    let stats = heap.stats();
    assert_eq!((stats.huge_pages, stats.free_pages), (0, stats.reserved_pages));
    assert_eq!(stats.reserved_pages + stats.record_bytes / PAGE, arena.mapped_pages());
    assert_eq!(heap.unmap_free(), 0);
    assert_eq!(heap.stats().free_pages, stats.free_pages);
    let again = heap.alloc_large(120, 1).expect("64 and what was cut off: one span");
    // SAFETY: as above.
    unsafe { heap.free_large(again.as_ref().address()) }.unwrap();
    assert_eq!(heap.stats().reserved_pages, stats.reserved_pages);
}

#[test]
fn what_came_and_went_is_counted() {
    let arena = Arena::new(1 << 15, 4096, 11);
    let map = boxed_map();
    let heap = PageHeap::<RawFutexMutex, _, ROOT_ENTRIES, LEAF_ENTRIES>::new(&map, &arena);
    let stats = || heap.stats_within(&mut Patience::ms(0)).unwrap();
    let span = heap.alloc_large(200, 1).unwrap();
    // SAFETY: ours.
    let at = unsafe { span.as_ref() }.address();
    assert_eq!((stats().grown, stats().grown_pages), (1, stats().reserved_pages));
    assert!(stats().record_untouched_bytes <= stats().record_bytes - stats().record_live_bytes);
    assert!(stats().record_untouched_bytes > 0);
    // SAFETY: ours, and not used any more.
    unsafe { heap.free_large(at) }.unwrap();
    assert_eq!((stats().decommits, stats().unmaps), (0, 0));
    assert_eq!(heap.release_pages(usize::MAX), stats().decommitted_pages);
    assert_eq!(stats().decommits, 1);
    let reserved = stats().reserved_pages;
    let unmapped = heap.unmap_free();
    assert_eq!((stats().unmapped_pages, stats().reserved_pages), (unmapped, reserved - unmapped));
    assert_eq!(stats().unmaps, 1);
    let huge = heap.alloc_huge(100 * PAGE, 1).unwrap();
    // SAFETY: ours; then its end, and then all of it, is not used any more.
    unsafe {
        let at = huge.as_ref().address();
        assert_eq!((stats().huge_made, stats().huge_returned_pages), (1, 0));
        let at = heap.resize_huge(at, 60 * PAGE).unwrap_or(at);
        heap.free_large(at).unwrap();
    }
    assert_eq!((stats().huge_made, stats().huge_returned_pages), (1, 100));
    assert_eq!(stats().lock_waits, 0);
    heap.lock_for_fork();
    assert!(heap.stats_within(&mut Patience::ms(2)).is_none());
    // SAFETY: taken above.
    unsafe { heap.unlock_after_fork() };
}
