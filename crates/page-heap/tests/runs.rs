//! Runs of object spans, and object spans that change their class: where the spans lie, what is known of their pages,
//! where their free bits are, and that all of it goes back. What happens without memory for records: `faults.rs`.
#![cfg(not(tiermalloc_loom))]

mod support;

use support::arena::PAGE;
use support::{
    REGION, free, free_span, is_one_free_span, is_whole, large, put_all, recarve, run, state_at,
    take, with_heap, with_region,
};
use tiermalloc_page_heap::{Past, Span, State};
use tiermalloc_size_class::{Class, class_of};

/// Most spans that come with a first one.
const MOST: usize = 127;

fn of_pages(pages: usize) -> Vec<Class> {
    Class::all().filter(|class| class.pages() == pages).collect()
}

/// Bytes of free bits outside the record.
fn bits(class: Class) -> usize {
    match class.objects() {
        0..=128 => 0,
        129..=512 => 64,
        _ => 128,
    }
}

#[test]
fn spans_of_a_run_lie_side_by_side_and_are_nobodys_yet() {
    for pages in 1..=32 {
        let classes = of_pages(pages);
        let Some(&class) = classes.first() else { continue };
        with_region(|heap, _, _| {
            let more = (REGION / pages - 1).min(9);
            let (first, spares) = run(heap, class, more);
            is_whole(heap, first, class);
            assert_eq!(spares.len(), more);
            let mut end = first.end();
            for spare in &spares {
                assert_eq!((spare.start(), spare.pages()), (end, pages));
                assert_eq!((spare.state(), spare.class()), (State::Objects, None));
                assert!(spare.was_zeroed());
                let unknown = (spare.start()..spare.end()).all(|page| {
                    (heap.map().span(page * PAGE), heap.map().class_id(page * PAGE)) == (None, 0)
                });
                assert!(unknown, "no page of it can be freed");
                end = spare.end();
            }
            let stats = heap.stats();
            assert_eq!(stats.object_pages, pages * (more + 1));
            assert_eq!(stats.free_pages, REGION - stats.object_pages);
        });
    }
}

#[test]
fn a_spare_becomes_a_span_of_any_class_of_its_length_whatever_it_was_before() {
    for pages in 1..=32 {
        let classes = of_pages(pages);
        let Some(&class) = classes.last() else { continue };
        with_region(|heap, _, at| {
            let (first, spares) = run(heap, class, 1);
            let base = heap.stats().record_live_bytes;
            for &class in &classes {
                assert!(recarve(heap, spares[0], class));
                is_whole(heap, spares[0], class);
                is_whole(heap, first, first.class().unwrap());
                assert_eq!(heap.stats().record_live_bytes, base + bits(class));
            }
            free_span(heap, spares[0]);
            free_span(heap, first);
            is_one_free_span(heap, at);
        });
    }
}

#[test]
fn free_bits_move_between_the_record_and_the_pools_and_none_is_lost() {
    // In the record twice, four words, eight of the same pool, and those of the long one.
    let classes = [64, 2048, 40, 16, 8].map(|size| class_of(size, 8).unwrap());
    assert_eq!(classes.map(bits), [0, 0, 64, 64, 128]);
    with_region(|heap, _, at| {
        let (first, spares) = run(heap, classes[1], 2);
        let base = heap.stats().record_live_bytes;
        let neighbour = spares[1];
        for from in classes {
            // Whoever gives bits back twice shares them with this one.
            assert!(recarve(heap, neighbour, from));
            let theirs = take(neighbour, 3);
            for to in classes {
                for class in [from, to, to, from] {
                    assert!(recarve(heap, spares[0], class));
                    let live = heap.stats().record_live_bytes - bits(from);
                    assert_eq!(live, base + bits(class), "{} to {}", from.size(), to.size());
                    is_whole(heap, spares[0], class);
                    assert_eq!(neighbour.live(), 3);
                }
            }
            put_all(neighbour, &theirs);
            is_whole(heap, neighbour, from);
        }
        for &span in [first].iter().chain(&spares) {
            free_span(heap, span);
        }
        is_one_free_span(heap, at);
        // And the next ones find none that are somebody's.
        for class in classes {
            let (first, spares) = run(heap, class, 1);
            assert!(recarve(heap, spares[0], class));
            is_whole(heap, first, class);
            is_whole(heap, spares[0], class);
            free_span(heap, first);
            free_span(heap, spares[0]);
        }
        is_one_free_span(heap, at);
    });
}

