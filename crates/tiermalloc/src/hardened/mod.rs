//! The hardened pool: every free is checked at once, and what is free is watched.
//!
//! A thread has no cache here: its word says `DEAD` from its first allocation on, so that both fast
//! paths fall through to the slow ones, which come here. The other pools pay nothing for it.
//!
//! ```text
//!   free ──▶ class as in the page map? live in its span's bits? ──▶ fill ──▶ quarantine
//!                                                                              │ full: the oldest
//!   allocate ◀── filled as it was left? ◀── span ◀── filled as it was left? ◀──╯
//! ```
//!
//! # Invariants
//! - X1: a small object is handed out, in the quarantine, or free in its span's bits. In the last two
//!   cases, once it was handed out, all of it is [`Filling`].
//! - X2: the pool is chosen before the first allocation and for good, so that X1 holds from the start.

mod filling;
mod quarantine;

use core::ptr::{self, NonNull};

use tiermalloc_central_cache::Past;
use tiermalloc_page_heap::Span;
use tiermalloc_size_class::{Class, class_of};
use tiermalloc_sync::Patience;

use crate::config;
use crate::fatal;
use crate::raw::MIN_ALIGN;
use crate::slow::certain;
use crate::state::{CENTRAL, MAP, heap};

use filling::Filling;
use quarantine::{Quarantine, Twice};

/// Freed objects that wait. All zero, so it lies in `.bss` and costs no memory in the other pools.
static QUARANTINE: Quarantine = Quarantine::new();

/// An object of `class`, or null.
pub(crate) fn alloc(class: Class) -> *mut u8 {
    take(class).map_or(ptr::null_mut(), |(object, _)| object.as_ptr())
}

/// An object of `class` whose first `size` bytes are zero, or null.
pub(crate) fn alloc_zeroed(class: Class, size: usize) -> *mut u8 {
    let Some((object, past)) = take(class) else { return ptr::null_mut() };
    if past != Past::Zeroed {
        // SAFETY: objects of the class are at least `size` bytes long.
        unsafe { object.write_bytes(0, size) };
    }
    object.as_ptr()
}

fn take(class: Class) -> Option<(NonNull<u8>, Past)> {
    let (object, past) = CENTRAL.take_one(class)?;
    if past == Past::Used {
        // SAFETY: the object was just taken, so it is ours.
        unsafe { expect_filled(object.as_ptr(), class) };
    }
    Some((object, past))
}

/// Frees an object as one of `class`, which is what its caller takes it for.
///
/// # Safety
/// If it is a live object, it is not used any more.
pub(crate) unsafe fn free(class: Class, object: *mut u8) {
    let owner = Class::from_id(MAP.class_id(object as usize));
    if owner != Some(class) {
        fatal::wrong_size(object, Some(class), owner);
    }
    certain(CENTRAL.check_live(class, object));
    // SAFETY: a live object of the class, given up by the caller.
    unsafe { Filling::chosen().fill(object, class.size()) };
    let mut next = match QUARANTINE.hold(object, class, config::get().quarantine) {
        Ok(overdue) => overdue,
        Err(Twice) => fatal::double_free(object, class),
    };
    while let Some((oldest, its_class)) = next {
        release(oldest, its_class);
        next = QUARANTINE.overdue(object, config::get().quarantine);
    }
}

/// Ends a program that says of an allocation that it was made with another size or alignment. What is no
/// allocation at all is left to the free that follows, and so is an alignment that cannot be.
pub(crate) fn check_claim(pointer: *mut u8, size: usize, align: usize) {
    if !align.is_power_of_two() {
        return;
    }
    // C and C++ never give less.
    let align = align.max(MIN_ALIGN);
    let claimed = class_of(size, align);
    match Class::from_id(MAP.class_id(pointer as usize)) {
        None if !heap().is_large(pointer as usize) => {}
        owner if owner != claimed => fatal::wrong_size(pointer, claimed, owner),
        _ if pointer as usize % align != 0 => fatal::wrong_align(pointer, align),
        _ => {}
    }
}

/// From the quarantine to its span.
fn release(object: *mut u8, class: Class) {
    // SAFETY: X1: it is in the quarantine no more and in its span not yet, so it is ours.
    certain(unsafe {
        expect_filled(object, class);
        CENTRAL.put_one(class, object)
    });
}

/// # Safety
/// The object is ours, or nobody's but for a program that goes wrong.
unsafe fn expect_filled(object: *mut u8, class: Class) {
    // SAFETY: passed on to the caller.
    if let Some(offset) = unsafe { Filling::chosen().first_other(object, class.size()) } {
        fatal::written_after_free(object, offset, class);
    }
}

/// Whole pages between two pages that nobody can touch; `None` when the system has no mapping left.
pub(crate) fn alloc_pages(size: usize, align: usize) -> Option<NonNull<Span>> {
    heap().alloc_guarded(size, align)
}

/// Empties the quarantine, so that its memory can serve.
pub(crate) fn flush() {
    while let Some((object, class)) = QUARANTINE.oldest() {
        release(object, class);
    }
}

/// Looks at what is in the quarantine for traces of a write.
pub(crate) fn verify() {
    QUARANTINE.for_each_at_rest(|object, class| {
        // SAFETY: X1, and the lock of the quarantine keeps it there.
        unsafe { expect_filled(object, class) };
    });
}

/// Calls `each` for the class of every object in the quarantine; `false`: not of all, for want of patience.
pub(crate) fn held(patience: &mut Patience, each: impl FnMut(Class)) -> bool {
    QUARANTINE.classes(patience, each)
}

/// Takes the quarantine's locks, before a fork.
pub(crate) fn lock_for_fork() {
    QUARANTINE.lock_for_fork();
}

/// Gives them up after it, in parent and child.
///
/// # Safety
/// [`lock_for_fork`] was called by the thread that forked.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe { QUARANTINE.unlock_after_fork() };
}
