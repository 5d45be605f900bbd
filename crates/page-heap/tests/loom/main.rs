//! Models of the page heap: threads that take, free, resize, decommit and unmap spans at once.
#![cfg(tiermalloc_loom)]

mod world;

use std::ptr::NonNull;

use loom::thread::spawn;
use tiermalloc_page_heap::{FreeError, Span, State};
use tiermalloc_size_class::{Class, class_of};
use tiermalloc_sync::atomic::Ordering;

use world::{PAGE, Page, STEP, World, model, run};

/// One page, one object.
fn page_class() -> Class {
    class_of(PAGE, PAGE).unwrap()
}

/// The race of the original design: while one thread takes a fresh span, whose use count is still 0,
/// and carves it, another frees the span before it and coalesces; the fresh span is never merged,
/// because mergeable is a state and not a use count.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_with_the_free_neighbour_before_it() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let other = run(world, |world| world.free_large(left, 1));
        // Two pages: they do not fit into the one that the other thread frees.
        let class = class_of(2 * PAGE, PAGE).unwrap();
        let span = world.objects(class, 2).unwrap();
        other.join().unwrap();
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, class, 1);
        world.check();
        world.free_objects(span, 2);
    });
}

/// The same race with the neighbour behind the fresh span, and with one that served objects itself.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_with_the_free_neighbour_behind_it() {
    model(1, |world| {
        let first = world.large(1, 1).unwrap();
        let second = world.objects(page_class(), 2).unwrap().as_ptr() as usize;
        let rest = world.large(2, 3).unwrap();
        world.free_large(first, 1); // the only free page: the fresh span will be this one
        let other = run(world, move |world| {
            world.free_objects(NonNull::new(second as *mut Span).unwrap(), 2);
        });
        let span = world.objects(page_class(), 4).unwrap();
        other.join().unwrap();
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, page_class(), 1);
        world.check();
        world.free_objects(span, 4);
        world.free_large(rest, 3);
    });
}

/// The same race from both sides at once.
#[test]
fn a_fresh_span_of_use_count_zero_is_not_merged_from_either_side() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let middle = world.large(1, 2).unwrap();
        let right = world.large(2, 3).unwrap();
        world.free_large(middle, 2);
        let others = [
            run(world, |world| world.free_large(left, 1)),
            run(world, |world| world.free_large(right, 3)),
        ];
        let span = world.objects(page_class(), 4).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        // SAFETY: ours until freed.
        world.is_whole(unsafe { span.as_ref() }, page_class(), 1);
        world.check();
        world.free_objects(span, 4);
        assert_eq!(world.heap.stats().free_pages, STEP);
    });
}

/// A thread frees the last span while another one wants it: the other gets it whole or nothing, and
/// then it is free for the next.
#[test]
fn a_free_and_an_allocation_race_for_the_last_span() {
    model(1, |world| {
        let last = world.large(STEP, 1).unwrap();
        let other = run(world, |world| world.free_large(last, 1));
        let mine = world.large(STEP, 2);
        other.join().unwrap();
        world.check();
        if let Some(mine) = mine {
            assert!(world.large(1, 3).is_none());
            world.free_large(mine, 2);
        }
        let next = world.large(STEP, 3).expect("free now");
        world.free_large(next, 3);
    });
}

/// Two threads want the last span: both are served if it is long enough, else one.
#[test]
fn two_allocations_race_for_the_last_span_and_one_gets_it() {
    model(1, |world| {
        world.grow();
        let other = spawn(move || world.large(3, 1).is_some());
        let mine = world.objects(page_class(), 2).is_some();
        let theirs = other.join().unwrap();
        assert!(mine && theirs, "both fit");
        assert!(world.large(1, 3).is_none());
    });
    model(1, |world| {
        world.grow();
        let other = spawn(move || world.large(3, 1).is_some());
        let mine = world.large(2, 2).is_some();
        assert!(mine ^ other.join().unwrap(), "one of them fits");
    });
}

