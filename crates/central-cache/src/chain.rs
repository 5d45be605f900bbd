//! Objects linked through their first words.

use core::ptr;

/// A chain of free objects of one class: `count` of them from `head` on, each one's first word the
/// address of the next. The last one's first word is null.
///
/// Whoever holds the chain owns the objects. It is a plain value: dropping it loses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// First object, or null when `count` is 0.
    pub head: *mut u8,
    /// Number of objects.
    pub count: usize,
}

impl Chain {
    /// No objects.
    pub const EMPTY: Self = Self { head: ptr::null_mut(), count: 0 };

    /// The object behind `object`.
    ///
    /// # Safety
    /// `object` is a free object whose first word is a link.
    #[inline(always)]
    pub unsafe fn next(object: *mut u8) -> *mut u8 {
        // SAFETY: passed on to the caller; objects are at least 8 bytes long and aligned to 8.
        unsafe { object.cast::<*mut u8>().read() }
    }

    /// Makes `next` the object behind `object`.
    ///
    /// # Safety
    /// `object` is a free object of the caller's.
    #[inline(always)]
    pub unsafe fn link(object: *mut u8, next: *mut u8) {
        // SAFETY: as above.
        unsafe { object.cast::<*mut u8>().write(next) }
    }

    /// Puts an object in front.
    ///
    /// # Safety
    /// `object` is a free object of the caller's, of the chain's class.
    #[inline(always)]
    pub unsafe fn push(&mut self, object: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { Self::link(object, self.head) };
        self.head = object;
        self.count += 1;
    }

    /// Takes the first object off.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline(always)]
    pub unsafe fn pop(&mut self) -> Option<*mut u8> {
        if self.head.is_null() {
            return None;
        }
        let object = self.head;
        // SAFETY: the chain owns it.
        self.head = unsafe { Self::next(object) };
        self.count -= 1;
        Some(object)
    }

    /// Cuts the first `count` objects off; all of them when there are fewer. O(count).
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline]
    pub unsafe fn split(&mut self, count: usize) -> Self {
        if count >= self.count {
            return core::mem::replace(self, Self::EMPTY);
        }
        if count == 0 {
            return Self::EMPTY;
        }
        let first = Self { head: self.head, count };
        let mut last = self.head;
        for _ in 1..count {
            // SAFETY: `count` is less than the chain's, so there is a next one.
            last = unsafe { Self::next(last) };
        }
        // SAFETY: as above.
        unsafe {
            self.head = Self::next(last);
            Self::link(last, ptr::null_mut());
        }
        self.count -= count;
        first
    }
}
