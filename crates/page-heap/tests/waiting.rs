//! Large spans that were freed and wait for the next allocation of about their length.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::arena::PAGE;
use support::model::boxed_map;
use support::{Heap, REGION, free, large, state_at, with_heap, with_region};
use tiermalloc_page_heap::{FreeError, OsPages, PageHeap, Span, State};
use tiermalloc_page_map::{LEAF_ENTRIES, ROOT_ENTRIES};
use tiermalloc_size_class::Class;
use tiermalloc_sync::RawFutexMutex;

/// Spans that wait in a place, and places.
const SLOTS: usize = 15;
const PLACES: usize = 32;

fn wait_near(heap: &Heap, near: usize, address: usize) -> bool {
    // SAFETY: whoever frees does not use it any more.
    unsafe { heap.free_to_wait(near, address) }
}

fn address(span: Option<NonNull<Span>>) -> Option<usize> {
    // SAFETY: the span is ours.
    span.map(|span| unsafe { span.as_ref() }.address())
}

fn waiting(heap: &Heap, near: usize, pages: usize) -> Option<usize> {
    address(heap.alloc_waiting(near, pages))
}

#[test]
fn the_next_of_its_length_gets_it_as_it_is() {
    with_region(|heap, arena, _| {
        let at = large(heap, 40);
        // SAFETY: ours.
        unsafe { (at as *mut u64).write(77) };
        let (before, calls) = (heap.stats(), arena.calls());
        assert!(wait_near(heap, 3, at));
        let stats = heap.stats();
        assert_eq!((stats.large_pages, stats.large_spans), (0, 0));
        assert_eq!(stats.free_pages, before.free_pages + 40);
        assert_eq!(stats.dirty_pages, before.dirty_pages + 40);
        assert_eq!(stats.committed_pages, before.committed_pages);
        assert_eq!(state_at(heap, at), Some((State::Waiting, 40)));
        assert!(!heap.is_large(at));
        let again = waiting(heap, 3, 40);
        assert_eq!((again, arena.calls()), (Some(at), calls));
        assert_eq!((heap.stats(), heap.is_large(at)), (before, true));
        // SAFETY: ours.
        let (held, span) = unsafe { ((at as *const u64).read(), heap.large_at(at).unwrap()) };
        assert_eq!((held, span.was_zeroed()), (77, false));
        free(heap, at);
        assert_eq!(heap.stats().free_pages, REGION);
    });
}

#[test]
fn one_that_is_longer_by_an_eighth_will_do_and_no_other() {
    with_heap(2048, 4096, |heap, _| {
        let at = large(heap, 45);
        for (pages, fits) in [(46, false), (45, true), (40, true), (39, false), (1, false)] {
            assert!(wait_near(heap, 0, at));
            assert_eq!(waiting(heap, 0, pages), fits.then_some(at), "{pages} pages");
            if !fits {
                assert_eq!(waiting(heap, 0, 45), Some(at));
            }
        }
        free(heap, at);
    });
}

#[test]
fn neighbours_in_number_wait_apart_and_whoever_finds_nothing_can_look_elsewhere() {
    with_heap(2048, 4096, |heap, _| {
        let spans: Vec<usize> = (0..PLACES).map(|_| large(heap, 40)).collect();
        for (near, &at) in spans.iter().enumerate() {
            assert!(wait_near(heap, near, at));
        }
        for (near, &at) in spans.iter().enumerate() {
            assert_eq!(waiting(heap, near + PLACES, 40), Some(at));
            assert_eq!(waiting(heap, near, 40), None);
            assert!(wait_near(heap, near, at));
        }
        assert_eq!(waiting(heap, 5, 40), Some(spans[5]));
        let other = address(heap.alloc_waiting_elsewhere(5, 40)).unwrap();
        assert!(other != spans[5] && spans.contains(&other));
        let left = (0..2 * PLACES).filter(|_| heap.alloc_waiting_elsewhere(5, 40).is_some());
        assert_eq!(left.count(), PLACES - 2);
    });
}

