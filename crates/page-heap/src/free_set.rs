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
