//! Large allocations that change their length where they are.

use core::ptr::NonNull;

use tiermalloc_size_class::PAGE_SHIFT;

use crate::demand::beside;
use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::source::PageSource;
use crate::span::{Span, State};

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Makes the large allocation at `address` `pages` pages long without moving it: by giving its
    /// end back, or by taking the free pages behind it. `false`: nothing has changed.
    ///
    /// # Safety
    /// `address` is a live large allocation of the caller's; when it shrinks, the end is not used
    /// any more.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub unsafe fn resize_large(&self, address: usize, pages: usize) -> bool {
        loop {
            // SAFETY: passed on to the caller.
            match unsafe { self.try_resize_large(address, pages) } {
                Ok(resized) => return resized,
                Err(more) if self.make_room(more) => {}
                Err(_) => return false,
            }
        }
    }

    /// [`resize_large`](Self::resize_large), or how many pages more the hard limit would have to allow.
    ///
    /// # Safety
    /// As for `resize_large`.
    unsafe fn try_resize_large(&self, address: usize, pages: usize) -> Result<bool, usize> {
        let mut inner = self.inner.lock();
        let Some(span) = self.map.span(address) else { return Ok(false) };
        // SAFETY: a live allocation's record is valid, and it is the caller's.
        let record = unsafe { span.as_ref() };
        if record.state() != State::Large || pages == 0 {
            return Ok(false);
        }
        let (start, old) = (record.start(), record.pages());
        if pages <= old {
            if pages == old {
                return Ok(true);
            }
            let Some(rest) = inner.records.span(&self.source, start + pages, old - pages) else {
                return Ok(false);
            };
            inner.set_extent(record, start, pages);
            inner.stats.large_pages -= old - pages;
            inner.beside -= beside(old) - beside(pages);
            // SAFETY: the end is ours now; the allocation's last page is another one (H3).
            unsafe {
                if old > 1 {
                    self.map.clear(start + old - 1, 1);
                }
                self.map.set(start + pages - 1, 1, span, 0);
                rest.as_ref().set_dirty(0, old - pages);
                self.put_back(&mut inner, rest);
            }
            self.after_free(inner);
            return Ok(true);
        }
        let more = pages - old;
        let Some(next) = self.free_behind(&mut inner, record.end(), more) else {
            return Ok(false);
        };
        // SAFETY: records of registered spans are valid under the lock.
        let free: &Span = unsafe { next.as_ref() };
        let (lo, hi) = free.dirty();
        // H6, before anything has changed.
        if !inner.may_commit(more - hi.min(more).saturating_sub(lo)) {
            return Err(more);
        }
        // SAFETY: the neighbour is free and on its set; its record serves the rest of it, or goes
        // back. The allocation's last page moves (H3).
        unsafe {
            inner.remove(free);
            self.map.clear(free.start(), 1);
            self.map.clear(free.end() - 1, 1);
            if old > 1 {
                self.map.clear(start + old - 1, 1);
            }
            let left = free.pages() - more;
            if left > 0 {
                free.set_extent(free.start() + more, left);
                free.set_dirty(lo.max(more) - more, hi.max(more) - more);
                self.register_free(NonNull::from(free));
                inner.insert(free);
            } else {
                inner.records.give_span(next);
            }
            inner.set_extent(record, start, pages);
            self.map.set(start + pages - 1, 1, span, 0);
        }
        inner.stats.large_pages += more;
        inner.beside += beside(pages) - beside(old);
        inner.low_water = inner.low_water.min(inner.stats.dirty_pages);
        if self.note_soft_limit(&inner) {
            drop(inner);
            self.relieve_after_cut();
        }
        Ok(true)
    }

    /// The free span of at least `pages` pages that begins with `page`. What waits may be what it lacks.
    fn free_behind(&self, inner: &mut Inner, page: usize, pages: usize) -> Option<NonNull<Span>> {
        // SAFETY: records of registered spans are valid under the lock. A span that ends with the page does not begin there.
        let fits = |span: &NonNull<Span>| unsafe {
            span.as_ref().start() == page && span.as_ref().pages() >= pages
        };
        let behind = || self.free_neighbour(page).filter(fits);
        if let Some(span) = behind() {
            return Some(span);
        }
        // SAFETY: as above, and H1 for the state.
        let next = unsafe { self.map.span(page << PAGE_SHIFT)?.as_ref() }.state();
        if !self.waiting.any() || !matches!(next, State::Free | State::Waiting) {
            return None;
        }
        self.return_waiting(inner);
        behind()
    }
}
