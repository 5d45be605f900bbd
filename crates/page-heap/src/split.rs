//! Free spans are split when pages are cut out of them, and coalesce when pages come back.

use core::ptr::NonNull;

use tiermalloc_size_class::PAGE_SHIFT;

use crate::demand::{BLOCK, beside};
use crate::grow::MAX_SPAN;
use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::{Span, State};

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Cuts `pages` pages, aligned, out of a free span and gives them a state. In `begun` are then the pages that are
    /// best [filled](Self::fill) once the lock is given up, if any.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn cut(
        &self,
        inner: &mut Inner,
        pages: usize,
        align_pages: usize,
        state: State,
    ) -> Option<NonNull<Span>> {
        // A span of the wanted length may lie well by chance; one that is longer always contains an
        // aligned run.
        let mut found = self.find(inner, pages)?;
        // SAFETY: spans on the sets are valid under the lock.
        let skip = |span: NonNull<Span>| unsafe {
            let start = span.as_ref().start();
            start.next_multiple_of(align_pages) - start
        };
        // SAFETY: as above.
        if unsafe { found.as_ref().pages() } < pages + skip(found) {
            found = self.find(inner, pages.checked_add(align_pages - 1)?)?;
        }
        let head = skip(found);
        self.cut_out_of(inner, found, head, pages, state)
    }

    /// [`cut`](Self::cut) out of a certain free span, `head` pages from its start.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn cut_out_of(
        &self,
        inner: &mut Inner,
        found: NonNull<Span>,
        head: usize,
        pages: usize,
        state: State,
    ) -> Option<NonNull<Span>> {
        // SAFETY: spans on the sets are valid under the lock.
        let span = unsafe { found.as_ref() };
        let (start, length) = (span.start(), span.pages());
        let tail = length - head - pages;
        let (lo, hi) = span.dirty();
        // H6, before anything has changed.
        if inner.limits.any {
            let dirty = hi.min(head + pages).saturating_sub(lo.max(head));
            if !inner.may_commit(pages - dirty) {
                return None;
            }
        }
        // Only where a block begins between the start of the free span and the end of the cut.
        if length >= BLOCK && (start + head + pages - 1) & !(BLOCK - 1) >= start {
            self.note_begun(inner, span, head, pages, state);
        }
        // Records for the parts first: without them nothing has changed yet.
        let head_span = match head {
            0 => None,
            _ => Some(inner.records.span(&self.source, start, head)?),
        };
        let tail_span = match tail {
            0 => None,
            _ => match inner.records.span(&self.source, start + head + pages, tail) {
                Some(record) => Some(record),
                None => {
                    if let Some(record) = head_span {
                        // SAFETY: taken above and not used.
                        unsafe { inner.records.give_span(record) };
                    }
                    return None;
                }
            },
        };
        // SAFETY: the span is on its set; the parts are on none. H3: the old ends of the free span
        // are overwritten by those of its parts or by the new owner's.
        unsafe {
            inner.remove(span);
            self.map.clear(start, 1);
            self.map.clear(start + length - 1, 1);
            span.set_extent(start + head, pages);
            if let Some(part) = head_span {
                part.as_ref().set_dirty(lo.min(head), hi.min(head));
                self.register_free(part);
                inner.insert(part.as_ref());
            }
            if let Some(part) = tail_span {
                let cut = head + pages;
                part.as_ref().set_dirty(lo.max(cut) - cut, hi.max(cut) - cut);
                self.register_free(part);
                inner.insert(part.as_ref());
            }
        }
        span.set_zeroed(hi <= head || lo >= head + pages);
        span.set_state(state);
        inner.low_water = inner.low_water.min(inner.stats.dirty_pages);
        match state {
            State::Objects => inner.stats.object_pages += pages,
            _ => {
                inner.stats.large_pages += pages;
                inner.beside += beside(pages);
                inner.stats.large_spans += 1;
            }
        }
        if inner.limits.any {
            self.note_soft_limit(inner);
        }
        Some(found)
    }

    /// Coalesces a span with its free neighbours (by their state, H1) and puts it into its set.
    ///
    /// # Safety
    /// `span` is the caller's, `Moving`, on no set and in the map with no page; its dirty interval
    /// is set.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn put_back(&self, inner: &mut Inner, span: NonNull<Span>) {
        // SAFETY: the caller's alone; neighbours that are `Free` belong to the heap, whose lock is
        // held.
        unsafe {
            let record = span.as_ref();
            for page in [record.start().wrapping_sub(1), record.end()] {
                let other = self.free_neighbour(page);
                let fits = |o: &NonNull<Span>| record.pages() + o.as_ref().pages() <= MAX_SPAN;
                if let Some(other) = other.filter(fits) {
                    self.absorb(inner, record, other);
                }
            }
            self.register_free(span);
            inner.insert(record);
        }
    }

    /// The free span that begins or ends with `page`.
    pub(crate) fn free_neighbour(&self, page: usize) -> Option<NonNull<Span>> {
        let span = self.map.span(page << PAGE_SHIFT)?;
        // SAFETY: records of registered spans are valid while the heap's lock is held.
        (unsafe { span.as_ref() }.state() == State::Free).then_some(span)
    }

    /// Joins the free neighbour `other` to `span`.
    ///
    /// # Safety
    /// Under the lock: `span` is the caller's, `other` is free, and one ends where the other starts.
    unsafe fn absorb(&self, inner: &mut Inner, span: &Span, other: NonNull<Span>) {
        // SAFETY: passed on to the caller; the record goes back only when nothing refers to it.
        unsafe {
            let right = other.as_ref();
            inner.remove(right);
            self.map.clear(right.start(), 1);
            self.map.clear(right.end() - 1, 1);
            let start = span.start().min(right.start());
            let shift = |s: &Span| {
                let (lo, hi) = s.dirty();
                let by = s.start() - start;
                (hi > lo).then_some((lo + by, hi + by))
            };
            let (lo, hi) = match (shift(span), shift(right)) {
                (Some(a), Some(b)) => (a.0.min(b.0), a.1.max(b.1)),
                (Some(a), None) | (None, Some(a)) => a,
                (None, None) => (0, 0),
            };
            span.set_extent(start, span.pages() + right.pages());
            span.set_dirty(lo, hi);
            inner.records.give_span(other);
        }
    }

    /// H3: a free span is registered with its first and last page.
    ///
    /// # Safety
    /// Under the lock: the pages are the span's.
    pub(crate) unsafe fn register_free(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe {
            self.map.set(span.as_ref().start(), 1, span, 0);
            self.map.set(span.as_ref().end() - 1, 1, span, 0);
        }
    }
}