#[test]
fn what_is_freed_twice_waits_once() {
    with_heap(2048, 4096, |heap, _| {
        let at = large(heap, 33);
        assert!(wait_near(heap, 1, at));
        for near in 0..PLACES {
            assert!(!wait_near(heap, near, at));
        }
        // SAFETY: that it is freed is a test.
        assert_eq!(unsafe { heap.free_large(at) }, Err(FreeError::NotAnAllocation));
        // SAFETY: nobody's.
        assert!(!unsafe { heap.resize_large(at, 20) });
        assert_eq!(waiting(heap, 1, 33), Some(at));
        assert_eq!(waiting(heap, 1, 33), None);
        // Neither objects nor the middle of a block.
        assert!(!wait_near(heap, 1, at + PAGE) && !wait_near(heap, 1, at + 8));
        assert!(!wait_near(heap, 1, 0) && !wait_near(heap, 1, usize::MAX));
        let objects = heap.alloc_objects(Class::from_id(1).unwrap()).unwrap();
        // SAFETY: ours.
        assert!(!wait_near(heap, 1, unsafe { objects.as_ref() }.address()));
        // SAFETY: ours, and nothing of it is out.
        unsafe { heap.free_objects(objects) };
        free(heap, at);
    });
}

#[test]
fn blocks_of_2_mib_short_ones_and_mappings_do_not_wait() {
    with_heap(8192, 4096, |heap, _| {
        for (pages, waits) in [(32, false), (33, true), (255, true), (256, false), (257, false)] {
            let at = large(heap, pages);
            assert_eq!(wait_near(heap, 0, at), waits, "{pages} pages");
            if !waits {
                free(heap, at);
            }
        }
        let huge = address(heap.alloc_huge(100 * PAGE, PAGE)).unwrap();
        assert_eq!(state_at(heap, huge), Some((State::Huge, 100)));
        assert!(!wait_near(heap, 0, huge));
        free(heap, huge);
        assert_eq!(address(heap.alloc_waiting(0, 256)), None);
    });
}

/// What costs memory already is used before what would cost some.
#[test]
fn nothing_is_cut_out_of_clean_pages_while_something_waits() {
    with_region(|heap, _, _| {
        let at = large(heap, 40);
        let stays = large(heap, 1);
        assert!(wait_near(heap, 0, at));
        // Objects, a run of spans, an aligned block, and one that does not fit.
        let class = Class::from_id(1).unwrap();
        let inside = |address: usize| (at..at + 40 * PAGE).contains(&address);
        let objects = heap.alloc_objects(class).unwrap();
        // SAFETY: ours.
        assert!(inside(unsafe { objects.as_ref() }.address()));
        // SAFETY: ours, and nothing of it is out.
        unsafe { heap.free_objects(objects) };
        for pages in [1, 10, 40] {
            let block = large(heap, 40);
            assert!(block == at && wait_near(heap, 0, block));
            let used = large(heap, pages);
            assert!(inside(used), "{pages} pages");
            free(heap, used);
        }
        assert!(wait_near(heap, 0, large(heap, 40)));
        let aligned = address(heap.alloc_large(4, 4)).unwrap();
        assert!(inside(aligned));
        free(heap, aligned);
        assert!(wait_near(heap, 0, large(heap, 40)));
        let (first, spares) = support::run(heap, class, 2);
        assert!(inside(first.address()) && spares.iter().all(|spare| inside(spare.address())));
        spares.iter().for_each(|spare| support::free_span(heap, spare));
        support::free_span(heap, first);
        // Too long for what waits: that joins its neighbours.
        let block = large(heap, 40);
        assert!(wait_near(heap, 0, block));
        free(heap, stays);
        let all = large(heap, REGION);
        assert_eq!(heap.stats().reserved_pages, REGION, "no need to grow");
        free(heap, all);
    });
}

