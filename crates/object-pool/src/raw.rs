//! The untyped pool: one owner, no lock.

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use crate::ChunkSource;

/// Longest chunk that a source is asked for because its user wanted it.
const CHUNK_MAX: usize = isize::MAX as usize / 2;

/// An object on the free list (P2).
struct Free {
    next: *mut Free,
}

/// The first bytes of every chunk: the list of chunks, for the drop.
struct Chunk {
    next: *mut Chunk,
}

/// Objects of one layout, last in first out; see the crate's documentation.
///
/// It does not hold its source, so that it can be `const` and live inside another structure: each
/// call passes the same one.
#[derive(Debug)]
pub struct RawPool {
    object: Layout,
    chunk: Layout,
    free: *mut Free,
    /// The part of the newest chunk that was never handed out: `[bump, end)`.
    bump: *mut u8,
    end: *mut u8,
    chunks: *mut Chunk,
    chunk_count: usize,
    live: usize,
}

// SAFETY: the pool owns its chunks; moving the pool moves nothing that points to it.
unsafe impl Send for RawPool {}

impl RawPool {
    /// An empty pool of objects of `object` layout that takes `chunk_bytes` at a time (rounded up to
    /// hold at least one object). Takes no memory yet.
    ///
    /// # Panics
    /// When one object and its chunk's header are larger than the address space.
    pub const fn new(object: Layout, chunk_bytes: usize) -> Self {
        let align = max(object.align(), align_of::<Free>());
        let size = round_up(max(object.size(), size_of::<Free>()), align);
        // More than any source has is as good as too much, and rounds up without overflow.
        let wanted = if chunk_bytes > CHUNK_MAX { CHUNK_MAX } else { chunk_bytes };
        let chunk_size = max(wanted, round_up(size_of::<Chunk>(), align) + size);
        let chunk_align = max(align, align_of::<Chunk>());
        let (Ok(object), Ok(chunk)) = (
            Layout::from_size_align(size, align),
            Layout::from_size_align(round_up(chunk_size, chunk_align), chunk_align),
        ) else {
            panic!("object or chunk larger than the address space");
        };
        Self {
            object,
            chunk,
            free: ptr::null_mut(),
            bump: ptr::null_mut(),
            end: ptr::null_mut(),
            chunks: ptr::null_mut(),
            chunk_count: 0,
            live: 0,
        }
    }

    /// An uninitialised object, or `None` when the source has no chunk left. O(1).
    #[inline]
    pub fn take(&mut self, source: &impl ChunkSource) -> Option<NonNull<u8>> {
        if let Some(free) = NonNull::new(self.free) {
            // SAFETY: P1 and P2: it is on the free list, so its first word is the pool's.
            self.free = unsafe { free.as_ref().next };
            self.live += 1;
            return Some(free.cast());
        }
        self.take_fresh(source)
    }

    fn take_fresh(&mut self, source: &impl ChunkSource) -> Option<NonNull<u8>> {
        let size = self.object.size();
        if (self.end as usize) - (self.bump as usize) < size {
            self.add_chunk(source)?;
        }
        let object = NonNull::new(self.bump)?;
        // SAFETY: there is room for `size` bytes between `bump` and `end`.
        self.bump = unsafe { self.bump.add(size) };
        self.live += 1;
        Some(object)
    }

    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn add_chunk(&mut self, source: &impl ChunkSource) -> Option<()> {
        let start = source.alloc_chunk(self.chunk)?.as_ptr();
        let first = round_up(size_of::<Chunk>(), self.object.align());
        // SAFETY: the chunk is ours, aligned for `Chunk`, and larger than `first` plus one object.
        unsafe {
            start.cast::<Chunk>().write(Chunk { next: self.chunks });
            self.bump = start.add(first);
            self.end = start.add(self.chunk.size());
        }
        self.chunks = start.cast();
        self.chunk_count += 1;
        Some(())
    }

    /// Takes an object back; the next [`take`](Self::take) returns it. O(1).
    ///
    /// # Safety
    /// `object` came from `take` of this pool, is not used any more, and is given back once.
    #[inline]
    pub unsafe fn give(&mut self, object: NonNull<u8>) {
        let free = object.cast::<Free>().as_ptr();
        // SAFETY: objects are large enough and aligned for `Free`, and this one is ours again.
        unsafe { free.write(Free { next: self.free }) };
        self.free = free;
        self.live -= 1;
    }

    /// Objects handed out and not given back.
    #[inline]
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Bytes at the end of the newest chunk that were never handed out: nobody has touched them.
    pub fn fresh_bytes(&self) -> usize {
        self.end as usize - self.bump as usize
    }

    /// Bytes taken from the source so far.
    #[inline]
    pub const fn reserved_bytes(&self) -> usize {
        self.chunk_count * self.chunk.size()
    }

    /// Gives every chunk back to the source and empties the pool.
    ///
    /// # Safety
    /// No object of the pool is used any more, and `source` is where its chunks came from.
    pub unsafe fn release(&mut self, source: &impl ChunkSource) {
        let mut chunk = self.chunks;
        while let Some(this) = NonNull::new(chunk) {
            // SAFETY: the list holds chunks of this pool, each valid until freed here.
            unsafe {
                chunk = this.as_ref().next;
                source.free_chunk(this.cast(), self.chunk);
            }
        }
        *self = Self::new(self.object, self.chunk.size());
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const fn round_up(n: usize, align: usize) -> usize {
    (n + align - 1) & !(align - 1)
}
