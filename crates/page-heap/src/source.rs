//! Where pages come from and go back to.

use core::ptr::NonNull;

use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::atomic::{AtomicU8, AtomicUsize, Ordering};
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

    /// What the length of a region of about so many bytes is best a multiple of (bytes, a power of two).
    fn region_unit(&self, bytes: usize) -> usize {
        let _ = bytes;
        PAGE_SIZE
    }

    /// [`reserve`](Self::reserve) for one allocation, all of which will be used.
    fn reserve_block(&self, bytes: usize) -> Option<NonNull<u8>> {
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

    /// Size of the pages that [`advise`](Self::advise) is about (bytes): 2 MiB, or 0 where there are none such.
    fn block_bytes(&self) -> usize {
        0
    }

    /// Says that a range will soon be used, all of it, so that the largest pages there are would be best behind it;
    /// or that it will not. A hint: what it holds stays as it is.
    ///
    /// # Safety
    /// The range is within what `reserve` gave.
    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, full: bool) {
        let _ = (start, bytes, full);
    }

    /// Whether the largest pages there are come without being asked for.
    fn fills_unasked(&self) -> bool {
        false
    }

    /// Whether there is memory behind the page at an address, which may be anybody's: a hint, and nothing is touched.
    fn is_resident(&self, address: usize) -> bool {
        let _ = address;
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
    fn region_unit(&self, bytes: usize) -> usize {
        (**self).region_unit(bytes)
    }
    fn reserve_block(&self, bytes: usize) -> Option<NonNull<u8>> {
        (**self).reserve_block(bytes)
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
    fn block_bytes(&self) -> usize {
        (**self).block_bytes()
    }
    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, full: bool) {
        // SAFETY: passed on to the caller.
        unsafe { (**self).advise(start, bytes, full) }
    }
    fn fills_unasked(&self) -> bool {
        (**self).fills_unasked()
    }
    fn is_resident(&self, address: usize) -> bool {
        (**self).is_resident(address)
    }
    unsafe fn forbid(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { (**self).forbid(start, bytes) }
    }
    fn now_ms(&self) -> u64 {
        (**self).now_ms()
    }
}

/// What is asked of the kernel about transparent huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HugePages {
    /// Nothing.
    System = 0,
    /// That there be none.
    Never = 1,
    /// That regions and large blocks be made of them, which are aligned so that they can.
    Advise = 2,
    /// That those be made of them that the heap [asks for](PageSource::advise).
    Demand = 3,
}

/// Bytes of a huge page where pages are of 4 KiB; where they are larger, so are these, and too large to align to.
const HUGE_PAGE: usize = 2 << 20;

/// The kernel, by system calls that leave `errno` alone. No `std`, no state but a hint.
#[derive(Debug)]
pub struct OsPages {
    /// Start of the newest region: the next one is asked for right below it, where kernels that hand
    /// out addresses from the top down would put it anyway, so that spans can merge across. Mappings
    /// that come and go take no part in it: they fill the gaps that others have left.
    lowest: AtomicUsize,
    /// A [`HugePages`].
    huge: AtomicU8,
    /// Whether the kernel makes huge pages unasked, once somebody wanted to know: 1 for no, 2 for yes.
    unasked: AtomicU8,
}

