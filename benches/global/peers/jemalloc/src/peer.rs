//! jemalloc through `tikv-jemallocator` with its default features, as its documentation says.
//!
//! `background_threads` is left off, as it is by default: it moves purging to another thread, and would
//! be counted as time of that thread here.

use peer::Peer;

#[global_allocator]
static GLOBAL: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the program knows of it.
pub const PEER: Peer =
    Peer { name: "jemalloc", package: "tikv-jemallocator", version: version, start: peer::nothing };

fn version() -> String {
    let mut text: *const std::ffi::c_char = std::ptr::null();
    let mut len = size_of_val(&text);
    // SAFETY: "version" reads a pointer to a constant string into a place of the length given.
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"version".as_ptr(),
            (&raw mut text).cast(),
            &mut len,
            std::ptr::null_mut(),
            0,
        )
    };
    if failed != 0 {
        return String::new();
    }
    // SAFETY: the call succeeded, so this is the string.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    format!("jemalloc {}", text.to_string_lossy())
}
