//! S1 to S5 over every size up to 256 KiB and every alignment, not sampled.

use tiermalloc_size_class::*;

fn alignments() -> impl Iterator<Item = usize> {
    (0..48).map(|shift| 1usize << shift)
}

#[test]
fn every_request_fits_is_aligned_and_is_monotone() {
    for align in alignments() {
        let mut last = 0;
        for size in 0..=MAX_SIZE + 1 {
            let Some(class) = class_of(size, align) else {
                assert!(round_up(size, align) > MAX_SIZE || align > PAGE_SIZE, "{size} {align}");
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
            assert!((object - size) * 16 <= size, "{size} {object}");
        }
        let object = class_of(size, 16).unwrap().size();
        assert!((object - size) * 16 <= size || object - size <= 15, "{size} {object}");
    }
}

#[test]
fn spans_waste_at_most_a_fiftieth() {
    for class in by_size() {
        assert!(class.tail_waste() * 50 <= class.pages() * PAGE_SIZE, "{class:?}");
        assert!(class.pages() <= MAX_SPAN_PAGES && class.objects() <= MAX_OBJECTS);
    }
}

#[test]
fn index_is_exact_for_every_byte_of_every_span() {
    for class in by_size() {
        for offset in 0..class.pages() * PAGE_SIZE {
            assert_eq!(index_in_span(class, offset), offset / class.size(), "{class:?} {offset}");
        }
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
        assert_eq!(class_of(class.size(), 1), Some(class));
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
    for class in by_size() {
        assert_eq!(class.batch(), (16 * 1024 / class.size()).clamp(1, 32), "{class:?}");
    }
    assert_eq!(MAX_BATCH, 32);
}

#[test]
fn eighths_are_monotone_and_below_eight_until_a_span_is_full() {
    for class in by_size() {
        let all: Vec<usize> = (0..class.objects()).map(|n| class.eighths(n)).collect();
        assert!(all.windows(2).all(|w| w[0] <= w[1]) && all.iter().all(|&e| e < 8), "{class:?}");
        for (n, &eighths) in all.iter().enumerate() {
            let exact = n * 8 / class.objects();
            assert!(eighths == exact || eighths + 1 == exact, "{class:?} {n}");
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
    for class in by_size() {
        assert_eq!(most.get(&class), Some(&class.slack_most()), "{class:?}");
    }
}
