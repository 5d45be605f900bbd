//! The program `tiermalloc`: runs any program on the allocator, and shows what the allocator does.
//!
//! The road of `tiermalloc run PROGRAM ARGS...`:
//!
//! 1. [`args`] reads the command line.
//! 2. [`lookup`] finds the program as `execvp` would.
//! 3. [`library`] finds `libtiermalloc.so`; [`preload`] makes the value of `LD_PRELOAD` from it.
//! 4. [`settings`] makes the values of the variables that the allocator reads.
//! 5. [`check`] reads what the kernel is going to read ([`script`] lines, the [`elf`] header, the
//!    [`privilege`] bits) and refuses when the allocator would silently not be used.
//! 6. [`exec`] becomes the program: the same process, so that its exit status, the signals sent to
//!    it, its terminal and its process group need no passing on.
//!
//! # Why there is no `fn main`
//! Rust's runtime ignores SIGPIPE and opens `/dev/null` for standard descriptors that are closed,
//! and both would be inherited by the program that is run. C's `main` leaves the process as it was
//! given to us. It also makes `tiermalloc classes | head` end like any other tool: by SIGPIPE.
#![cfg_attr(not(test), no_main)]

mod args;
mod check;
mod classes;
mod config;
mod elf;
mod exec;
mod failure;
mod library;
mod lookup;
mod man;
mod manual;
mod output;
mod preload;
mod privilege;
mod run;
mod script;
mod settings;
mod stats;

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use args::Action;

/// The C runtime's entry: see the top of the file.
#[cfg(not(test))]
// SAFETY: no other item of this program or of its libraries is named `main`.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: these are the arguments of C's `main`.
    c_int::from(start(unsafe { arguments(argc, argv) }))
}

/// Copies the arguments of C's `main`.
///
/// # Safety
/// `argv` points to at least `argc` pointers to NUL-terminated strings, as C promises `main`.
#[cfg_attr(test, allow(dead_code))]
unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    (0..usize::try_from(argc).unwrap_or(0))
        .map(|i| {
            // SAFETY: `i` is below `argc`, so by the caller's promise the pointer is there and
            // points to a NUL-terminated string.
            let bytes = unsafe { CStr::from_ptr(*argv.add(i)) }.to_bytes();
            OsStr::from_bytes(bytes).to_owned()
        })
        .collect()
}

/// Does what `arguments` ask for and returns the exit status.
#[cfg_attr(test, allow(dead_code))]
fn start(arguments: Vec<OsString>) -> u8 {
    let outcome = match args::parse(arguments) {
        Ok(Action::Run(options)) => Err(run::run(&options)),
        Ok(Action::Classes { format }) => output::print(&classes::render(format)),
        Ok(Action::Stats(options)) => stats::run(&options),
        Ok(Action::Config(options)) => config::config(&options),
        Ok(Action::Man) => output::print(&man::page(&args::command())),
        Err(status) => return status,
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            failure.status
        }
    }
}
