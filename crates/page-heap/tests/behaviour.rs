//! What the heap promises, one promise a test; the first two are contracts of the design.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::cell::Cell;
use std::ptr::NonNull;

use support::arena::{Arena, PAGE};
use support::model::{SMALL_LEAF, SMALL_ROOT, Step, boxed_map, with_model};
use support::{free, large, state_at, with_heap};
use tiermalloc_page_heap::{FreeError, OsPages, PageHeap, PageSource, Span, State};
use tiermalloc_page_map::{LEAF_ENTRIES, PageMap, ROOT_ENTRIES};
use tiermalloc_size_class::{Class, class_of};
use tiermalloc_sync::{RawFutexMutex, sys};

/// Pages of the first region.
const STEP: usize = 128;

#[test]
fn mergeable_is_a_state_and_not_a_use_count_of_zero() {
    with_heap(1024, 4096, |heap, _| {
        let [left, middle, right] = [(); 3].map(|()| large(heap, 8));
        free(heap, middle);
        let class = class_of(8 * PAGE, PAGE).unwrap();
        assert_eq!(class.pages(), 8);
        let fresh = heap.alloc_objects(class).unwrap();
        // SAFETY: the span is ours.
        let record = unsafe { fresh.as_ref() };
        assert_eq!((record.address(), record.live()), (middle, 0));
        // Both neighbours come back while nothing of the span is in use: it is not theirs to take.
        free(heap, left);
        free(heap, right);
        assert_eq!((record.state(), record.address(), record.pages()), (State::Objects, middle, 8));
        assert_eq!(state_at(heap, left), Some((State::Free, 8)));
        assert_eq!(state_at(heap, right), Some((State::Free, STEP - 16)));
        // Only when it is freed as a span, all three are one.
        // SAFETY: nothing of it is out.
        unsafe { heap.free_objects(fresh) };
        assert_eq!(state_at(heap, left), Some((State::Free, STEP)));
        assert_eq!(state_at(heap, middle), None);
    });
}

#[test]
fn an_object_span_is_in_the_map_with_every_page_and_a_free_one_with_its_ends() {
    with_heap(1024, 4096, |heap, _| {
        let class = class_of(40_000, 8).unwrap();
        assert!(class.pages() > 3);
        let span = heap.alloc_objects(class).unwrap();
        // SAFETY: the span is ours.
        let (start, pages) = unsafe { (span.as_ref().start(), class.pages()) };
        for page in start..start + pages {
            assert_eq!(heap.map().span(page * PAGE + 77), Some(span));
            assert_eq!(heap.map().class_id(page * PAGE + 77), class.id());
        }
        // The rest of the region is free: its ends and no page between.
        let rest = start + pages..start + STEP;
        for page in rest.clone() {
            let is_end = page == rest.start || page == rest.end - 1;
            assert_eq!(heap.map().span(page * PAGE).is_some(), is_end, "{page} of {rest:?}");
            assert_eq!(heap.map().class_id(page * PAGE), 0);
        }
        // SAFETY: nothing of it is out.
        unsafe { heap.free_objects(span) };
        for page in start..start + STEP {
            let is_end = page == start || page == start + STEP - 1;
            assert_eq!(heap.map().span(page * PAGE).is_some(), is_end);
            assert_eq!(heap.map().class_id(page * PAGE), 0);
        }
        // A large one, too, has its ends only.
        let at = large(heap, 5);
        let inside = (1..4).all(|n| heap.map().span(at + n * PAGE).is_none());
        assert!(
            inside && heap.map().span(at).is_some() && heap.map().span(at + 4 * PAGE).is_some()
        );
    });
}

#[test]
fn memory_that_was_used_is_used_again_before_memory_that_was_not() {
    with_heap(1024, 4096, |heap, _| {
        let [a, b, c] = [(); 3].map(|()| large(heap, 4));
        free(heap, a);
        free(heap, c); // merges with the clean rest, and makes it dirty
        let again = large(heap, 4);
        assert_eq!(again, a, "the shortest dirty one");
        assert_eq!(large(heap, 4), c);
        let _ = b;
    });
}

#[test]
fn the_heap_grows_in_steps_of_a_quarter() {
    with_heap(8192, 4096, |heap, _| {
        let (mut last, mut steps) = (0, Vec::new());
        while heap.stats().reserved_pages < 4000 {
            let _ = large(heap, 32);
            let reserved = heap.stats().reserved_pages;
            if reserved != last {
                steps.push(reserved - last);
                last = reserved;
            }
        }
        assert_eq!(heap.stats().grown, steps.len());
        assert_eq!(&steps[..5], &[STEP; 5]);
        assert!(steps.is_sorted() && steps.len() < 20, "{steps:?}");
    });
}