/// Free pages go back to the system while a thread allocates: no page of an owner is decommitted, and
/// what is called zero is zero.
#[test]
fn decommitting_races_an_allocation() {
    model(2, |world| {
        let kept = world.large(1, 1).unwrap();
        let dirty = world.large(2, 2).unwrap();
        world.free_large(dirty, 2);
        let other = run(world, |world| {
            world.heap.release_pages(usize::MAX);
        });
        let mine = world.large(1, 3).unwrap();
        world.free_large(mine, 3);
        other.join().unwrap();
        world.free_large(kept, 1);
    });
}

/// Free pages go back to the system while the span next to them is freed: they are merged in the end,
/// whoever comes last.
#[test]
fn decommitting_races_the_free_of_a_neighbour() {
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let dirty = world.large(2, 2).unwrap();
        let right = world.large(1, 3).unwrap();
        world.free_large(dirty, 2);
        let other = run(world, |world| {
            world.heap.release_pages(2);
        });
        world.free_large(left, 1);
        other.join().unwrap();
        world.check();
        world.free_large(right, 3);
        assert_eq!(world.heap.stats().free_pages, STEP);
        let all = world.large(STEP, 4).expect("one span again");
        world.free_large(all, 4);
    });
}

/// Two threads give back to the system at once: no span is lost between them.
#[test]
fn two_threads_decommit_at_once() {
    model(1, |world| {
        let first = world.large(1, 1).unwrap();
        let between = world.large(1, 2).unwrap();
        world.free_large(first, 1);
        let last = world.large(2, 3).unwrap();
        world.free_large(last, 3);
        let other = run(world, |world| {
            world.heap.release_pages(usize::MAX);
        });
        world.heap.release_pages(usize::MAX);
        other.join().unwrap();
        world.free_large(between, 2);
        let stats = world.heap.stats();
        assert_eq!((stats.free_pages, stats.dirty_pages >= 1), (STEP, true));
    });
}

/// Of two threads that free the same large address, exactly one succeeds; the other is told.
#[test]
fn of_two_frees_of_one_address_exactly_one_succeeds() {
    model(1, |world| {
        let span = world.large(2, 1).unwrap();
        let address = span.address();
        world.source.give(span.start()..span.end(), 1);
        // SAFETY: nobody uses the allocation; that it is freed twice is the point.
        let free = move || unsafe { world.heap.free_large(address) };
        let other = spawn(free);
        let mine = free();
        let theirs = other.join().unwrap();
        assert!(mine.is_ok() ^ theirs.is_ok());
        assert_eq!(mine.and(theirs), Err(FreeError::NotAnAllocation));
    });
}

/// Of two threads that free the same address so that it waits, exactly one succeeds; the other is told.
#[test]
fn of_two_frees_to_wait_exactly_one_succeeds() {
    model(1, |world| {
        let span = world.large(2, 1).unwrap();
        let address = span.address();
        world.source.give(span.start()..span.end(), 1);
        // SAFETY: nobody uses the allocation; that it is freed twice is the point.
        let other = spawn(move || unsafe { world.heap.free_to_wait(0, address) });
        // SAFETY: as above.
        let mine = unsafe { world.heap.free_to_wait(0, address) };
        assert!(mine ^ other.join().unwrap());
        assert!(world.waiting(2, 2).is_some());
        assert!(world.waiting(2, 3).is_none());
    });
}

/// A span that waits goes to one of two who want it, as its last owner has left the record.
#[test]
fn what_waits_goes_to_one_of_two() {
    model(1, |world| {
        let span = world.large(3, 1).unwrap();
        let freeing = run(world, move |world| world.free_to_wait(span, 1));
        let other = spawn(move || world.waiting(3, 2).is_some());
        let mine = world.waiting(3, 3).is_some();
        let theirs = other.join().unwrap();
        freeing.join().unwrap();
        assert!(!(mine && theirs));
        let last = world.waiting(3, 4).is_some();
        assert!(mine ^ theirs ^ last, "it is somebody's, or waits on");
    });
}

