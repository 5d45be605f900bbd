//! The library's own life: it stays loaded, and has a last word.
//!
//! Threads' ends call into it through a pthread key and forks through handlers, so a `dlclose` must
//! not unmap it. A symbol of glibc's "unique" kind that the library itself refers to makes the loader
//! keep the library for the life of the process; no call of `dlopen` on ourselves, no linker option.

use core::arch::global_asm;

global_asm!(
    ".pushsection .data.tiermalloc_pin, \"aw\", %progbits",
    ".p2align 3",
    ".globl __tiermalloc_pin",
    ".type __tiermalloc_pin, %gnu_unique_object",
    ".size __tiermalloc_pin, 8",
    "__tiermalloc_pin:",
    // The reference by name is what makes the loader look the symbol up.
    ".8byte __tiermalloc_pin",
    ".popsection",
);

/// At the start: the fork handlers, before other libraries can register theirs, so that ours are the
/// last before a fork and the first after it. What has allocated by now has done it already.
extern "C" fn at_load() {
    facade::prepare_for_fork();
}

/// The entry in the table of functions that run when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

/// At the end of the program: what its main thread has freed is looked at once (see
/// [`facade::verify`]).
extern "C" fn at_exit() {
    facade::verify();
}

/// The entry in the table of functions that run when a program ends.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;
