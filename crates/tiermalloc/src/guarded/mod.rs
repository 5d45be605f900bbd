//! The guarded pool: each object on pages of its own, for hunting bugs.
//!
//! ```text
//!   closed │ filling ┊ object │ closed │ filling ┊ object │ closed │ freed, closed ... │ closed
//!          ╰── open pages ────╯        ╰── open pages ────╯
//! ```
//!
//! A touch of a closed page ends the program with SIGSEGV at the faulty instruction: past the end of an object, a
//! page before its start, or anywhere in it once it was freed. What can be written without a touch of a closed page is
//! filling, which is looked at when the object is freed. Freed objects wait in a queue, closed, and their addresses
//! are not used before they have left it.
//!
//! Records are in a page heap's (`arena`); the objects' pages hold nothing of ours but filling. When there are no
//! addresses left, or no mapping (see `pages`), and for what is absurdly long or aligned, the hardened pool serves.
//!
//! # Invariants
//! - K1: what is free in the arena's heap, or waits, is closed and holds nothing.
//! - K2: a block is live, or given up by one thread that is closing it, or in the queue; only from the queue does it
//!   go back to the heap.
//! - K3: the note of a live block never changes; that of a block changes under the queue's lock only.
//!
//! Locks: the queue's, then the arena's heap's.

mod arena;
mod pages;
mod place;

use core::ptr;

use tiermalloc_size_class::{Class, class_of};

use tiermalloc_sync::Patience;
use tiermalloc_sync::atomic::{AtomicPtr, Ordering};

use crate::pools::Beside;
use crate::raw::MIN_ALIGN;
use crate::{config, fatal};

use arena::{Arena, Block, arena};

/// What open pages hold where the object is not.
const FILLING: u8 = 0xa5;
/// Bytes of filling in front of an object: more would cost more than it finds.
const MOST_BEFORE: usize = 256;

/// Makes ready; `false`: there is no memory.
pub(crate) fn prepare() -> bool {
    arena::prepare()
}

/// `size` bytes at `align`, all zero, or null.
pub(crate) fn alloc(size: usize, align: usize) -> *mut u8 {
    let Some(block) = arena().and_then(|arena| arena.alloc(size, align)) else {
        return ptr::null_mut();
    };
    for (start, bytes) in around(&block) {
        // SAFETY: in the block's open pages, which are ours.
        unsafe { (start as *mut u8).write_bytes(FILLING, bytes) };
    }
    block.object() as *mut u8
}

/// Start and length of the filling in front of the object, and of that behind it.
fn around(block: &Block) -> [(usize, usize); 2] {
    let (start, bytes) = block.open();
    if bytes == 0 {
        return [(start, 0); 2];
    }
    let (object, end) = (block.object(), block.object() + block.size);
    let before = (object - start).min(MOST_BEFORE);
    [(object - before, before), (end, start + bytes - end)]
}

/// The live block at `pointer`; what is none ends the program. `None`: it is not one of this pool.
fn live(call: &str, pointer: *mut u8) -> Option<Block> {
    let block = arena()?.block_at(pointer as usize)?;
    expect_live(call, pointer, &block);
    Some(block)
}

/// Whether a live block of this pool starts at `pointer`.
pub(crate) fn is_live(pointer: *mut u8) -> bool {
    let block = arena().and_then(|arena| arena.block_at(pointer as usize));
    block.is_some_and(|block| block.object() == pointer as usize && !block.freed)
}

fn expect_live(call: &str, pointer: *mut u8, block: &Block) {
    if block.object() != pointer as usize {
        fatal::not_the_start(call, pointer, block.object(), block.size);
    }
    if block.freed {
        fatal::freed_before(call, pointer, block.size);
    }
}

/// Frees the block at `pointer`; `false`: it is not one of this pool. `claimed` is the class, or none, that its
/// caller takes it for, if it says so.
///
/// # Safety
/// If it is a live block, it is not used any more.
pub(crate) unsafe fn free(pointer: *mut u8, claimed: Option<Option<Class>>) -> bool {
    let Some(arena) = arena() else { return false };
    let Some(block) = arena.give_up(pointer as usize) else { return false };
    expect_live("free", pointer, &block);
    if let Some(claimed) = claimed {
        let made = class_of(block.size, block.align);
        if claimed != made {
            fatal::wrong_size(pointer, claimed, made);
        }
    }
    expect_filling(pointer, &block);
    // SAFETY: given up above, by this thread.
    unsafe { arena.retire(&block, config::get().quarantine) };
    true
}

