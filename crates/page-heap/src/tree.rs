//! Free spans of many lengths in order: smallest that fits, lowest address among equals.
//!
//! A treap (Seidel and Aragon, "Randomized search trees", 1996) threaded through the records
//! themselves: `prev` is the left child, `next` the right one, the key is (pages, start), and the
//! priority a hash of the start, so nothing else is stored. Expected cost of each operation:
//! O(log n) records touched.
//!
//! All functions are for the page heap, under its lock: every node is a `Free` span that is on this
//! tree and nowhere else.

use core::cell::Cell;
use core::ptr;

use crate::span::Span;

/// A tree of free spans.
pub(crate) struct Tree {
    root: Cell<*mut Span>,
}

type Link = *mut Span;

fn key(span: &Span) -> (usize, usize) {
    (span.pages(), span.start())
}

/// Mixed twice: one multiplication alone makes regular strides of starts into long runs of rising
/// priorities, and those into long branches. The constants are those of splitmix64's finisher
/// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn priority(span: &Span) -> u64 {
    let mut x = span.start() as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Tree {
    pub(crate) const fn new() -> Self {
        Self { root: Cell::new(ptr::null_mut()) }
    }

    /// # Safety
    /// `span` is on no tree or list.
    pub(crate) unsafe fn insert(&mut self, span: &Span) {
        let mut link = &self.root;
        // SAFETY: links of a tree are null or records on it.
        while let Some(node) = unsafe { link.get().as_ref() } {
            if priority(node) < priority(span) {
                break;
            }
            link = if key(span) < key(node) { &node.prev } else { &node.next };
        }
        let below = link.get();
        link.set(ptr::from_ref(span).cast_mut());
        // SAFETY: `below` is a subtree; `span` becomes its root.
        unsafe { split(below, key(span), &span.prev, &span.next) };
    }

    /// # Safety
    /// `span` is on this tree.
    pub(crate) unsafe fn remove(&mut self, span: &Span) {
        let mut link = &self.root;
        // SAFETY: links of a tree are null or records on it.
        while let Some(node) = unsafe { link.get().as_ref() } {
            if ptr::eq(node, span) {
                // SAFETY: the children are subtrees, the left one all smaller.
                unsafe { merge(link, node.prev.get(), node.next.get()) };
                return;
            }
            link = if key(span) < key(node) { &node.prev } else { &node.next };
        }
        debug_assert!(false, "span not on the tree");
    }

    /// The smallest span of at least `pages` pages; among equals the one at the lowest address.
    pub(crate) fn best_fit(&self, pages: usize) -> Option<&Span> {
        let mut best = None;
        let mut link = self.root.get();
        // SAFETY: links of a tree are null or records on it.
        while let Some(node) = unsafe { link.as_ref() } {
            if node.pages() >= pages {
                best = Some(node);
                link = node.prev.get();
            } else {
                link = node.next.get();
            }
        }
        best
    }

    /// The longest span.
    pub(crate) fn longest(&self) -> Option<&Span> {
        let mut last = None;
        let mut link = self.root.get();
        // SAFETY: links of a tree are null or records on it.
        while let Some(node) = unsafe { link.as_ref() } {
            last = Some(node);
            link = node.next.get();
        }
        last
    }
}

/// Splits `tree` at `at` into what is smaller and what is larger.
///
/// # Safety
/// `tree` is null or the root of a tree whose links are valid.
unsafe fn split(mut tree: Link, at: (usize, usize), smaller: &Cell<Link>, larger: &Cell<Link>) {
    let (mut smaller, mut larger) = (smaller, larger);
    // SAFETY: links of a tree are null or records on it.
    while let Some(node) = unsafe { tree.as_ref() } {
        if key(node) < at {
            smaller.set(tree);
            smaller = &node.next;
            tree = node.next.get();
        } else {
            larger.set(tree);
            larger = &node.prev;
            tree = node.prev.get();
        }
    }
    smaller.set(ptr::null_mut());
    larger.set(ptr::null_mut());
}

/// Joins two trees, all of `left` smaller than all of `right`, and hangs the result on `link`.
///
/// # Safety
/// Both are null or roots of trees whose links are valid.
unsafe fn merge(link: &Cell<Link>, mut left: Link, mut right: Link) {
    let mut link = link;
    loop {
        // SAFETY: links of a tree are null or records on it.
        let (l, r) = match unsafe { (left.as_ref(), right.as_ref()) } {
            (Some(l), Some(r)) => (l, r),
            (None, _) => return link.set(right),
            (_, None) => return link.set(left),
        };
        if priority(l) >= priority(r) {
            link.set(left);
            link = &l.next;
            left = l.next.get();
        } else {
            link.set(right);
            link = &r.prev;
            right = r.prev.get();
        }
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    /// A depth that a balanced tree of a thousand has no business with.
    const DEEP: usize = 60;

    /// Children in order of key, priorities falling; returns the keys in order.
    fn walk(link: Link, depth: usize, keys: &mut Vec<(usize, usize)>) {
        assert!(depth < DEEP, "out of balance");
        // SAFETY: links of a tree are null or records on it.
        let Some(node) = (unsafe { link.as_ref() }) else { return };
        for child in [node.prev.get(), node.next.get()] {
            // SAFETY: as above.
            assert!(unsafe { child.as_ref() }.is_none_or(|c| priority(c) <= priority(node)));
        }
        walk(node.prev.get(), depth + 1, keys);
        keys.push(key(node));
        walk(node.next.get(), depth + 1, keys);
    }

    #[test]
    fn spans_are_found_in_order_of_length_and_address_whatever_the_order_they_came_in() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        // Spans one after another, many of one length: the priority is a hash of the start alone.
        let mut start = 0x7f00_0000;
        let spans: Vec<Box<Span>> = (0..1000)
            .map(|_| {
                let pages = 129 + next(40) as usize;
                start += pages;
                Box::new(Span::new(start, pages))
            })
            .collect();
        let mut tree = Tree::new();
        let mut reference = BTreeSet::new();
        for round in 0..6000 {
            let span = &*spans[next(1000) as usize];
            // SAFETY: the reference knows whether the span is on the tree.
            unsafe {
                if reference.remove(&key(span)) {
                    tree.remove(span);
                } else {
                    reference.insert(key(span));
                    tree.insert(span);
                }
            }
            let wanted = 120 + next(60) as usize;
            let best = reference.range((wanted, 0)..).next().copied();
            assert_eq!(tree.best_fit(wanted).map(key), best);
            assert_eq!(tree.longest().map(key), reference.last().copied());
            if round % 100 == 0 {
                let mut keys = Vec::new();
                walk(tree.root.get(), 0, &mut keys);
                assert!(keys.iter().eq(reference.iter()));
            }
        }
    }
}
