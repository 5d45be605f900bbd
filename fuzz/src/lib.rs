//! What the targets share that stand above the tiers: requests as a fuzzer makes them, and the model of
//! live blocks.

pub mod live;
pub mod pattern;
pub mod request;

/// What `errno` is before each call that [`keeps_errno`] makes.
const MARK: i32 = 4711;

/// The calling thread's `errno`.
pub fn errno() -> i32 {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub fn set_errno(value: i32) {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = value };
}

/// Makes a call that has to leave `errno` alone, as all that succeed have.
pub fn keeps_errno<T>(call: impl FnOnce() -> T) -> T {
    set_errno(MARK);
    let result = call();
    assert_eq!(errno(), MARK, "the call has changed errno");
    result
}

/// Makes a call that has to set `errno` to this.
pub fn says<T>(expected: i32, call: impl FnOnce() -> T) -> T {
    set_errno(MARK);
    let result = call();
    assert_eq!(errno(), expected, "errno of a call that fails");
    result
}
