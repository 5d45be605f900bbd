//! What the model does with large spans that wait to be allocated again.

use tiermalloc_page_heap::{FreeError, Span, State};

use super::arena::PAGE;
use super::model::Model;

/// Places over which what waits is spread.
const PLACES: usize = 32;
/// Pages of the spans that wait.
const PAGES: std::ops::Range<usize> = 33..256;

/// A span that was freed and waits, unless the heap has taken it back since.
pub(super) struct Waits {
    start: usize,
    pages: usize,
    place: usize,
}

impl<const ROOT: usize, const LEAF: usize> Model<'_, ROOT, LEAF> {
    /// Frees the n-th large span so that it waits.
    pub(super) fn free_to_wait(&mut self, n: usize, near: usize) {
        let Some(which) = self.which(n, |live| live.state != State::Objects) else { return };
        self.is_kept(which, self.live[which].pages);
        let (address, pages) = (self.live[which].address(), self.live[which].pages);
        let unlimited = self.hard == usize::MAX && self.soft == usize::MAX;
        let fits = unlimited && PAGES.contains(&pages) && self.live[which].state == State::Large;
        // SAFETY: the span is ours and not used any more; that it is freed twice is a test.
        unsafe {
            assert_eq!(self.heap.free_to_wait(near, address), fits, "{pages} pages");
            if !fits {
                return;
            }
            assert!(!self.heap.free_to_wait(near, address), "freed twice");
            assert!(!self.heap.free_to_wait(near + 1, address), "freed twice");
            assert_eq!(self.heap.free_large(address), Err(FreeError::NotAnAllocation));
        }
        self.live.swap_remove(which);
        self.waits.retain(|waits| waits.start != address / PAGE);
        self.waits.push(Waits { start: address / PAGE, pages, place: near % PLACES });
    }

    /// Whether a span still waits.
    fn still_waits(&self, waits: &Waits) -> bool {
        // SAFETY: one thread: what the map names is there.
        let span = self.heap.map().span(waits.start * PAGE).map(|span| unsafe { span.as_ref() });
        let is_it = |span: &Span| (span.start(), span.pages()) == (waits.start, waits.pages);
        span.is_some_and(|span| span.state() == State::Waiting && is_it(span))
    }

    pub(super) fn anything_waits(&self) -> bool {
        self.waits.iter().any(|waits| self.still_waits(waits))
    }

    /// Allocates what waits, near to somebody or anywhere else.
    pub(super) fn alloc_waiting(&mut self, pages: usize, near: usize, elsewhere: bool) {
        let waits: Vec<_> = self.waits.drain(..).collect();
        self.waits = waits.into_iter().filter(|waits| self.still_waits(waits)).collect();
        let here = |waits: &Waits| (waits.place == near % PLACES) != elsewhere;
        let fits = |waits: &Waits| (pages..=pages + pages / 8).contains(&waits.pages);
        let known = self.waits.iter().any(|waits| here(waits) && fits(waits));
        let span = match elsewhere {
            true => self.heap.alloc_waiting_elsewhere(near, pages),
            false => self.heap.alloc_waiting(near, pages),
        };
        assert_eq!(span.is_some(), known, "{pages} pages");
        let Some(span) = span else { return };
        // SAFETY: the span is ours.
        let (start, pages) = unsafe { (span.as_ref().start(), span.as_ref().pages()) };
        let found = self.waits.iter().position(|waits| waits.start == start);
        let waits = self.waits.swap_remove(found.expect("one that waits"));
        assert!(here(&waits) && fits(&waits) && waits.pages == pages);
        // SAFETY: as above.
        assert!(!unsafe { span.as_ref() }.was_zeroed(), "it was used");
        self.add(span, State::Large, pages, 1, None);
    }
}
