//! Taking regions from the source.

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

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Adds a region of at least `pages` pages. The system call is made outside the lock; when two
    /// threads grow at once, the heap has two regions.
    ///
    /// A step is a quarter of what the heap has, so that there are few and yet little is reserved in
    /// vain; when addresses are short it shrinks down to what is needed.
    #[cold]
    pub(crate) fn grow(&self, pages: usize) -> bool {
        let reserved = self.inner.lock().stats.reserved_pages;
        let quarter = (reserved / 4).next_multiple_of(FIRST_STEP).clamp(FIRST_STEP, LAST_STEP);
        let mut step = quarter.max(pages);
        loop {
            if self.add_region(step) {
                return true;
            }
            if step <= pages {
                return false;
            }
            step = (step / 2).max(pages);
        }
    }

    fn add_region(&self, pages: usize) -> bool {
        let Some(bytes) =
            pages.checked_mul(PAGE_SIZE).filter(|&bytes| bytes <= isize::MAX as usize)
        else {
            return false;
        };
        let Some(region) = self.source.reserve(bytes) else {
            return false;
        };
        let address = region.as_ptr() as usize;
        let start = address >> PAGE_SHIFT;
        if self.map.ensure(address, bytes, &Meta(&self.source)).is_ok() {
            let mut inner = self.inner.lock();
            if let Some(span) = inner.records.span(&self.source, start, pages) {
                inner.stats.reserved_pages += pages;
                inner.stats.grown += 1;
                // SAFETY: the region is fresh: on no set, in the map with no page, all clean.
                unsafe { self.put_back(&mut inner, span) };
                return true;
            }
        }
        // SAFETY: nobody has seen the region.
        unsafe { self.source.release(region, bytes) };
        false
    }
}
