//! Pages that nobody can touch until they are opened.
//!
//! In one of two ways, found out with the first region and for good. *Marks*: the kernel (Linux 6.13) marks single
//! pages in a mapping that is otherwise open, which costs no mapping. *Mappings*: closed pages are a mapping
//! without rights, so that each open place splits it and takes two of the 65,530 mappings that Linux allows by
//! default; so many places may be open at one time ([`MOST_MAPPED`]) that the program has some left.
//!
//! The kernel puts no marks on what a program has locked (`mlock`, `mlockall`). Such a place is closed as a mapping, whole,
//! so that neighbours join; it is opened in both ways then, with marks behind what is open if there can be any, so that it
//! joins those that are marked. From the first such place on all are opened that way.

use core::ptr::NonNull;

use tiermalloc_page_heap::PageSource;
use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use tiermalloc_sync::sys;

const UNKNOWN: u8 = 0;
const MARKS: u8 = 1;
const MAPPINGS: u8 = 2;
/// Marks were possible, and are not everywhere any more.
const EITHER: u8 = 3;

/// Places that are open at one time where each takes mappings.
const MOST_MAPPED: usize = 30_000;

/// The source of regions, closed from their start on; what is taken for records is open.
pub(super) struct ClosedPages {
    way: AtomicU8,
    /// Places that are open.
    open: AtomicUsize,
}

impl ClosedPages {
    pub(super) const fn new() -> Self {
        Self { way: AtomicU8::new(UNKNOWN), open: AtomicUsize::new(0) }
    }

    fn way(&self) -> u8 {
        // Relaxed: a number, which was written before the region, or the page, was handed out that it matters for.
        self.way.load(Ordering::Relaxed)
    }

    /// Decides on a way if nothing is decided yet, and returns what is.
    fn decide(&self, way: u8) -> u8 {
        let decided = self.way.compare_exchange(UNKNOWN, way, Ordering::Relaxed, Ordering::Relaxed);
        decided.map_or_else(|before| before, |_| way)
    }

