//! `libtiermalloc.so` and, as the package `tiermalloc-archive`, `libtiermalloc.a`: the C and C++ surface of tiermalloc, nothing
//! else.
//!
//! - [`c`]: malloc and its family, with glibc's semantics where the standards leave room.
//! - [`aligned`]: the aligned ones.
//! - [`exports`]: the names of all these, glibc's other ones included.
//! - [`lifecycle`]: what happens when the library is loaded, and at its end.
//! - [`control`]: limits, trimming and hints, by names of our own.
//! - [`info`]: malloc_stats, mallinfo and the like; [`xml`], malloc_info's document.
//! - [`figures`]: what `tiermalloc.h` offers of statistics and configuration.
//! - [`cxx`]: operator new and delete.
//! - [`dl`]: the loader; [`deep`], `dlopen` for libraries that look into glibc first.
//!
//! The library is `no_std`: it needs libc and nothing else, so that a program's start pays for
//! nothing else. It is usable from the first instruction: no constructor has to run before `malloc`
//! may be called.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod aligned;
mod c;
mod control;
mod cxx;
#[cfg(all(feature = "dlopen", target_os = "linux", target_env = "gnu"))]
mod deep;
mod dl;
mod exports;
mod figures;
mod info;
mod lifecycle;
mod xml;

/// Nothing here panics; should that be wrong, the program ends with a line that says so.
///
/// It is the first function of the file that linkers get, and its section thereby the first of the code, where what most programs
/// run lies together (docs/architecture.md, Code).
#[unsafe(link_section = ".text.hot.tiermalloc")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    const LINE: &[u8] = b"tiermalloc: internal error\n";
    // SAFETY: the line is readable; abort has no preconditions.
    unsafe {
        libc::write(2, LINE.as_ptr().cast(), LINE.len());
        libc::abort()
    }
}

// The precompiled core refers to the unwinder's entry for Rust, which nothing here calls: what is
// built without optimisation keeps the reference. Weak, so that a program with a Rust runtime of its
// own keeps that one's.
macro_rules! personality {
    ($trap:literal) => {
        core::arch::global_asm!(
            ".weak rust_eh_personality",
            ".hidden rust_eh_personality",
            ".pushsection .text.rust_eh_personality, \"ax\", %progbits",
            "rust_eh_personality:",
            $trap,
            ".popsection",
        );
    };
}
#[cfg(target_arch = "x86_64")]
personality!("ud2");
#[cfg(target_arch = "aarch64")]
personality!("brk 1");

/// Nothing here allocates through Rust. It is there for builds of the whole workspace, in which a
/// feature that another crate's tests ask for may bring `alloc` in.
#[global_allocator]
static GLOBAL: facade::TierMalloc = facade::TierMalloc::new();