/// All that waits is taken back while one more comes: that one is taken back as well, or the next time.
#[test]
fn what_comes_to_wait_while_all_is_taken_back_is_found_the_next_time() {
    model(1, |world| {
        let span = world.large(2, 1).unwrap();
        let first = world.large(2, 2).unwrap();
        world.free_to_wait(first, 2);
        let other = run(world, move |world| world.free_to_wait(span, 1));
        world.heap.release_down_to(usize::MAX);
        other.join().unwrap();
        world.heap.release_down_to(usize::MAX);
        world.check();
        let all = world.large(STEP, 3).expect("one span again");
        world.free_large(all, 3);
    });
}

/// A run of spans is cut out of clean pages while something comes to wait, which would be used before them: what the
/// run is said to be it is.
#[test]
fn a_run_is_as_clean_as_it_says_whatever_comes_to_wait() {
    model(1, |world| {
        let span = world.large(1, 1).unwrap();
        let other = run(world, move |world| world.free_to_wait(span, 1));
        assert!(world.run_of_objects(page_class(), 2));
        other.join().unwrap();
    });
    model(1, |world| {
        let left = world.large(1, 1).unwrap();
        let span = world.large(1, 2).unwrap();
        let other = run(world, move |world| world.free_to_wait(span, 2));
        assert!(world.run_of_objects(page_class(), 3));
        other.join().unwrap();
        world.free_large(left, 1);
    });
}

/// Who needs pages of which there are no others takes what waits, or waits no longer, at this moment.
#[test]
fn an_allocation_races_a_free_to_wait_for_the_last_pages() {
    model(1, |world| {
        let span = world.large(3, 1).unwrap();
        let left = world.large(1, 2).unwrap();
        let other = run(world, move |world| world.free_to_wait(span, 1));
        let mine = world.objects(page_class(), 3);
        other.join().unwrap();
        let mine = mine.or_else(|| world.objects(page_class(), 3)).expect("free now");
        world.check();
        world.free_objects(mine, 3);
        world.free_large(left, 2);
        let all = world.large(STEP, 4).expect("one span again");
        world.free_large(all, 4);
    });
}

/// What waits goes back for want of use while somebody wants it after all.
#[test]
fn what_waits_in_vain_is_wanted_at_that_moment() {
    model(1, |world| {
        let span = world.large(2, 1).unwrap();
        world.free_to_wait(span, 1);
        world.heap.return_idle();
        let other = run(world, |world| world.heap.return_idle());
        if let Some(mine) = world.waiting(2, 2) {
            world.free_to_wait(mine, 2);
        }
        other.join().unwrap();
        let all = world.large(STEP, 4).expect("one span again");
        world.free_large(all, 4);
    });
}

/// Two threads free neighbours at once: they end up as one span.
#[test]
fn neighbours_freed_at_once_end_up_merged() {
    model(1, |world| {
        let spans = [(); STEP].map(|()| world.large(1, 7).unwrap());
        let [a, b, c, d] = spans;
        let other = run(world, |world| {
            world.free_large(a, 7);
            world.free_large(c, 7);
        });
        world.free_large(b, 7);
        other.join().unwrap();
        world.check();
        world.free_large(d, 7);
        let all = world.large(STEP, 1).expect("one span again");
        world.free_large(all, 1);
    });
}

/// A large allocation grows into the free pages behind it while another thread wants them too: they go
/// to one of the two.
#[test]
fn growing_in_place_races_an_allocation_of_the_next_pages() {
    model(1, |world| {
        let first = world.large(2, 1).unwrap();
        let other = spawn(move || world.large(2, 2).is_some());
        // SAFETY: the allocation is ours.
        let grown = unsafe { world.heap.resize_large(first.address(), 3) };
        if grown {
            let mut pages = world.source.pages.lock().unwrap();
            let page = &mut pages[first.end() - 1];
            assert_eq!(*page, Page::Idle(0));
            *page = Page::Owned(1);
        }
        let theirs = other.join().unwrap();
        assert!(grown ^ theirs);
        assert_eq!(first.pages(), if grown { 3 } else { 2 });
        world.free_large(first, 1);
    });
}