#[test]
fn spans_of_a_run_coalesce_in_whatever_order_they_are_freed() {
    let count = 6;
    // Carved ones among them, one with free bits of its own.
    let classes = [2048, 8, 16].map(|size| class_of(size, 8).unwrap());
    for order in 0..count * (count - 1) {
        with_region(|heap, _, at| {
            let (first, spares) = run(heap, classes[0], count - 1);
            let mut spans: Vec<&Span> = [first].into_iter().chain(spares).collect();
            assert!(recarve(heap, spans[2], classes[1]) && recarve(heap, spans[4], classes[2]));
            // Every pair of a first and a second one, and the rest from one end or the other.
            let one = spans.remove(order % count);
            let two = spans.remove(order / count);
            if order % 2 == 0 {
                spans.reverse();
            }
            for span in [one, two].into_iter().chain(spans) {
                free_span(heap, span);
            }
            is_one_free_span(heap, at);
            assert_eq!(heap.stats().dirty_pages, 0, "nobody has touched a page");
        });
    }
}

#[test]
fn what_nobody_has_carved_or_taken_is_as_clean_as_the_run_was() {
    let class = class_of(9_728, 8).unwrap();
    let pages = class.pages();
    assert!(pages > 2);
    with_region(|heap, _, _| {
        let (first, spares) = run(heap, class, 3);
        // Uncarved, carved, and one object of it taken: two pages.
        assert!(recarve(heap, spares[1], class) && recarve(heap, spares[2], class));
        put_all(spares[2], &take(spares[2], 1));
        assert_eq!([0, 1, 2].map(|n| spares[n].touched_pages()), [0, 0, 2]);
        for (&spare, dirty) in spares.iter().zip([0, 0, 2]) {
            free_span(heap, spare);
            assert_eq!(heap.stats().dirty_pages, dirty);
        }
        free_span(heap, first);
        assert_eq!(heap.stats().dirty_pages, 2);

        // What has been used counts, whether anybody carves it now or not.
        let all = large(heap, REGION);
        free(heap, all);
        assert_eq!(heap.stats().dirty_pages, REGION);
        let (first, spares) = run(heap, class, 3);
        assert_eq!(heap.stats().dirty_pages, REGION - 4 * pages);
        assert!(!first.was_zeroed() && spares.iter().all(|spare| !spare.was_zeroed()));
        for (n, &spare) in spares.iter().enumerate() {
            assert_eq!(spare.touched_pages(), pages);
            free_span(heap, spare);
            assert_eq!(heap.stats().dirty_pages, REGION - (3 - n) * pages);
        }
        free_span(heap, first);
        assert_eq!(heap.stats().dirty_pages, REGION);
    });
}

#[test]
fn objects_are_known_to_be_zero_until_any_of_their_span_was_handed_out() {
    let (class, other) = (class_of(64, 8).unwrap(), class_of(1024, 8).unwrap());
    let pasts = |taken: &[(usize, Past)]| taken.iter().map(|&(_, past)| past).collect::<Vec<_>>();
    with_region(|heap, _, _| {
        let (_, spares) = run(heap, class, 2);
        for (spare, class) in [(spares[0], class), (spares[1], other)] {
            assert!(recarve(heap, spare, class));
            // Carved again with nothing taken, it is as zero as before.
            assert!(recarve(heap, spare, other) && recarve(heap, spare, class));
            let taken = take(spare, 2);
            assert_eq!(pasts(&taken), [Past::Zeroed, Past::Zeroed]);
            put_all(spare, &taken);
        }
        // The same class or another one: what was written is still there, and nobody knows where.
        for class in [class, other, class, class] {
            assert!(recarve(heap, spares[0], class));
            assert!(!spares[0].was_zeroed());
            let taken = take(spares[0], 2);
            assert_eq!(pasts(&taken), [Past::Fresh, Past::Fresh]);
            put_all(spares[0], &taken);
        }
        let pages = spares[0].pages();
        free_span(heap, spares[0]);
        assert_eq!(heap.stats().dirty_pages, pages);
    });
    // Of a run that others have used nothing is known to be zero.
    with_region(|heap, _, _| {
        let all = large(heap, REGION);
        free(heap, all);
        let (first, spares) = run(heap, class, 1);
        assert!(recarve(heap, spares[0], class));
        for span in [first, spares[0]] {
            assert_eq!(pasts(&take(span, 1)), [Past::Fresh]);
        }
    });
}

#[test]
fn the_owner_is_nobody_at_first_and_stays_until_the_span_is_freed() {
    let classes = [2048, 8, 40].map(|size| class_of(size, 8).unwrap());
    with_region(|heap, _, _| {
        let (first, spares) = run(heap, classes[0], 2);
        let spans = [first, spares[0], spares[1]];
        assert_eq!(spans.map(Span::owner), [0; 3]);
        for (span, owner) in spans.into_iter().zip([127, 1, 64]) {
            span.set_owner(owner);
            assert_eq!((span.owner(), span.was_zeroed()), (owner, true));
            for class in classes {
                assert!(recarve(heap, span, class));
                assert_eq!((span.owner(), span.was_zeroed()), (owner, true));
            }
            put_all(span, &take(span, 5));
            for class in classes {
                assert!(recarve(heap, span, class));
                assert_eq!((span.owner(), span.was_zeroed()), (owner, false));
            }
        }
        spans.into_iter().for_each(|span| free_span(heap, span));
        // The same pages, dirty and clean ones, have no owner.
        let (first, spares) = run(heap, classes[1], REGION - 1);
        assert_eq!(first.owner() + spares.iter().map(|spare| spare.owner()).sum::<usize>(), 0);
    });
}

