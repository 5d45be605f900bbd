//! The library stays loaded.
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
