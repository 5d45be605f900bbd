//! S1 to S5 over every size up to 256 KiB and every alignment, not sampled.

use tiermalloc_size_class::*;

/// The largest class for alignments above [`STAGGER`].
const PAGED_MAX: usize = 256 * 1024;

/// Whether objects of a class are longer by [`STAGGER`]: its sizes divide by no more.
fn is_staggered(class: Class) -> bool {
    class.size() > 3968 && class.size() % (2 * STAGGER) != 0
}

fn alignments() -> impl Iterator<Item = usize> {
    (0..48).map(|shift| 1usize << shift)
}

#[test]
fn every_request_fits_is_aligned_and_is_monotone() {
    for align in alignments() {
        let mut last = 0;
        for size in 0..=MAX_SIZE + 1 {
            let Some(class) = class_of(size, align) else {
                let most = if align > STAGGER { PAGED_MAX } else { MAX_SIZE };
                assert!(round_up(size, align) > most || align > PAGE_SIZE, "{size} {align}");
                continue;
            };
            assert!(class.size() >= size.max(1), "S1: {size} {align} {class:?}");
            if align <= PAGE_SIZE {
                assert_eq!(class.size() % align, 0, "S2: {size} {align} {class:?}");
            } else {
                panic!("no class can promise alignment {align}");
            }
            assert!(class.size() >= last, "S4: {size} {align} {class:?}");
            last = class.size();
        }
    }
}

#[test]
fn waste_stays_within_the_stated_bound() {
    for size in 1..=MAX_SIZE {
        let object = class_of(size, 8).unwrap().size();
        if size <= 128 {
            assert!(object - size <= 7, "{size} {object}");
        } else {
            let steps = if size <= 64 * 1024 + STAGGER { 16 } else { 8 };
            // What is a stagger longer may be so for who would have fitted before.
            let more = if object == 4096 + STAGGER { STAGGER } else { 0 };
            assert!((object - size) * steps <= size + more, "{size} {object}");
        }
        let object = class_of(size, 16).unwrap().size();
        assert!((object - size) * 15 <= size || object - size <= 15 || size > 64 * 1024);
    }
}

#[test]
fn what_is_aligned_to_pages_takes_less_than_half_more() {
    for size in 3969..=PAGED_MAX {
        let pages = size.next_multiple_of(4096);
        let object = class_of(size, 4096).unwrap().size();
        assert!(object * 2 < pages * 3 && object % 4096 == 0, "{size} {object}");
        assert!(object * 4 <= pages * 5 || pages > 64 * 1024, "{size} {object}");
        assert!(!pages.is_power_of_two() || object == pages, "{size} {object}");
    }
    assert_eq!(class_of(PAGED_MAX + 1, 2 * STAGGER), None);
    assert_eq!(class_of(PAGED_MAX + 1, STAGGER).unwrap().size(), PAGED_MAX + STAGGER);
}

#[test]
fn spans_waste_at_most_a_fiftieth_or_a_sixteenth_where_there_are_colours() {
    for class in by_size() {
        let (waste, span) = (class.tail_waste(), class.pages() * PAGE_SIZE);
        match is_staggered(class) {
            true if class.size() > 64 * 1024 => {
                assert_eq!(class.objects(), 1, "{class:?}");
                assert!((4096 - STAGGER..4096 + PAGE_SIZE).contains(&waste), "{class:?} {waste}");
            }
            true => assert!(waste * 16 <= span, "{class:?} {waste}"),
            false => assert!(waste * 50 <= span, "{class:?} {waste}"),
        }
        assert!(class.pages() <= MAX_SPAN_PAGES && class.objects() <= MAX_OBJECTS);
    }
}

#[test]
fn colours_are_staggers_that_the_span_has_room_for() {
    for class in by_size() {
        let shape = class.shape();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..64 {
            // Spans of the class one behind the other, somewhere.
            let span = (1 << 40) + number * class.pages() * PAGE_SIZE;
            let colour = shape.first_object(span) - span;
            let whole = class.size() % STAGGER == 0 && is_staggered(class);
            assert!(
                colour == 0 || whole && colour % STAGGER == 0 && colour < 4096,
                "S3: {class:?}"
            );
            assert!(colour <= class.tail_waste(), "S3: {class:?} {colour}");
            seen.insert(colour);
        }
        // Most of what there is room for comes up.
        let colours = (class.tail_waste() / STAGGER + 1).min(32);
        let usual = if is_staggered(class) { colours } else { 1 };
        assert!(seen.len() <= usual && seen.len() * 3 >= usual, "{class:?}: {seen:?}");
    }
}

