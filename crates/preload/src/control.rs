//! What a program may tell the allocator while it runs: `tiermalloc_trim` and the like.

/// Gives memory back to the system, all free pages but `keep` bytes. Returns the number of bytes that went back.
#[unsafe(no_mangle)]
pub extern "C" fn tiermalloc_trim(keep: usize) -> usize {
    facade::trim(keep)
}

/// For a thread that will do nothing for long: what its cache holds is there for others.
#[unsafe(no_mangle)]
pub extern "C" fn tiermalloc_thread_idle() {
    facade::thread_idle();
}

/// For a thread that is about to be busy: its cache is there at once.
#[unsafe(no_mangle)]
pub extern "C" fn tiermalloc_thread_busy() {
    facade::thread_busy();
}

/// Sets the soft limit in bytes, 0 for none, and returns the one before.
#[unsafe(no_mangle)]
pub extern "C" fn tiermalloc_set_soft_limit(bytes: usize) -> usize {
    facade::set_soft_limit(bytes)
}

/// Sets the hard limit in bytes, 0 for none, and returns the one before.
#[unsafe(no_mangle)]
pub extern "C" fn tiermalloc_set_hard_limit(bytes: usize) -> usize {
    facade::set_hard_limit(bytes)
}
