//! Where pages come from and go back to.

use core::ptr::NonNull;

use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::atomic::{AtomicUsize, Ordering};
use tiermalloc_sync::sys;

/// A supplier of address space and memory: the operating system, or a test's stand-in that refuses.
///
/// All lengths are in bytes and multiples of [`PAGE_SIZE`].
///
/// # Safety
/// `reserve` returns memory of that length that is zero, aligned to [`PAGE_SIZE`] and to the operating
/// system's pages, readable and writable, used by nobody else, and valid until `release`. After `decommit` returned true the
/// range reads zero.
pub unsafe trait PageSource {
    /// Size of the operating system's pages: what `decommit` can give back at the least.
    fn os_page_size(&self) -> usize;

    /// `bytes` bytes of zeroed memory, or `None`. It should cost nothing until touched.
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// [`reserve`](Self::reserve) for a region that stays: best next to the last one, so that spans can
    /// merge across.
    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.reserve(bytes)
    }

    /// Gives memory and addresses back; any part of what `reserve` gave. `false`: the source keeps
    /// them mapped, and the caller keeps them.
    ///
    /// # Safety
    /// The range came from `reserve` and is not used any more.
    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Gives the memory back and keeps the addresses. `false`: nothing has changed.
    ///
    /// # Safety
    /// The range is within what `reserve` gave, in whole OS pages, and nobody needs its contents.
    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool;

    /// Makes a range that one `reserve` gave longer or shorter where it is. `false`: it cannot, and
    /// nothing has changed. What is new is zero.
    ///
    /// # Safety
    /// The range is one whole reservation; when it shrinks, its end is not used any more.
    unsafe fn resize_in_place(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        let _ = (start, old, new);
        false
    }

    /// Moves a range that one `reserve` gave, contents and all, onto a larger one, without copying.
    /// `false`: it cannot, and nothing has changed. What is new is zero.
    ///
    /// # Safety
    /// Both ranges are whole reservations; nothing of the target is in use, and on success nothing
    /// of the old range, which belongs to the source again.
    unsafe fn move_onto(
        &self,
        start: NonNull<u8>,
        old: usize,
        target: NonNull<u8>,
        new: usize,
    ) -> bool {
        let _ = (start, old, target, new);
        false
    }

    /// Makes memory inaccessible, so that a touch ends the program at once. `false`: it cannot, and
    /// nothing has changed. Such memory is given back by `release` like any other.
    ///
    /// # Safety
    /// The range is within what `reserve` gave, in whole OS pages, and nobody touches it any more.
    unsafe fn forbid(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let _ = (start, bytes);
        false
    }

    /// A coarse clock in milliseconds, for deciding what has been idle for long. A source without
    /// one answers 0 for ever, and nothing is ever found idle.
    fn now_ms(&self) -> u64 {
        0
    }
}

// SAFETY: passed on to the source behind the reference.
unsafe impl<S: PageSource + ?Sized> PageSource for &S {
    fn os_page_size(&self) -> usize {
        (**self).os_page_size()
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        (**self).reserve(bytes)
    }
    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        (**self).reserve_region(bytes)
    }
    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).release(start, bytes) }
    }
    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).decommit(start, bytes) }
    }
    unsafe fn resize_in_place(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).resize_in_place(start, old, new) }
    }
    unsafe fn move_onto(
        &self,
        start: NonNull<u8>,
        old: usize,
        target: NonNull<u8>,
        new: usize,
    ) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).move_onto(start, old, target, new) }
    }
    unsafe fn forbid(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).forbid(start, bytes) }
    }
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }
}

/// The kernel, by system calls that leave `errno` alone. No `std`, no state but a hint.
#[derive(Debug)]
pub struct OsPages {
    /// Start of the newest region: the next one is asked for right below it, where kernels that hand
    /// out addresses from the top down would put it anyway, so that spans can merge across. Mappings
    /// that come and go take no part in it: they fill the gaps that others have left.
    lowest: AtomicUsize,
}

impl OsPages {
    /// The kernel.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { lowest: AtomicUsize::new(0) }
    }

    fn reserve_at(&self, hint: usize, bytes: usize) -> Option<NonNull<u8>> {
        // With OS pages larger than ours the ends of a mapping round up to theirs.
        let mapped = bytes.checked_next_multiple_of(sys::os_page_size())?;
        let mut start = sys::map_anonymous(hint, mapped)?;
        if start % PAGE_SIZE != 0 {
            // SAFETY: the mapping is ours and nobody has seen it.
            unsafe { sys::unmap(start, mapped) };
            start = self.reserve_aligned(mapped)?;
        }
        NonNull::new(start as *mut u8)
    }

    /// A mapping that is not aligned is exchanged for a larger one whose ends are cut off.
    fn reserve_aligned(&self, bytes: usize) -> Option<usize> {
        let start = sys::map_anonymous(0, bytes.checked_add(PAGE_SIZE)?)?;
        let aligned = start.next_multiple_of(PAGE_SIZE);
        let (head, tail) = (aligned - start, start + PAGE_SIZE - aligned);
        // SAFETY: both ends are ours and nobody has seen them.
        unsafe {
            if head > 0 {
                sys::unmap(start, head);
            }
            if tail > 0 {
                sys::unmap(aligned + bytes, tail);
            }
        }
        Some(aligned)
    }
}

// SAFETY: anonymous private mappings are zero and ours alone until unmapped.
unsafe impl PageSource for OsPages {
    fn os_page_size(&self) -> usize {
        sys::os_page_size()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.reserve_at(0, bytes)
    }

    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        let below = self.lowest.load(Ordering::Relaxed).saturating_sub(bytes);
        let region = self.reserve_at(below & !(PAGE_SIZE - 1), bytes)?;
        self.lowest.store(region.as_ptr() as usize, Ordering::Relaxed);
        Some(region)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        let os = sys::os_page_size();
        if (address | bytes) % os != 0 {
            return false;
        }
        // SAFETY: passed on to the caller.
        unsafe { sys::unmap(address, bytes) }
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { sys::decommit(start.as_ptr() as usize, bytes) }
    }

    unsafe fn resize_in_place(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { sys::remap_in_place(start.as_ptr() as usize, old, new) }
    }

    unsafe fn move_onto(
        &self,
        start: NonNull<u8>,
        old: usize,
        target: NonNull<u8>,
        new: usize,
    ) -> bool {
        let (from, to) = (start.as_ptr() as usize, target.as_ptr() as usize);
        // Some kernels unmap the target before they look at the source: look first.
        // SAFETY: passed on to the caller.
        if !unsafe { sys::may_move(from, old, new) } {
            return false;
        }
        // SAFETY: passed on to the caller.
        if unsafe { sys::remap_onto(from, old, new, to) } {
            return true;
        }
        // Such a kernel, out of memory in between: the target has to be the caller's again.
        sys::map_if_vacant(to, new);
        false
    }

    unsafe fn forbid(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { sys::forbid(start.as_ptr() as usize, bytes) }
    }

    fn now_ms(&self) -> u64 {
        sys::now_ms()
    }
}