#[test]
fn a_block_grows_into_what_waits_behind_it() {
    with_region(|heap, _, first| {
        let (at, behind) = (large(heap, 40), large(heap, 50));
        assert!(at == first && behind == at + 40 * PAGE);
        assert!(wait_near(heap, 0, behind));
        // SAFETY: ours.
        unsafe {
            assert!(heap.resize_large(at, 41));
            // Its rest is free now, with all that comes behind it.
            assert_eq!(state_at(heap, at + 41 * PAGE), Some((State::Free, REGION - 41)));
            assert!(heap.resize_large(at, REGION));
            assert!(!heap.resize_large(at, REGION + 1));
        }
        free(heap, at);
    });
}

/// One is enough for who needs one: the others go on waiting.
#[test]
fn no_more_becomes_free_than_is_needed() {
    with_heap(2048, 4096, |heap, _| {
        let spans: Vec<usize> = (0..4).map(|n| large(heap, 40 + 10 * n)).collect();
        assert!(spans.iter().all(|&at| wait_near(heap, 0, at)));
        let rest = heap.stats().free_pages - 40 - 50 - 60 - 70;
        let used = large(heap, 55);
        assert_eq!(used, spans[2]);
        for (n, pages) in [40, 50, 70].into_iter().enumerate() {
            assert_eq!(waiting(heap, 0, pages), Some(spans[[0, 1, 3][n]]));
        }
        assert_eq!(heap.stats().free_pages, rest + 5);
    });
}

#[test]
fn a_full_place_makes_way_and_nothing_is_lost() {
    with_heap(4096, 4096, |heap, _| {
        let spans: Vec<usize> = (0..SLOTS + 20).map(|_| large(heap, 33)).collect();
        let before = heap.stats();
        assert!(spans.iter().all(|&at| wait_near(heap, 0, at)));
        let states = |state: State| {
            spans.iter().filter(|&&at| state_at(heap, at).is_some_and(|now| now.0 == state)).count()
        };
        assert_eq!(states(State::Waiting), SLOTS);
        let stats = heap.stats();
        assert_eq!(stats.free_pages, before.free_pages + 33 * spans.len());
        assert_eq!((stats.large_pages, stats.large_spans), (0, 0));
        // One in four of the later ones has taken the place of another one.
        let later = spans[SLOTS..]
            .iter()
            .filter(|&&at| state_at(heap, at).is_some_and(|now| now == (State::Waiting, 33)));
        assert_eq!(later.count(), 5);
        heap.unmap_free();
        assert_eq!((heap.stats().reserved_pages, heap.stats().free_pages), (0, 0));
    });
}

#[test]
fn what_nobody_wants_between_two_looks_becomes_free() {
    with_region(|heap, _, first| {
        let (idle, wanted) = (large(heap, 40), large(heap, 50));
        assert!(wait_near(heap, 0, idle) && wait_near(heap, 0, wanted));
        for _ in 0..5 {
            heap.return_idle();
            assert_eq!(waiting(heap, 0, 50), Some(wanted));
            assert!(wait_near(heap, 0, wanted));
        }
        assert_eq!(state_at(heap, wanted), Some((State::Waiting, 50)));
        assert_eq!(waiting(heap, 0, 40), None);
        heap.return_idle();
        assert_eq!(state_at(heap, wanted), Some((State::Waiting, 50)), "seen once");
        heap.return_idle();
        support::is_one_free_span(heap, first);
    });
}

#[test]
fn whoever_gives_back_gives_back_what_waits() {
    type Way = fn(&Heap) -> usize;
    let ways: [(Way, usize); 4] = [
        (|heap| heap.release_down_to(0), 40),
        (|heap| heap.release_pages(40), 40),
        (|heap| heap.release_down_to_worth(0), 40),
        (|heap| heap.unmap_free(), REGION),
    ];
    for (way, pages) in ways {
        with_region(|heap, _, _| {
            assert!(wait_near(heap, 7, large(heap, 40)));
            assert_eq!((way(heap), heap.stats().dirty_pages), (pages, 0));
        });
    }
}