fn expect_filling(pointer: *mut u8, block: &Block) {
    for (start, bytes) in around(block) {
        // SAFETY: in the block's open pages, which its owner has given up.
        if let Some(at) = unsafe { first_other(start as *const u8, bytes) } {
            let offset = (start + at).wrapping_sub(pointer as usize) as isize;
            fatal::written_around(pointer, offset, block.size);
        }
    }
}

/// The offset of the first byte that is no filling.
///
/// # Safety
/// `bytes` bytes at `start` are the caller's to read.
unsafe fn first_other(start: *const u8, bytes: usize) -> Option<usize> {
    let word = u64::from_ne_bytes([FILLING; 8]);
    let words = start.cast::<u64>();
    // SAFETY: passed on to the caller.
    let whole = (0..bytes / 8).find(|&at| unsafe { words.add(at).read_unaligned() } != word);
    let from = whole.unwrap_or(bytes / 8) * 8;
    // SAFETY: as above.
    (from..bytes).find(|&at| unsafe { start.add(at).read() } != FILLING)
}

/// Size and alignment that the live block at `pointer` was made for. `None`: it is not one of this pool.
pub(crate) fn made_for(call: &str, pointer: *mut u8) -> Option<(usize, usize)> {
    live(call, pointer).map(|block| (block.size, block.align))
}

/// Ends a program that says of a block that it was made with another size or alignment. `false`: it is not one of
/// this pool.
pub(crate) fn check_claim(pointer: *mut u8, size: usize, align: usize) -> bool {
    let Some(block) = live("free", pointer) else { return false };
    if block.size != size {
        fatal::wrong_bytes(pointer, size, block.size);
    }
    if align.is_power_of_two() && pointer as usize % align.max(MIN_ALIGN) != 0 {
        fatal::wrong_align(pointer, align);
    }
    true
}

/// Empties the queue, so that its addresses can serve.
pub(crate) fn flush() {
    if let Some(arena) = arena() {
        arena.flush();
    }
}

/// Gives back what addresses can be given back.
pub(crate) fn unmap_free() {
    if let Some(arena) = arena() {
        arena.unmap_free();
    }
}

/// What the pool holds. `None`: somebody has had a lock for longer than there is patience.
pub(crate) fn figures(patience: &mut Patience) -> Option<Beside> {
    arena().map_or_else(|| Some(Beside::default()), |arena| arena.figures(patience))
}

/// Takes the locks, before a fork.
pub(crate) fn lock_for_fork() {
    // The very one that is locked is unlocked, also if it is made meanwhile.
    LOCKED.store(
        arena().map_or(ptr::null_mut(), |arena| ptr::from_ref(arena).cast_mut()),
        Ordering::Relaxed,
    );
    if let Some(arena) = locked() {
        arena.lock_for_fork();
    }
}

static LOCKED: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

fn locked() -> Option<&'static Arena> {
    // SAFETY: null, or the arena, which stays.
    unsafe { LOCKED.load(Ordering::Relaxed).as_ref() }
}

/// Gives them up after it, in parent and child.
///
/// # Safety
/// [`lock_for_fork`] was called by the thread that forked.
pub(crate) unsafe fn unlock_after_fork() {
    if let Some(arena) = locked() {
        // SAFETY: passed on to the caller.
        unsafe { arena.unlock_after_fork() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_is_no_filling_is_found() {
        for length in [0, 1, 7, 8, 9, 31, 100] {
            let mut bytes = [FILLING; 101];
            // SAFETY: the bytes are ours, and the one in front of them as well.
            unsafe {
                assert_eq!(first_other(bytes.as_ptr().add(1), length), None);
                for at in 0..length {
                    bytes[1 + at] = 0;
                    assert_eq!(first_other(bytes.as_ptr().add(1), length), Some(at));
                    bytes[1 + at] = FILLING;
                }
            }
        }
    }
}
