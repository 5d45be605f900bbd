//! Taking regions from the source.

use core::ptr::NonNull;

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};

use crate::heap::PageHeap;
use crate::lock::RawLock;
use crate::meta::Meta;
use crate::source::PageSource;

/// First and smallest step in pages: 1 MiB. Small, so that a small program stays small where the
/// kernel backs whole aligned 2 MiB blocks with huge pages.
const FIRST_STEP: usize = if cfg!(tiermalloc_loom) { 4 } else { 128 };
/// Largest step in pages: 1 GiB of addresses.
const LAST_STEP: usize = 1 << 17;
/// Longest span that a record has room for (pages; 32 TiB).
pub(crate) const MAX_SPAN: usize = u32::MAX as usize;

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Adds a region of at least `pages` pages. The system call is made outside the lock; when several threads lack
    /// pages at once, one adds a region, and the others find it when they try again: whoever has looked for pages when
    /// so many bytes were reserved as `before` says, and not since.
    ///
    /// A step is a quarter of what the heap has, so that there are few and yet little is reserved in
    /// vain; when addresses are short it shrinks down to what is needed.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn grow(&self, pages: usize, before: usize) -> bool {
        let _growing = self.growing.lock();
        let reserved = self.reserved_bytes() >> PAGE_SHIFT;
        // There may be no addresses for another one.
        if reserved > before >> PAGE_SHIFT {
            return true;
        }
        let quarter = (reserved / 4).next_multiple_of(FIRST_STEP).clamp(FIRST_STEP, LAST_STEP);
        let mut step = quarter.max(pages);
        loop {
            if self.add_region(step, self.region_pages(step)) {
                return true;
            }
            if step <= pages {
                return false;
            }
            step = (step / 2).max(pages);
        }
    }

    /// What regions of about so many pages are made of: whole OS pages, for the rest of the last one could be neither used nor given
    /// back, or more if the source likes that (pages).
    fn region_pages(&self, pages: usize) -> usize {
        let unit = self.source.region_unit(pages.saturating_mul(PAGE_SIZE));
        (self.source.os_page_size().max(unit) / PAGE_SIZE).max(1)
    }

    fn add_region(&self, pages: usize, unit: usize) -> bool {
        let Some(pages) = pages.checked_next_multiple_of(unit).filter(|&pages| pages <= MAX_SPAN)
        else {
            return false;
        };
        let Some(region) = self.source.reserve_region(pages * PAGE_SIZE) else {
            return false;
        };
        // SAFETY: the region is fresh.
        let added = unsafe { self.adopt(region, pages) };
        if added {
            let mut inner = self.inner.lock();
            inner.stats.grown += 1;
            inner.stats.grown_pages += pages;
        } else {
            // SAFETY: nobody has seen the region.
            unsafe { self.source.release(region, pages * PAGE_SIZE) };
        }
        added
    }

    /// Makes a region free pages of the heap. `false`: there is no memory for its records.
    ///
    /// # Safety
    /// The region is the caller's, from the source, zero, and in the map with no page.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    unsafe fn adopt(&self, region: NonNull<u8>, pages: usize) -> bool {
        let address = region.as_ptr() as usize;
        if self.map.ensure(address, pages * PAGE_SIZE, &Meta(&self.source)).is_err() {
            return false;
        }
        let mut inner = self.inner.lock();
        let Some(span) = inner.records.span(&self.source, address >> PAGE_SHIFT, pages) else {
            return false;
        };
        let reserved = inner.stats.reserved_pages + pages;
        self.set_reserved(&mut inner, reserved);
        // SAFETY: on no set, in the map with no page, all clean.
        unsafe { self.put_back(&mut inner, span) };
        true
    }

    /// Gives a region back that was not needed. What the source keeps becomes free pages of the heap; if
    /// there is no memory for that either, its addresses are lost.
    ///
    /// # Safety
    /// As for [`adopt`](Self::adopt).
    pub(crate) unsafe fn give_back(&self, region: NonNull<u8>, bytes: usize) {
        // SAFETY: passed on to the caller.
        let _ = unsafe {
            self.source.release(region, bytes) || self.adopt(region, bytes >> PAGE_SHIFT)
        };
    }
}