/// Where blocks grow, what is freed is joined with its neighbours at once, for a while; elsewhere it is not.
#[test]
fn what_is_freed_where_blocks_grow_does_not_wait() {
    with_heap(2048, 4096, |heap, _| {
        heap.note_growth(3);
        let mut passed = 0;
        loop {
            let (at, other) = (large(heap, 40), large(heap, 50));
            assert!(wait_near(heap, 4, other));
            assert_eq!(waiting(heap, 4, 50), Some(other));
            free(heap, other);
            if wait_near(heap, 3, at) {
                break;
            }
            free(heap, at);
            passed += 1;
        }
        assert_eq!(passed, 64);
    });
}

#[test]
fn nothing_waits_while_there_is_a_limit() {
    type Set = fn(&Heap, usize) -> usize;
    let limits: [Set; 2] =
        [|heap, bytes| heap.set_hard_limit(bytes), |heap, bytes| heap.set_soft_limit(bytes)];
    for set in limits {
        with_heap(2048, 4096, |heap, _| {
            let at = large(heap, 40);
            assert!(wait_near(heap, 0, at));
            set(heap, 64 << 20);
            assert_eq!(state_at(heap, at).map(|now| now.0), Some(State::Free));
            let at = large(heap, 40);
            assert!(!wait_near(heap, 0, at));
            free(heap, at);
            set(heap, 0);
            let at = large(heap, 40);
            assert!(wait_near(heap, 0, at));
        });
    }
}

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Somebody who can give back while nothing is freed is asked: soon where several wait, and seldom where one comes and goes.
#[test]
fn the_keeper_is_asked_when_much_waits() {
    fn keeper() -> bool {
        ASKED.fetch_add(1, Ordering::Relaxed);
        true
    }
    let map = boxed_map::<ROOT_ENTRIES, LEAF_ENTRIES>();
    let heap: PageHeap<RawFutexMutex, OsPages> =
        PageHeap::new(&map, OsPages::new()).with_keeper(keeper);
    // SAFETY: ours until freed, and not used after that.
    let address = |span: NonNull<Span>| unsafe { span.as_ref() }.address();
    let spans: Vec<usize> =
        (0..6).map(|_| address(heap.alloc_large(200, 1).expect("memory"))).collect();
    for &at in &spans {
        // SAFETY: as above.
        assert!(unsafe { heap.free_to_wait(0, at) });
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 1, "from 2 MiB on");
    let pair = || {
        let at = address(heap.alloc_waiting(0, 200).expect("one that waits"));
        // SAFETY: as above.
        assert!(unsafe { heap.free_to_wait(0, at) });
    };
    (0..1000).for_each(|_| pair());
    let asked = ASKED.load(Ordering::Relaxed);
    assert!((2..=6).contains(&asked), "{asked}: seldom");
    // Each look is asked for by the next one that waits beside others.
    heap.return_idle();
    let two = [(); 2].map(|()| address(heap.alloc_waiting(0, 200).expect("one that waits")));
    // SAFETY: as above.
    two.iter().for_each(|&at| assert!(unsafe { heap.free_to_wait(0, at) }));
    assert_eq!(ASKED.load(Ordering::Relaxed), asked + 1);
    heap.unmap_free();
}

static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Where nobody comes looks are considered where something waits, seldom.
#[test]
fn without_a_keeper_looks_are_taken_where_something_waits() {
    fn keeper() -> bool {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        false
    }
    let arena = support::arena::Arena::new(4096, 4096, 11);
    let map = boxed_map::<{ support::model::SMALL_ROOT }, { support::model::SMALL_LEAF }>();
    let heap: Heap = PageHeap::new(&map, &arena).with_keeper(keeper);
    let (idle, busy) = (large(&heap, 250), large(&heap, 40));
    assert!(wait_near(&heap, 0, idle));
    for _ in 0..6 {
        arena.pass_time(1000);
        for _ in 0..300 {
            assert!(wait_near(&heap, 0, busy));
            assert_eq!(waiting(&heap, 0, 40), Some(busy));
        }
    }
    assert!(REFUSED.load(Ordering::Relaxed) > 0);
    let waits = state_at(&heap, idle).is_some_and(|now| now.0 == State::Waiting);
    assert!(!waits, "it is free, and joined with its neighbours");
    free(&heap, busy);
}
