//! Free spans, findable by page count.
//!
//! Up to [`EXACT`] pages a list per length and a bitmap over the lists: O(1). Above, one tree. Two
//! such sets exist: spans with dirty pages (resident, wanted first) and clean ones (zero, costing
//! nothing).

use core::ptr;

use crate::span::Span;
use crate::tree::Tree;

/// Longest span that has a list of its own length (pages; 1 MiB).
pub(crate) const EXACT: usize = if cfg!(tiermalloc_loom) { 8 } else { 128 };
const WORDS: usize = EXACT / 64 + 1;

/// A set of free spans. All functions run under the page heap's lock.
pub(crate) struct FreeSet {
    lists: [*mut Span; EXACT + 1],
    nonempty: [u64; WORDS],
    tree: Tree,
}

// SAFETY: the set holds records of the page heap, which all move between threads with its lock.
unsafe impl Send for FreeSet {}

impl FreeSet {
    pub(crate) const fn new() -> Self {
        Self { lists: [ptr::null_mut(); EXACT + 1], nonempty: [0; WORDS], tree: Tree::new() }
    }

    /// # Safety
    /// `span` is free and on no set.
    pub(crate) unsafe fn insert(&mut self, span: &Span) {
        let pages = span.pages();
        if pages > EXACT {
            // SAFETY: passed on to the caller.
            return unsafe { self.tree.insert(span) };
        }
        let head = self.lists[pages];
        span.prev.set(ptr::null_mut());
        span.next.set(head);
        // SAFETY: heads of lists are null or records on them.
        if let Some(head) = unsafe { head.as_ref() } {
            head.prev.set(ptr::from_ref(span).cast_mut());
        }
        self.lists[pages] = ptr::from_ref(span).cast_mut();
        self.nonempty[pages / 64] |= 1 << (pages % 64);
    }

    /// # Safety
    /// `span` is on this set and has the length that it was inserted with.
    pub(crate) unsafe fn remove(&mut self, span: &Span) {
        let pages = span.pages();
        if pages > EXACT {
            // SAFETY: passed on to the caller.
            return unsafe { self.tree.remove(span) };
        }
        let (prev, next) = (span.prev.get(), span.next.get());
        // SAFETY: neighbours on a list are null or records on it.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.lists[pages] = next,
            }
            if let Some(next) = next.as_ref() {
                next.prev.set(prev);
            }
        }
        if self.lists[pages].is_null() {
            self.nonempty[pages / 64] &= !(1 << (pages % 64));
        }
    }

    /// The shortest span of at least `pages` pages.
    pub(crate) fn find(&self, pages: usize) -> Option<&Span> {
        if pages <= EXACT {
            let mut word = pages / 64;
            let mut bits = self.nonempty[word] & (u64::MAX << (pages % 64));
            loop {
                if bits != 0 {
                    let length = word * 64 + bits.trailing_zeros() as usize;
                    // SAFETY: the bit says that the list has a head.
                    return unsafe { self.lists[length].as_ref() };
                }
                word += 1;
                if word == WORDS {
                    break;
                }
                bits = self.nonempty[word];
            }
        }
        self.tree.best_fit(pages)
    }

    /// The longest span.
    pub(crate) fn longest(&self) -> Option<&Span> {
        self.tree.longest().or_else(|| {
            let length = (1..=EXACT).rev().find(|&length| !self.lists[length].is_null())?;
            // SAFETY: heads of lists are null or records on them.
            unsafe { self.lists[length].as_ref() }
        })
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_shortest_that_fits_is_found_among_lists_and_tree() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        // Lengths on both sides of the longest list, and at the borders of the bitmap's words.
        let lengths = [1, 2, 3, 62, 63, 64, 65, 126, 127, 128, 129, 130, 1000, 100_000];
        let spans: Vec<Box<Span>> = (0..200)
            .map(|i| Box::new(Span::new(1_000_000 * (i + 1), lengths[i % lengths.len()])))
            .collect();
        let mut set = FreeSet::new();
        let mut on = BTreeSet::new();
        for _ in 0..5000 {
            let n = next(200) as usize;
            // SAFETY: `on` knows whether the span is on the set.
            unsafe {
                if on.remove(&(spans[n].pages(), n)) {
                    set.remove(&spans[n]);
                } else {
                    on.insert((spans[n].pages(), n));
                    set.insert(&spans[n]);
                }
            }
            for wanted in [1, 2, 64, 65, 100, 128, 129, 131, 99_999, 100_001] {
                let shortest = on.range((wanted, 0)..).next().map(|entry| entry.0);
                assert_eq!(set.find(wanted).map(Span::pages), shortest, "{wanted}");
            }
            assert_eq!(set.longest().map(Span::pages), on.last().map(|entry| entry.0));
            let empty = (0..=EXACT)
                .all(|n| set.lists[n].is_null() == (set.nonempty[n / 64] >> (n % 64) & 1 == 0));
            assert!(empty, "the bitmap says which lists are empty");
        }
    }
}