#[test]
fn who_asks_for_more_than_is_at_hand_gets_one_span() {
    let class = class_of(9_728, 8).unwrap();
    let pages = class.pages();
    // Also where there is nothing yet.
    with_heap(2048, 4096, |heap, _| {
        let (first, spares) = run(heap, class, 3);
        is_whole(heap, first, class);
        assert!(spares.is_empty());
        assert_eq!((heap.stats().grown, heap.stats().object_pages), (1, pages));
        let rest = REGION / pages - 1;
        for more in [rest, rest + 1, 50] {
            let (first, spares) = run(heap, class, more);
            assert_eq!(spares.len(), 0, "the heap does not grow for spares");
            free_span(heap, first);
        }
        assert_eq!(run(heap, class, rest - 1).1.len(), rest - 1);
        assert_eq!(run(heap, class, 0).1.len(), 0);
    });
}

#[test]
fn a_short_piece_that_is_dirty_is_used_before_a_run_of_clean_ones() {
    let class = class_of(9_728, 8).unwrap();
    with_region(|heap, _, at| {
        let (piece, wall) = (large(heap, class.pages()), large(heap, 1));
        free(heap, piece);
        let (first, spares) = run(heap, class, 3);
        assert_eq!((first.address(), spares.len()), (at, 0));
        // Nothing is dirty any more.
        let (second, more) = run(heap, class, 3);
        assert_eq!(more.len(), 3);
        for span in more.into_iter().chain([first, second]) {
            free_span(heap, span);
        }
        free(heap, wall);
        is_one_free_span(heap, at);
    });
}

#[test]
fn the_shortest_piece_that_is_dirty_serves_as_far_as_it_goes() {
    let class = class_of(9_728, 8).unwrap();
    let pages = class.pages();
    with_region(|heap, _, at| {
        // Room for three spans and a page, and for twenty.
        let (short, wall) = (large(heap, 3 * pages + 1), large(heap, 1));
        let (long, end) = (large(heap, 20 * pages), large(heap, 1));
        free(heap, short);
        free(heap, long);
        let (first, spares) = run(heap, class, 9);
        assert_eq!((first.address(), spares.len()), (short, 2));
        assert!(spares.iter().all(|spare| spare.end() <= wall / PAGE && !spare.was_zeroed()));
        // What is left of it has room for none.
        let (second, more) = run(heap, class, 9);
        assert_eq!((second.address(), more.len()), (long, 9));
        for span in spares.into_iter().chain(more).chain([first, second]) {
            free_span(heap, span);
        }
        [wall, end].into_iter().for_each(|at| free(heap, at));
        is_one_free_span(heap, at);
    });
}

#[test]
fn no_more_come_at_once_than_are_promised() {
    let class = class_of(2048, 8).unwrap();
    assert_eq!(class.pages(), 1);
    for more in [MOST - 1, MOST, MOST + 1, 1000, usize::MAX / PAGE, usize::MAX - 1, usize::MAX] {
        with_heap(4096, 4096, |heap, _| {
            let all = large(heap, 1500);
            free(heap, all);
            let (first, spares) = run(heap, class, more);
            assert_eq!(spares.len(), more.min(MOST));
            assert_eq!(spares[0].start(), first.end());
            assert_eq!(heap.stats().object_pages, 1 + more.min(MOST));
            is_whole(heap, first, class);
            spares.iter().for_each(|spare| free_span(heap, spare));
            free_span(heap, first);
            assert_eq!(state_at(heap, all), Some((State::Free, heap.stats().free_pages)));
        });
    }
}

#[test]
fn under_a_limit_nobody_gets_more_than_he_needs() {
    let class = class_of(9_728, 8).unwrap();
    with_region(|heap, _, _| {
        for (hard, soft) in [(64 << 20, 0), (0, 64 << 20), (64 << 20, 32 << 20)] {
            heap.set_hard_limit(hard);
            heap.set_soft_limit(soft);
            let before = heap.committed_bytes();
            let (first, spares) = run(heap, class, 5);
            assert!(spares.is_empty());
            assert_eq!(heap.committed_bytes() - before, class.pages() * PAGE);
            free_span(heap, first);
            heap.release_pages(usize::MAX);
        }
        // What is out of reach is refused, run or not.
        heap.set_soft_limit(0);
        heap.set_hard_limit(PAGE);
        let found = heap.alloc_objects_run(class, 5, |_| panic!("a spare beyond the limit"));
        assert!(found.is_none());
        heap.set_hard_limit(0);
        assert_eq!(run(heap, class, 5).1.len(), 5);
    });
}