/// Two threads grow the heap, of which the one needs all of a region: both regions are in the heap, merged.
#[test]
fn growing_at_once_loses_no_region() {
    model(2, |world| {
        let other = run(world, |world| {
            let span = world.objects(page_class(), 1).unwrap();
            world.free_objects(span, 1);
        });
        let span = world.large(STEP, 2).unwrap();
        world.free_large(span, 2);
        other.join().unwrap();
        let stats = world.heap.stats();
        assert_eq!(stats.free_pages, stats.grown * STEP);
        // There may be two of them, and no reason for a third one.
        let all = world.large(stats.free_pages, 3).expect("one span again");
        world.free_large(all, 3);
    });
}

/// Two threads lack pages at the same time and there are addresses for one region only: whoever comes second to it
/// takes what the first one has brought, and neither is refused what there is.
#[test]
fn who_waits_while_another_grows_the_heap_takes_from_what_that_one_has_brought() {
    model(1, |world| {
        let other = spawn(move || world.large(2, 1).is_some());
        let mine = world.objects(page_class(), 2).is_some();
        let theirs = other.join().unwrap();
        assert!(mine && theirs, "both fit into the region");
        assert_eq!(world.heap.stats().grown, 1);
    });
}

/// A thread grows the heap while another one takes the locks for a fork: it gets them, with the region there or not
/// begun, and afterwards everything goes on.
#[test]
fn a_fork_meets_a_thread_that_grows_the_heap() {
    model(2, |world| {
        let other = run(world, |world| {
            let span = world.large(2, 1).unwrap();
            world.free_large(span, 1);
        });
        world.heap.lock_for_fork();
        assert_eq!(world.source.adding.load(Ordering::Relaxed), 0, "the child could not add any");
        // SAFETY: locked by this thread, above.
        unsafe { world.heap.unlock_after_fork() };
        other.join().unwrap();
        let span = world.large(STEP, 2).unwrap();
        world.free_large(span, 2);
    });
}

/// Mappings of their own come and go while the heap works beside them.
#[test]
fn huge_allocations_come_and_go_beside_the_heap() {
    model(3, |world| {
        let neighbour = world.large(STEP, 1).unwrap();
        let other = run(world, |world| {
            // SAFETY: the record lives as long as the span.
            let huge = unsafe { world.heap.alloc_huge(3 * PAGE, PAGE).unwrap().as_ref() };
            assert_eq!((huge.state(), huge.was_zeroed()), (State::Huge, true));
            world.source.take(huge, 2);
            world.free_large(huge, 2);
        });
        world.free_large(neighbour, 1);
        let again = world.large(2, 3).unwrap();
        other.join().unwrap();
        world.free_large(again, 3);
        assert_eq!(world.heap.stats().huge_pages, 0);
    });
}

/// Free spans are unmapped while a neighbour is freed and another thread allocates: nobody's pages are
/// unmapped, and the heap forgets what is gone.
#[test]
fn unmapping_races_a_free_and_an_allocation() {
    model(2, |world| {
        let left = world.large(1, 1).unwrap();
        let other = run(world, |world| {
            world.heap.unmap_free();
        });
        world.free_large(left, 1);
        let mine = world.large(2, 2).unwrap();
        other.join().unwrap();
        world.check();
        world.free_large(mine, 2);
    });
}

/// Mappings between guards come and go at once, and beside a mapping without: each is counted once, and
/// all is gone in the end, guards included.
#[test]
fn guarded_allocations_come_and_go_at_once() {
    model(4, |world| {
        let guarded = |value: u8| {
            move |world: &'static World| {
                let Some(span) = world.heap.alloc_guarded(2 * PAGE, PAGE) else { return false };
                // SAFETY: the record lives as long as the span.
                let span = unsafe { span.as_ref() };
                assert_eq!((span.state(), span.pages()), (State::Huge, 2));
                world.source.take(span, value);
                world.free_large(span, value);
                true
            }
        };
        let other = run(world, move |world| {
            guarded(1)(world);
        });
        let served = guarded(2)(world);
        other.join().unwrap();
        assert!(served, "there is room for both");
        let stats = world.heap.stats();
        assert_eq!((stats.huge_pages, stats.huge_spans, stats.guarded_spans), (0, 0, 0));
    });
}