#[test]
fn when_addresses_are_short_the_step_shrinks_to_what_is_needed() {
    // Room for the records, 100 pages, and no more.
    with_heap(16 + 100, 4096, |heap, _| {
        let at = large(heap, 3);
        assert!(heap.stats().reserved_pages < STEP);
        assert!(heap.alloc_large(101, 1).is_none());
        assert!(heap.alloc_large(60, 1).is_some(), "after a refusal as before");
        free(heap, at);
    });
}

#[test]
fn absurd_requests_are_refused_and_change_nothing() {
    with_heap(1024, 4096, |heap, arena| {
        let kept = large(heap, 3);
        let before = (heap.stats(), arena.mapped_pages());
        for pages in [1025, 1 << 32, (1 << 32) + 1, 1 << 50, usize::MAX / PAGE, usize::MAX] {
            assert_eq!(heap.alloc_large(pages, 1), None, "{pages:#x} pages");
        }
        // No address but 0 is a multiple of any of these.
        for align in [1 << 35, 1 << 50, 1 << 62] {
            assert_eq!(heap.alloc_large(1, align), None, "aligned to {align:#x} pages");
            assert_eq!(heap.alloc_large(usize::MAX / PAGE, align), None);
        }
        for bytes in [0, 1 << 45, isize::MAX as usize, usize::MAX - 1, usize::MAX] {
            assert_eq!(heap.alloc_huge(bytes, 1), None, "{bytes:#x} bytes");
            // SAFETY: refused, so nothing changes.
            assert_eq!(unsafe { heap.resize_huge(kept, bytes) }, None);
        }
        // SAFETY: the allocation is ours.
        unsafe {
            for pages in [0, 1024, usize::MAX] {
                assert!(!heap.resize_large(kept, pages));
            }
            assert!(!heap.resize_large(kept + 5 * PAGE, 2), "no large one there");
        }
        assert_eq!((heap.stats(), arena.mapped_pages()), before);
    });
}

#[test]
fn no_pages_at_all_are_served_like_one() {
    with_heap(1024, 4096, |heap, _| {
        let at = large(heap, 0);
        assert_eq!(state_at(heap, at), Some((State::Large, 1)));
        assert_eq!(heap.stats().large_pages, 1);
        free(heap, at);
        assert_eq!(state_at(heap, at), Some((State::Free, STEP)));
    });
}

#[test]
fn frees_of_what_is_no_large_allocation_are_told_and_change_nothing() {
    with_heap(1024, 4096, |heap, _| {
        let at = large(heap, 5);
        let span = heap.alloc_objects(class_of(64, 8).unwrap()).unwrap();
        // SAFETY: the span is ours.
        let objects = unsafe { span.as_ref() }.address();
        let gone = large(heap, 2);
        free(heap, gone);
        let before = heap.stats();
        let on_the_stack = &raw const before as usize;
        for address in [
            0,
            1,
            usize::MAX,
            on_the_stack,
            gone,
            objects,
            objects + 64,
            at + 1,
            at + PAGE,
            at + 4 * PAGE,
            at - PAGE,
        ] {
            // SAFETY: none of these is freed: that is the test.
            let freed = unsafe { heap.free_large(address) };
            assert_eq!(freed, Err(FreeError::NotAnAllocation), "{address:#x}");
            assert!(!heap.is_large(address));
        }
        assert_eq!(heap.stats(), before);
        // SAFETY: ours.
        assert_eq!(unsafe { heap.large_at(at) }.map(Span::pages), Some(5));
        free(heap, at);
    });
}

#[test]
fn a_large_allocation_takes_the_free_pages_behind_it_and_gives_its_end_back() {
    with_heap(1024, 4096, |heap, _| {
        let [a, b, c] = [(); 3].map(|()| large(heap, 4));
        // SAFETY: the allocations are ours, and ends that are given back are not used.
        unsafe {
            assert!(!heap.resize_large(a, 5), "taken");
            assert!(heap.resize_large(a, 4), "as it is");
            free(heap, b);
            assert!(!heap.resize_large(a, 9), "more than is free");
            assert!(heap.resize_large(a, 6));
            assert_eq!(state_at(heap, a + 6 * PAGE), Some((State::Free, 2)));
            assert!(heap.resize_large(a, 8), "all of it");
            assert_eq!(state_at(heap, a + 7 * PAGE), Some((State::Large, 8)));
            assert!(!heap.resize_large(a, 9));
            assert!(heap.resize_large(a, 1));
            assert_eq!(state_at(heap, a), Some((State::Large, 1)));
            assert_eq!(state_at(heap, a + PAGE), Some((State::Free, 7)));
        }
        assert_eq!((heap.stats().large_pages, heap.stats().large_spans), (5, 2));
        free(heap, a);
        free(heap, c);
        assert_eq!(state_at(heap, a), Some((State::Free, STEP)));
    });
}