    /// Opens the first `bytes` bytes of a place of `whole`; they are zero. `false`: that cannot be.
    ///
    /// # Safety
    /// The place is closed, and the caller's.
    pub(super) unsafe fn open(&self, start: usize, bytes: usize, whole: usize) -> bool {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        let opened = unsafe {
            match self.way() {
                MARKS => sys::unmark_closed(start, bytes),
                EITHER => {
                    // In this order what cannot be opened stays closed, and what lies behind is at no moment open: it is marked
                    // before it may be, or stays as it is.
                    before < MOST_MAPPED && {
                        let marked = sys::mark_closed(start + bytes, whole - bytes);
                        sys::unmark_closed(start, bytes)
                            && sys::allow(start, if marked { whole } else { bytes })
                    }
                }
                _ => before < MOST_MAPPED && sys::allow(start, bytes),
            }
        };
        if !opened {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        opened
    }

    /// Closes what was opened, and drops what it holds. `false`: that cannot be done in a way that could be undone, as
    /// where the process has as many mappings as it may have; they are to be left alone. Of the `whole` bytes of the
    /// place those behind the first `bytes` are closed already.
    ///
    /// # Safety
    /// The place is the caller's, its first `bytes` were opened in one piece, and nobody needs what they hold.
    pub(super) unsafe fn close(&self, start: usize, bytes: usize, whole: usize) -> bool {
        self.open.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        unsafe {
            let closed = match self.way() {
                MAPPINGS => sys::close_anew(start, bytes),
                _ if sys::mark_closed(start, bytes) => true,
                _ => {
                    // Relaxed: whoever opens these pages has them from a list, under its lock.
                    self.way.store(EITHER, Ordering::Relaxed);
                    // What is closed behind the pages may be so by marks: in a mapping like those that were open.
                    sys::close_anew(start, whole)
                }
            };
            closed || {
                sys::decommit(start, bytes);
                sys::forbid(start, bytes);
                false
            }
        }
    }

    /// A region in the way of marks, if this kernel has them.
    fn marked(&self, bytes: usize) -> Option<usize> {
        let start = sys::map_unreserved(bytes)?;
        // An emulator may say that it has done what it does not know.
        // SAFETY: mapped a moment ago, and seen by nobody.
        let closed = unsafe { sys::mark_closed(start, bytes) } && !sys::can_read_zero(start);
        let way = if closed { MARKS } else { MAPPINGS };
        let decided = self.decide(way);
        if decided == way && closed {
            return Some(start);
        }
        if decided == MARKS {
            // Relaxed: whoever opens pages of a region has seen the region, which comes later.
            self.way.store(EITHER, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { sys::unmap(start, bytes) };
        None
    }

    fn closed(&self, bytes: usize) -> Option<usize> {
        if matches!(self.way(), UNKNOWN | MARKS) {
            if let Some(start) = self.marked(bytes) {
                return Some(start);
            }
        }
        if self.decide(MAPPINGS) == MARKS { None } else { sys::map_closed(bytes) }
    }
}

/// Aligned as the heap wants it: the ends of a longer mapping are cut off.
fn aligned(bytes: usize, unit: usize, map: impl FnOnce(usize) -> Option<usize>) -> Option<usize> {
    let longer = bytes.checked_next_multiple_of(unit)?.checked_add(unit)?;
    let start = map(longer)?;
    let first = start.next_multiple_of(unit);
    let (head, tail) = (first - start, start + longer - first - bytes.next_multiple_of(unit));
    // SAFETY: both ends are ours and nobody has seen them.
    unsafe {
        if head > 0 {
            sys::unmap(start, head);
        }
        if tail > 0 {
            sys::unmap(start + longer - tail, tail);
        }
    }
    Some(first)
}

// SAFETY: mappings are zero and ours alone until unmapped. A region is closed and not readable, which its heap never
// touches; who opens a part of it finds it zero, because closing dropped what was there.
unsafe impl PageSource for ClosedPages {
    fn os_page_size(&self) -> usize {
        sys::os_page_size()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let unit = sys::os_page_size().max(PAGE_SIZE);
        let start = aligned(bytes, unit, |bytes| sys::map_anonymous(0, bytes))?;
        NonNull::new(start as *mut u8)
    }

    /// A closed page stays in front of each region, for its first object.
    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        let unit = sys::os_page_size().max(PAGE_SIZE);
        let start = aligned(bytes.checked_add(unit)?, unit, |bytes| self.closed(bytes))?;
        NonNull::new((start + unit) as *mut u8)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { sys::unmap(start.as_ptr() as usize, bytes) }
    }

    /// Nothing: what is free is closed, and holds nothing.
    unsafe fn decommit(&self, _start: NonNull<u8>, _bytes: usize) -> bool {
        true
    }

    fn now_ms(&self) -> u64 {
        sys::now_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens and closes, in each way that the kernel has.
    #[test]
    fn what_is_closed_cannot_be_read_and_what_is_opened_again_is_zero() {
        let mut found = UNKNOWN;
        for forced in [UNKNOWN, MAPPINGS, EITHER] {
            if forced == EITHER && found != MARKS {
                continue;
            }
            let pages = ClosedPages::new();
            pages.way.store(forced, Ordering::Relaxed);
            let os = pages.os_page_size();
            let region = pages.reserve_region(64 * PAGE_SIZE.max(os)).unwrap().as_ptr() as usize;
            let readable = |page: usize| sys::can_read_zero(region + page * os);
            assert!(!readable(0) && !readable(1) && !readable(5));
            // SAFETY: the region is ours; what is written to is open.
            unsafe {
                for _ in 0..3 {
                    assert!(pages.open(region + os, os, 2 * os));
                    assert!(!readable(0) && readable(1) && !readable(2));
                    ((region + os) as *mut u8).write_bytes(7, os);
                    assert!(pages.close(region + os, os, 2 * os));
                    assert!(!readable(1));
                }
                assert!(pages.open(region + os, 3 * os, 4 * os));
                assert!((0..3 * os).all(|at| ((region + os + at) as *const u8).read() == 0));
                assert!(pages.close(region + os, 3 * os, 4 * os));
            }
            assert_eq!(pages.open.load(Ordering::Relaxed), 0);
            if forced == UNKNOWN {
                found = pages.way();
            }
        }
    }
}