impl OsPages {
    /// The kernel.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            lowest: AtomicUsize::new(0),
            huge: AtomicU8::new(HugePages::System as u8),
            unasked: AtomicU8::new(0),
        }
    }

    /// What is asked of the kernel from now on.
    pub fn set_huge_pages(&self, wanted: HugePages) {
        // Relaxed: a number.
        self.huge.store(wanted as u8, Ordering::Relaxed);
    }

    fn huge_pages(&self) -> HugePages {
        match self.huge.load(Ordering::Relaxed) {
            1 => HugePages::Never,
            2 => HugePages::Advise,
            3 => HugePages::Demand,
            _ => HugePages::System,
        }
    }

    /// What a region or block of so many bytes is aligned to.
    fn huge_unit(&self, bytes: usize) -> usize {
        let aligns = match self.huge_pages() {
            HugePages::Advise => true,
            // Small heaps stay small.
            HugePages::Demand => bytes >= HUGE_PAGE,
            _ => false,
        };
        if aligns && sys::os_page_size() == 4096 { HUGE_PAGE } else { PAGE_SIZE }
    }

    /// What was too short for huge pages, and is not any more, where they are asked for everywhere.
    ///
    /// # Safety
    /// The mapping is the caller's.
    unsafe fn note_grown(&self, start: NonNull<u8>, old: usize, new: usize) {
        if old < HUGE_PAGE && new >= HUGE_PAGE && self.huge_pages() == HugePages::Advise {
            // SAFETY: passed on to the caller.
            unsafe { sys::advise_huge(start.as_ptr() as usize, new, true) };
        }
    }

    /// [`reserve_at`](Self::reserve_at) of what may come to consist of huge pages.
    fn reserve_full(&self, hint: usize, bytes: usize) -> Option<NonNull<u8>> {
        let unit = self.huge_unit(bytes);
        if unit == PAGE_SIZE || bytes < HUGE_PAGE {
            return self.reserve_at(hint, bytes, PAGE_SIZE);
        }
        let aligned = self.reserve_at(hint & !(unit - 1), bytes, unit);
        // Where addresses are short, without.
        let memory = aligned.or_else(|| self.reserve_at(hint, bytes, PAGE_SIZE))?;
        if self.huge_pages() == HugePages::Advise {
            // SAFETY: mapped a moment ago.
            unsafe { sys::advise_huge(memory.as_ptr() as usize, bytes, true) };
        }
        Some(memory)
    }

    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn reserve_at(&self, hint: usize, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        // With OS pages larger than ours the ends of a mapping round up to theirs.
        let mapped = bytes.checked_next_multiple_of(sys::os_page_size())?;
        let mut start = sys::map_anonymous(hint, mapped)?;
        if start % align != 0 {
            // SAFETY: the mapping is ours and nobody has seen it.
            unsafe { sys::unmap(start, mapped) };
            start = self.reserve_aligned(mapped, align)?;
        }
        if self.huge_pages() == HugePages::Never {
            // SAFETY: mapped a moment ago.
            unsafe { sys::advise_huge(start, mapped, false) };
        }
        NonNull::new(start as *mut u8)
    }

    /// A mapping that is not aligned is exchanged for a larger one whose ends are cut off.
    fn reserve_aligned(&self, bytes: usize, align: usize) -> Option<usize> {
        let start = sys::map_anonymous(0, bytes.checked_add(align)?)?;
        let aligned = start.next_multiple_of(align);
        let (head, tail) = (aligned - start, start + align - aligned);
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
        self.reserve_at(0, bytes, PAGE_SIZE)
    }

    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        let below = self.lowest.load(Ordering::Relaxed).saturating_sub(bytes);
        let region = self.reserve_full(below, bytes)?;
        self.lowest.store(region.as_ptr() as usize, Ordering::Relaxed);
        Some(region)
    }

    fn region_unit(&self, bytes: usize) -> usize {
        self.huge_unit(bytes)
    }

    fn reserve_block(&self, bytes: usize) -> Option<NonNull<u8>> {
        self.reserve_full(0, bytes)
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
        unsafe {
            let resized = sys::remap_in_place(start.as_ptr() as usize, old, new);
            if resized {
                self.note_grown(start, old, new);
            }
            resized
        }
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
            // SAFETY: as above.
            unsafe { self.note_grown(target, old, new) };
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

    fn block_bytes(&self) -> usize {
        let has = self.huge_pages() == HugePages::Demand && sys::os_page_size() == 4096;
        if has { HUGE_PAGE } else { 0 }
    }

    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, full: bool) {
        // SAFETY: passed on to the caller. A kernel without huge pages says no, and nothing depends on it.
        unsafe { sys::advise_huge(start.as_ptr() as usize, bytes, full) };
    }

    fn fills_unasked(&self) -> bool {
        // Relaxed: a number, the same whoever finds it out.
        let mut known = self.unasked.load(Ordering::Relaxed);
        if known == 0 {
            let Some(unasked) = sys::makes_huge_pages_unasked() else { return false };
            known = 1 + unasked as u8;
            self.unasked.store(known, Ordering::Relaxed);
        }
        known == 2
    }

    fn is_resident(&self, address: usize) -> bool {
        sys::is_resident(address & !(sys::os_page_size() - 1))
    }

    fn now_ms(&self) -> u64 {
        sys::now_ms()
    }
}