#[test]
fn when_records_run_out_nothing_is_half_done() {
    use support::arena::Refusals;
    with_heap(4096, 4096, |heap, arena| {
        // One region, and then nothing more from the source.
        let all = large(heap, 3000);
        free(heap, all);
        arena.refuse(Refusals::Calls(0..usize::MAX));
        let mut spans = Vec::new();
        while let Some(span) = heap.alloc_large(1, 1) {
            // SAFETY: the span is ours.
            spans.push(unsafe { span.as_ref() }.address());
        }
        assert!(heap.stats().free_pages > 500, "records ran out, and not pages");
        let unchanged = |what: &str, f: &mut dyn FnMut() -> bool| {
            let before = heap.stats();
            assert!(!f(), "{what}");
            assert_eq!(heap.stats(), before, "{what}");
        };
        unchanged("no tail", &mut || heap.alloc_objects(class_of(8192, 8192).unwrap()).is_some());
        unchanged("no free bits", &mut || heap.alloc_objects(class_of(16, 16).unwrap()).is_some());
        unchanged("no huge", &mut || heap.alloc_huge(10 * PAGE, 1).is_some());
        // The last one merges with the rest: one record is there again, and two are needed.
        free(heap, spans.pop().unwrap());
        unchanged("head, and no tail", &mut || heap.alloc_large(1, 256).is_some());
        let two = large(heap, 2); // takes the one there is
        // SAFETY: the allocation is ours.
        unchanged("no end to give back", &mut || unsafe { heap.resize_large(two, 1) });
        free(heap, two);
        arena.refuse(Refusals::Never);
        let aligned = heap.alloc_large(1, 256).expect("the source is well again");
        // SAFETY: ours, and not used any more.
        unsafe { heap.free_large(aligned.as_ref().address()) }.unwrap();
        spans.into_iter().for_each(|at| free(heap, at));
        assert_eq!(heap.stats().free_pages, heap.stats().reserved_pages);
    });
}

/// Addresses without memory for regions, which the heap never touches; real memory for the rest.
struct Addresses {
    next: Cell<usize>,
}

// SAFETY: regions are never touched by the heap or by the test, and nobody else's.
unsafe impl PageSource for Addresses {
    fn os_page_size(&self) -> usize {
        4096
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes >= 1 << 30 {
            return NonNull::new(self.next.replace(self.next.get() + bytes) as *mut u8);
        }
        // Never unmapped: the test's process ends with it. Leaves, 36 GiB of them: addresses only.
        let start = sys::map_anonymous(0, bytes + PAGE)?.next_multiple_of(PAGE);
        NonNull::new(start as *mut u8)
    }
    unsafe fn release(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }
    unsafe fn decommit(&self, _: NonNull<u8>, _: usize) -> bool {
        true
    }
}

#[test]
fn heaps_of_terabytes_stay_within_what_a_record_can_hold() {
    let map = boxed_map::<ROOT_ENTRIES, LEAF_ENTRIES>();
    let source = Addresses { next: Cell::new(1 << 44) };
    let heap: PageHeap<'_, RawFutexMutex, _> = PageHeap::new(&map, source);
    let half = 1 << 31; // pages: 16 TiB
    assert!(heap.alloc_large(1 << 32, 1).is_none(), "more than a span can be");
    assert!(heap.alloc_large(1, 1 << 32).is_none());
    assert!(heap.alloc_huge((1 << 32) * PAGE, 1).is_none());
    // Two neighbours that together would be too long stay two.
    let spans = [(); 2].map(|()| heap.alloc_large(half, 1));
    let [Some(first), Some(second)] = spans else { return }; // no addresses for the map's leaves
    for span in [first, second] {
        // SAFETY: ours, and not used any more.
        unsafe { heap.free_large(span.as_ref().address()) }.unwrap();
    }
    assert_eq!(heap.stats().free_pages, 2 * half);
    let whole = heap.alloc_large(half, 1).unwrap();
    // SAFETY: the span is ours.
    assert_eq!(unsafe { whole.as_ref() }.pages(), half);
    let part = heap.alloc_large(half - 1, 1).unwrap();
    // SAFETY: the span is ours.
    assert_eq!(unsafe { part.as_ref() }.pages(), half - 1);
    assert_eq!((heap.stats().free_pages, heap.stats().reserved_pages), (1, 2 * half));
    let huge = heap.alloc_huge((half - 1) * PAGE, 1 << 30).unwrap();
    // SAFETY: the span is ours.
    assert_eq!(unsafe { huge.as_ref() }.bytes(), (half - 1) * PAGE);
    // A source that cannot forbid anything has guarded allocations without guards.
    let guarded = heap.alloc_guarded(PAGE, 1).unwrap();
    // SAFETY: the span is ours.
    assert_eq!(unsafe { guarded.as_ref() }.bytes(), PAGE);
}

