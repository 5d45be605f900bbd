//! What the lock parameter must be.

/// Any `lock_api::RawMutex`.
#[cfg(not(tiermalloc_loom))]
pub use lock_api::RawMutex as RawLock;

/// Under loom: anything, because loom's lock stands in.
#[cfg(tiermalloc_loom)]
pub trait RawLock {}
#[cfg(tiermalloc_loom)]
impl<R> RawLock for R {}