#[test]
fn objects_of_4_kib_and_more_begin_at_many_places_of_their_pages() {
    for class in by_size().filter(|&class| is_staggered(class)) {
        let mut places = std::collections::BTreeMap::new();
        for number in 0..64 {
            let span = (1 << 40) + number / class.objects() * class.pages() * PAGE_SIZE;
            let object = class.shape().first_object(span) + number % class.objects() * class.size();
            *places.entry(object % 4096 / 64).or_insert(0) += 1;
        }
        // A first cache has eight places or more for each.
        let most = places.values().max().unwrap();
        assert!(*most <= 8, "{class:?}: {most} of 64 objects begin at one line");
    }
}

#[test]
fn a_shape_finds_the_start_of_every_object_and_nothing_else() {
    for class in by_size() {
        let shape = class.shape();
        for offset in 0..class.pages() * PAGE_SIZE {
            let (index, rest) = (offset / class.size(), offset % class.size());
            let starts = rest == 0 && index < class.objects();
            assert_eq!(shape.object_at(offset), starts.then_some(index), "{class:?} {offset}");
        }
    }
}

#[test]
fn all_classes_come_in_the_order_of_their_ids() {
    assert!(Class::all().map(Class::id).eq(1..=CLASSES));
    let mut by_id: Vec<Class> = by_size().collect();
    by_id.sort();
    assert!(Class::all().eq(by_id));
}

#[test]
fn ids_sizes_and_the_order_of_sizes_agree() {
    let all: Vec<Class> = by_size().collect();
    assert_eq!(all.len(), CLASSES);
    assert!(all.windows(2).all(|w| w[0].size() < w[1].size()));
    for class in all {
        // S3 with S2: those that divide by more than the stagger are there for who asks for that.
        let align = match class.size() {
            4096.. if !is_staggered(class) => 2 * STAGGER,
            _ => 1,
        };
        assert_eq!(class_of(class.size(), align), Some(class));
        assert_eq!(Class::from_id(class.id()), Some(class));
    }
    assert_eq!(Class::from_id(0), None);
    assert_eq!(Class::from_id(CLASSES + 1), None);
}

#[test]
fn c_sizes_are_their_own_ids() {
    for size in 1..=SMALL_MAX {
        assert_eq!(class_of(size, 16).unwrap().id(), size.div_ceil(16));
    }
}

#[test]
fn absurd_requests_have_no_class() {
    for align in alignments() {
        for size in [usize::MAX, usize::MAX - 1, usize::MAX - 4096, isize::MAX as usize] {
            assert_eq!(class_of(size, align), None);
        }
    }
}

#[test]
fn batches_are_as_many_objects_as_16_kib_hold_but_1_at_least_and_32_at_most() {
    const BATCH: usize = 16 * 1024 + 4 * STAGGER;
    for class in by_size() {
        assert_eq!(class.batch(), (BATCH / class.size()).clamp(1, 32), "{class:?}");
    }
    assert_eq!(MAX_BATCH, 32);
}

#[test]
fn eighths_are_monotone_and_below_eight_until_a_span_is_full() {
    for class in by_size() {
        let all: Vec<usize> = (0..class.objects()).map(|n| class.eighths(n)).collect();
        assert!(all.windows(2).all(|w| w[0] <= w[1]) && all.iter().all(|&e| e < 8), "{class:?}");
        for (n, &eighths) in all.iter().enumerate() {
            assert_eq!(eighths, n * 8 / class.objects(), "{class:?} {n}");
        }
    }
}

#[test]
fn pages_cover_their_bytes_and_no_page_more() {
    for bytes in (0..5 * PAGE_SIZE).chain([MAX_SIZE, usize::MAX - PAGE_SIZE, usize::MAX]) {
        assert_eq!(pages_for(bytes), bytes.div_ceil(PAGE_SIZE), "{bytes}");
    }
}

#[test]
fn what_a_request_leaves_unused_is_bounded_and_the_bound_is_met() {
    let mut most = std::collections::BTreeMap::new();
    // Rust's requests by their own alignment, and C's, which gets 16.
    for (size, align) in (1..=MAX_SIZE).flat_map(|size| [(size, 1), (size, 8), (size, 16)]) {
        let class = class_of(size, align).unwrap();
        let slack = class.size() - size;
        let entry = most.entry(class).or_insert(0);
        *entry = slack.max(*entry);
    }
    // Those that nobody gets so have what lies between two of them.
    for (size, align) in (1..=PAGED_MAX).flat_map(|size| [(size, 4096), (size, 8192)]) {
        let class = class_of(size, align).unwrap();
        let entry = most.entry(class).or_insert(0);
        *entry = (class.size() - size).max(*entry);
    }
    for class in by_size() {
        assert_eq!(most.get(&class), Some(&class.slack_most()), "{class:?}");
    }
}