#[test]
fn many_spans_are_one_again_when_all_are_free() {
    with_heap(24 * 1024, 4096, |heap, _| {
        // More records than one chunk of them holds.
        let mut spans: Vec<usize> = (0..7000).map(|i| large(heap, 1 + i % 3)).collect();
        let reserved = heap.stats().reserved_pages;
        assert!(heap.stats().record_bytes > 128 * 1024);
        // Freed in an order that has little to do with where they lie.
        for i in 0..spans.len() {
            let j = i * 7919 % spans.len();
            spans.swap(i, j);
        }
        for at in spans {
            free(heap, at);
        }
        let stats = heap.stats();
        assert_eq!((stats.free_pages, stats.reserved_pages), (reserved, reserved));
        assert!(stats.record_live_bytes <= 64 * stats.grown, "a span per region at most");
        assert_eq!(heap.release_down_to(1000), stats.dirty_pages - heap.stats().dirty_pages);
        assert!(heap.stats().dirty_pages <= 1000);
    });
}

#[test]
fn threads_share_the_heap_and_nothing_overlaps_or_is_lost() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: PageHeap<'static, RawFutexMutex, OsPages> = PageHeap::new(&MAP, OsPages::new());

    fn check(at: usize, pages: usize, mark: u64) {
        for page in 0..pages {
            // SAFETY: the span is the thread's own.
            let word = unsafe { ((at + page * PAGE) as *const u64).read() };
            assert_eq!(word, mark);
        }
    }

    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut own: Vec<(usize, usize, u64)> = Vec::new();
                for round in 0..3000u64 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let n = (random >> 33) as usize;
                    let mark = thread << 32 | round;
                    if n % 97 == 0 {
                        HEAP.release_pages(n % 64);
                    } else if own.len() < 20 && n % 3 != 0 {
                        let (span, pages) = if n % 11 == 0 {
                            (HEAP.alloc_huge((1 + n % 64) * PAGE, 1), 1 + n % 64)
                        } else if n % 2 == 0 {
                            let class = Class::from_id(1 + n % 208).unwrap();
                            (HEAP.alloc_objects(class), class.pages())
                        } else {
                            (HEAP.alloc_large(1 + n % 40, 1 << (n % 5)), 1 + n % 40)
                        };
                        // SAFETY: the span is this thread's own.
                        let at = unsafe { span.unwrap().as_ref() }.address();
                        for page in 0..pages {
                            // SAFETY: as above.
                            unsafe { ((at + page * PAGE) as *mut u64).write(mark) };
                        }
                        own.push((at, pages, mark));
                    } else if !own.is_empty() {
                        let (at, pages, mark) = own.swap_remove(n % own.len());
                        check(at, pages, mark);
                        let span = MAP.span(at).unwrap();
                        // SAFETY: the span is this thread's own, nothing of it is out.
                        unsafe {
                            if span.as_ref().class().is_some() {
                                HEAP.free_objects(span);
                            } else {
                                HEAP.free_large(at).unwrap();
                            }
                        }
                    }
                }
                for (at, pages, mark) in own {
                    check(at, pages, mark);
                    let span = MAP.span(at).unwrap();
                    // SAFETY: as above.
                    unsafe {
                        if span.as_ref().class().is_some() {
                            HEAP.free_objects(span);
                        } else {
                            HEAP.free_large(at).unwrap();
                        }
                    }
                }
            });
        }
    });
    let stats = HEAP.stats();
    assert_eq!((stats.free_pages, stats.huge_pages), (stats.reserved_pages, 0));
    assert_eq!((stats.object_pages, stats.large_pages), (0, 0));
}

#[test]
fn the_lock_is_kept_over_a_fork_and_given_up_behind_it() {
    let arena = Arena::new(512, 4096, 1);
    with_model::<SMALL_ROOT, SMALL_LEAF>(&arena, true, |model| {
        model.step(&Step::AllocLarge { pages: 3, align: 1 });
        model.heap.lock_for_fork();
        // SAFETY: locked by this thread, above.
        unsafe { model.heap.unlock_after_fork() };
        model.step(&Step::Free(0));
        assert!(std::ptr::eq(*model.heap.source(), &raw const arena));
    });
}
