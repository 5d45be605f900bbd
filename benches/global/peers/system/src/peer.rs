//! The system's allocator: what a Rust program has that says nothing.

use peer::Peer;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

/// What the program knows of it.
pub const PEER: Peer = Peer { name: "system", package: "", version: glibc, start: peer::nothing };

fn glibc() -> String {
    // SAFETY: returns a constant string of the C library.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}
