//! Where in its pages an object lies: arithmetic.
//!
//! ```text
//!   what is before it, closed │ filling │ object │ filling │ closed, at least a page │ the next place
//!                             ╰─ open: whole pages of the system ─╯
//! ```
//!
//! The object's end is as near to the closed page as its alignment permits: the filling behind it is shorter
//! than the alignment, unless that is larger than a page. An object of no bytes has no open page at all.

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};

/// A place for an object, in bytes from its start, which is aligned as the object is and to pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Length of what is open, from the start on.
    pub open: usize,
    /// Where the object starts.
    pub object: usize,
    /// Length of the place.
    pub bytes: usize,
    /// What its start is aligned to.
    pub align: usize,
}

impl Place {
    /// For `size` bytes at `align`, a power of two, where the system's pages have `os` bytes. `None`: that is
    /// absurd.
    pub(super) fn of(size: usize, align: usize, os: usize) -> Option<Self> {
        let most = isize::MAX as usize;
        if size > most || align > most {
            return None;
        }
        let open = size.checked_next_multiple_of(os)?;
        let unit = os.max(PAGE_SIZE);
        let bytes = open.checked_add(os)?.checked_next_multiple_of(unit)?;
        if bytes > most || bytes >> PAGE_SHIFT > u32::MAX as usize {
            return None;
        }
        // Beyond a page the start of the place is the one that is aligned.
        let object = if align > os { 0 } else { open - size.next_multiple_of(align) };
        Some(Self { open, object, bytes, align: align.max(unit) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_where_the_closed_page_begins_as_far_as_its_alignment_permits() {
        for os in [4096, 16384, 65536] {
            for align in (0..22).map(|shift| 1usize << shift) {
                for size in (0..300).chain([4095, 4096, 4097, 8192, 65536, 65537, 1 << 20]) {
                    let place = Place::of(size, align, os).unwrap();
                    let end = place.object + size;
                    assert_eq!(place.object % align.min(os), 0, "{place:?}");
                    assert_eq!(place.align % align, 0, "{place:?}");
                    assert!(end <= place.open && place.open % os == 0, "{place:?}");
                    assert!(place.open - end < align.min(os), "{size} at {align}: {place:?}");
                    assert!(place.bytes >= place.open + os, "{place:?}");
                    assert_eq!(place.bytes % PAGE_SIZE.max(os), 0, "{place:?}");
                    // By its first page it is found.
                    assert!(place.object < PAGE_SIZE.max(os), "{place:?}");
                    assert!(place.open > 0 || size == 0, "{place:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_absurd_has_no_place() {
        for size in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 4096, 1 << 46] {
            assert_eq!(Place::of(size, 16, 4096), None, "{size}");
        }
        assert_eq!(Place::of(1, 1 << 63, 4096), None);
    }
}
