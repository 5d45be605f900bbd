//! The typed, shared, safe pool.

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use tiermalloc_sync::{DefaultRawMutex, Mutex};

use crate::{ChunkSource, RawPool};

/// Bytes that a pool takes at once unless told otherwise.
const CHUNK_BYTES: usize = 64 * 1024;

/// A pool of values of one type, for any number of threads; see the crate's documentation.
///
/// `R` is the lock: parking_lot's with the feature of that name, else a four-byte futex lock.
pub struct Pool<T, S: ChunkSource, R = DefaultRawMutex>
where
    R: RawLock,
{
    raw: Mutex<R, RawPool>,
    source: S,
    values: PhantomData<T>,
}

/// What the lock parameter must be: any `lock_api::RawMutex` (under loom: anything).
#[cfg(not(tiermalloc_loom))]
pub use lock_api::RawMutex as RawLock;
/// What the lock parameter must be: under loom, anything.
#[cfg(tiermalloc_loom)]
pub trait RawLock {}
#[cfg(tiermalloc_loom)]
impl<R> RawLock for R {}

impl<T, S: ChunkSource, R: RawLock> Pool<T, S, R> {
    /// An empty pool over `source`; takes no memory yet.
    pub fn new(source: S) -> Self {
        Self::with_chunk_bytes(source, CHUNK_BYTES)
    }

    /// The same with chunks of `bytes` bytes (at least one object is made to fit).
    pub fn with_chunk_bytes(source: S, bytes: usize) -> Self {
        let raw = RawPool::new(Layout::new::<T>(), bytes);
        Self { raw: Mutex::new(raw), source, values: PhantomData }
    }

    /// Puts `value` into the pool. When the source has no memory left, `value` comes back. O(1),
    /// but for a new chunk.
    pub fn insert(&self, value: T) -> Result<Pooled<'_, T, S, R>, T> {
        let Some(memory) = self.raw.lock().take(&self.source) else {
            return Err(value);
        };
        let memory = memory.cast::<T>();
        // SAFETY: the pool hands out memory of T's layout that is ours until given back (P1).
        unsafe { memory.write(value) };
        Ok(Pooled { pool: self, value: memory, owns: PhantomData })
    }

    /// Values in the pool at this moment.
    pub fn live(&self) -> usize {
        self.raw.lock().live()
    }

    /// Bytes taken from the source so far.
    pub fn reserved_bytes(&self) -> usize {
        self.raw.lock().reserved_bytes()
    }
}

impl<T, S: ChunkSource, R: RawLock> Drop for Pool<T, S, R> {
    fn drop(&mut self) {
        // SAFETY: every `Pooled` borrows the pool, so none is left; a forgotten one cannot be
        // reached any more.
        unsafe { self.raw.get_mut().release(&self.source) };
    }
}

impl<T, S: ChunkSource, R: RawLock> fmt::Debug for Pool<T, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// A value that lives in a [`Pool`]; dropping it gives the memory back.
pub struct Pooled<'a, T, S: ChunkSource, R: RawLock = DefaultRawMutex> {
    pool: &'a Pool<T, S, R>,
    value: NonNull<T>,
    owns: PhantomData<T>,
}

// SAFETY: a `Pooled` owns its value as a Box does, and reaches its pool from whichever thread it is
// in, so both have to allow that.
unsafe impl<T: Send, S: ChunkSource + Sync, R: RawLock + Sync> Send for Pooled<'_, T, S, R> {}
// SAFETY: a shared `Pooled` gives shared access to the value and to the pool.
unsafe impl<T: Sync, S: ChunkSource + Sync, R: RawLock + Sync> Sync for Pooled<'_, T, S, R> {}
// SAFETY: the pool itself hands out memory, not values: what it shares is the lock and the source.
unsafe impl<T: Send, S: ChunkSource + Sync, R: RawLock + Sync> Sync for Pool<T, S, R> {}

impl<T, S: ChunkSource, R: RawLock> Deref for Pooled<'_, T, S, R> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the value is initialised and ours until the drop.
        unsafe { self.value.as_ref() }
    }
}

impl<T, S: ChunkSource, R: RawLock> DerefMut for Pooled<'_, T, S, R> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { self.value.as_mut() }
    }
}

impl<T, S: ChunkSource, R: RawLock> Drop for Pooled<'_, T, S, R> {
    fn drop(&mut self) {
        // SAFETY: the value is dropped once, here, and its memory given back once, to its pool.
        unsafe {
            self.value.drop_in_place();
            self.pool.raw.lock().give(self.value.cast());
        }
    }
}

impl<T: fmt::Debug, S: ChunkSource, R: RawLock> fmt::Debug for Pooled<'_, T, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
