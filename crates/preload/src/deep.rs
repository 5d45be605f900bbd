//! `dlopen` and `dlmopen`, because of `RTLD_DEEPBIND`. Only in `libtiermalloc.so`: the feature `dlopen`.
//!
//! A library that a program opens with that flag looks for each name in itself and in the libraries that it needs before
//! it looks where everybody else does. glibc is among these, so it gets glibc's `malloc` and `free`, and the first
//! block that goes from it to the program, or the other way, ends the program (php opens its modules so, and Samba those
//! of its databases). So before the first such call the names in glibc's own table of symbols are made to
//! stand for the functions here: then there is one heap in the process, whoever looks where. Whoever opens glibc itself
//! looks there too.
//!
//! That costs some ten microseconds and a few pages, and is done where it is needed alone, which is why `dlopen` is here
//! at all. It ends in a jump to the next one: the loader goes by the address that it returns to, to know who is asking
//! (whose `RUNPATH` it searches, whose namespace it is).

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use facade::raw;

use crate::dl::{Open, look};
use crate::{c, exports};

type OpenIn = unsafe extern "C" fn(c_long, *const c_char, c_int) -> *mut c_void;

/// The functions behind ours; 0: not looked for yet.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static OPEN_IN: AtomicUsize = AtomicUsize::new(0);

/// Whether glibc's names stand for ours: not yet; as far as they ever will; or the process that is about it: a child
/// finds that of its parent, whose thread it does not have.
static BOUND: AtomicI32 = AtomicI32::new(NOT);
const NOT: i32 = 0;
const DONE: i32 = -1;

/// How often a thread lets others run while one of them is about it, which takes microseconds.
const TURNS: usize = 10_000;

/// The namespace that the program is in.
const BASE: c_long = 0;

/// See the C library's documentation.
///
/// # Safety
/// As C asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    // SAFETY: passed on to the caller. The last thing that is done here (see the module).
    unsafe { prepared(file, mode)(file, mode) }
}

/// See the C library's documentation.
///
/// # Safety
/// As C asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlmopen(space: c_long, file: *const c_char, mode: c_int) -> *mut c_void {
    // SAFETY: as above.
    unsafe { prepared_in(space, file, mode)(space, file, mode) }
}

/// What to go on with, once it is safe to.
///
/// # Safety
/// The name is null or a string.
#[inline(never)]
unsafe fn prepared(file: *const c_char, mode: c_int) -> Open {
    // SAFETY: passed on to the caller.
    if unsafe { looks_into_glibc(file, mode) } {
        bind();
    }
    match next(&OPEN, c"dlopen") {
        0 => nothing,
        // SAFETY: the function of that name has this type.
        next => unsafe { core::mem::transmute::<usize, Open>(next) },
    }
}

/// [`prepared`], for another namespace perhaps: that has a C library of its own.
///
/// # Safety
/// As for `prepared`.
#[inline(never)]
unsafe fn prepared_in(space: c_long, file: *const c_char, mode: c_int) -> OpenIn {
    // SAFETY: passed on to the caller.
    if space == BASE && unsafe { looks_into_glibc(file, mode) } {
        bind();
    }
    match next(&OPEN_IN, c"dlmopen") {
        0 => nothing_in,
        // SAFETY: as above.
        next => unsafe { core::mem::transmute::<usize, OpenIn>(next) },
    }
}

/// Whether somebody may find glibc's own functions by what is opened.
///
/// # Safety
/// The name is null or a string.
unsafe fn looks_into_glibc(file: *const c_char, mode: c_int) -> bool {
    if mode & libc::RTLD_DEEPBIND != 0 {
        return true;
    }
    // SAFETY: passed on to the caller.
    !file.is_null() && unsafe { CStr::from_ptr(file) }.to_bytes().ends_with(b"libc.so.6")
}

/// The function of that name that would have been called without the one here; 0: none.
fn next(known: &AtomicUsize, name: &CStr) -> usize {
    // Relaxed: whoever looks finds the same.
    match known.load(Ordering::Relaxed) {
        0 => {
            let found = look(libc::RTLD_NEXT, name);
            known.store(found, Ordering::Relaxed);
            found
        }
        found => found,
    }
}

unsafe extern "C" fn nothing(_: *const c_char, _: c_int) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn nothing_in(_: c_long, _: *const c_char, _: c_int) -> *mut c_void {
    ptr::null_mut()
}

/// Makes glibc's names stand for ours, once, if glibc itself allocates here.
#[cold]
fn bind() {
    // SAFETY: no conditions.
    let process = unsafe { libc::getpid() };
    let mut turns = 0;
    loop {
        // Acquire, here and below: pairs with the release at the end, so that whoever goes on finds the table changed. Between
        // a parent and its child the fork orders all.
        match BOUND.load(Ordering::Acquire) {
            DONE => return,
            somebody if somebody == process && turns < TURNS => {
                turns += 1;
                // SAFETY: no conditions.
                unsafe { libc::sched_yield() };
            }
            // A handler has interrupted who is about it.
            somebody if somebody == process => return,
            // Nobody, or a thread of the parent's: what that has begun is gone on with.
            before => {
                let ours =
                    BOUND.compare_exchange(before, process, Ordering::Acquire, Ordering::Relaxed);
                if ours.is_ok() {
                    break;
                }
            }
        }
    }
    // In the pool `system` two names of one heap do no harm, and nothing is ours.
    if facade::config().pool != facade::Pool::System && glibc_allocates_here() {
        // SAFETY: the functions are what the names promise, and glibc's own calls end in them already; of all threads
        // one comes here.
        unsafe { raw::rename_in_c_library(&exports::names()) };
    }
    BOUND.store(DONE, Ordering::Release);
}

/// Whether what glibc allocates on its own is a block of this heap. That is so where this library's functions are the
/// program's, by whatever way they are found; and not where others stand before them that add something to a block, where it
/// is another copy of this library that serves, or none.
fn glibc_allocates_here() -> bool {
    // SAFETY: a string; what is a live block of ours can be freed.
    unsafe {
        let block = libc::strdup(c"".as_ptr()).cast::<c_void>();
        // Somebody else's stays: nobody knows here how to free it.
        let here = raw::is_live(block.cast());
        if here {
            c::free(block);
        }
        here
    }
}
