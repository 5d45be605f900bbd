//! Which blocks the source was asked to fill with huge pages.
//!
//! A list of ranges: what a heap fills is nearly one range, with a hole for each part that has gone back. Each
//! range is a mapping for the system, of which a process may have so many (65,530 by default); here there is room
//! for [`RANGES`]. Under the heap's lock.

use core::ops::Range;

/// Ranges at one time.
const RANGES: usize = if cfg!(tiermalloc_loom) { 1 } else { 128 };

/// Ranges of blocks, apart from each other and in order. The numbers of blocks of 2 MiB fit into 32 bits.
pub(crate) struct Filled {
    count: usize,
    ranges: [(u32, u32); RANGES],
}

impl Filled {
    pub(crate) const fn new() -> Self {
        Self { count: 0, ranges: [(0, 0); RANGES] }
    }

    /// The first range that ends at `block` or behind it.
    fn first_reaching(&self, block: u32) -> usize {
        self.ranges[..self.count].partition_point(|&(_, end)| end < block)
    }

    /// Whether all of a range is there.
    pub(crate) fn has(&self, range: &Range<u32>) -> bool {
        let found = self.ranges[..self.count].get(self.first_reaching(range.start + 1));
        found.is_some_and(|&(start, end)| start <= range.start && range.end <= end)
    }

    /// Whether any of a range is there.
    pub(crate) fn has_any(&self, range: &Range<u32>) -> bool {
        let found = self.ranges[..self.count].get(self.first_reaching(range.start + 1));
        found.is_some_and(|&(start, _)| start < range.end)
    }

    /// Adds a range. `false`: there is no room for it.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn add(&mut self, range: Range<u32>) -> bool {
        let first = self.first_reaching(range.start);
        let touching =
            self.ranges[first..self.count].partition_point(|&(start, _)| start <= range.end);
        if touching == 0 {
            if self.count == RANGES {
                return false;
            }
            self.ranges.copy_within(first..self.count, first + 1);
            self.ranges[first] = (range.start, range.end);
            self.count += 1;
            return true;
        }
        let last = first + touching - 1;
        let merged = (range.start.min(self.ranges[first].0), range.end.max(self.ranges[last].1));
        self.ranges[first] = merged;
        self.ranges.copy_within(last + 1..self.count, first + 1);
        self.count -= last - first;
        true
    }

    /// Takes out what of one range lies in `range`; the first such part, if there is any. Where a range would fall
    /// into two and there is no room for that, the shorter of them goes as well.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn take(&mut self, range: Range<u32>) -> Option<Range<u32>> {
        let at = self.first_reaching(range.start + 1);
        let (start, end) = *self.ranges[..self.count].get(at)?;
        let (mut from, mut to) = (start.max(range.start), end.min(range.end));
        if from >= to {
            return None;
        }
        if from > start && to < end && self.count == RANGES {
            if from - start < end - to {
                from = start;
            } else {
                to = end;
            }
        }
        match (from > start, to < end) {
            (true, true) => {
                self.ranges.copy_within(at..self.count, at + 1);
                self.ranges[at] = (start, from);
                self.ranges[at + 1] = (to, end);
                self.count += 1;
            }
            (true, false) => self.ranges[at] = (start, from),
            (false, true) => self.ranges[at] = (to, end),
            (false, false) => {
                self.ranges.copy_within(at + 1..self.count, at);
                self.count -= 1;
            }
        }
        Some(from..to)
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn blocks(filled: &Filled) -> BTreeSet<u32> {
        filled.ranges[..filled.count].iter().flat_map(|&(start, end)| start..end).collect()
    }

    fn is_in_order(filled: &Filled) -> bool {
        let ranges = &filled.ranges[..filled.count];
        ranges.iter().all(|(start, end)| start < end)
            && ranges.windows(2).all(|two| two[0].1 < two[1].0)
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_blocks(steps in prop::collection::vec((any::<bool>(), 0u32..3000, 1u32..40), 1..300)) {
            let (mut filled, mut model) = (Filled::new(), BTreeSet::new());
            for (adds, start, length) in steps {
                let range = start..start + length;
                if adds {
                    prop_assert!(filled.add(range.clone()));
                    model.extend(range);
                } else {
                    let mut taken = Vec::new();
                    while let Some(part) = filled.take(range.clone()) {
                        taken.extend(part);
                    }
                    let expected: Vec<u32> = range.filter(|block| model.remove(block)).collect();
                    prop_assert_eq!(taken, expected);
                }
                prop_assert_eq!(&blocks(&filled), &model);
                prop_assert!(is_in_order(&filled));
                for range in [start..start + length, start + 1..start + 2, 0..1] {
                    prop_assert_eq!(filled.has(&range), range.clone().all(|block| model.contains(&block)));
                    prop_assert_eq!(filled.has_any(&range), range.clone().any(|block| model.contains(&block)));
                }
            }
        }
    }

    #[test]
    fn a_full_list_takes_no_more_and_gives_more_than_asked_rather_than_split() {
        let mut filled = Filled::new();
        for n in 0..RANGES as u32 {
            assert!(filled.add(n * 100..n * 100 + 50));
        }
        assert!(!filled.add(60..70));
        assert!(filled.add(50..60), "one that only grows has room");
        assert_eq!(filled.take(10..20), Some(0..20), "the shorter side goes too");
        assert_eq!(filled.take(50..55), Some(50..60));
        assert_eq!(filled.take(0..20), None);
        assert!(is_in_order(&filled));
    }
}
