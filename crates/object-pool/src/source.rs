//! Where chunks come from.

use core::alloc::Layout;
use core::ptr::NonNull;

use tiermalloc_sync::sys;

/// A supplier of chunks: tens to hundreds of KiB at a time.
///
/// # Safety
/// `alloc_chunk` returns memory of at least that layout that nobody else uses and that stays valid
/// until `free_chunk`.
pub unsafe trait ChunkSource {
    /// A chunk of that layout, or `None` when there is none. The contents may be anything.
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>>;
    /// Takes a chunk back.
    ///
    /// # Safety
    /// `chunk` came from `alloc_chunk` of this source with this layout and is not used any more.
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout);
}

// SAFETY: passed on to the source behind the reference.
unsafe impl<S: ChunkSource + ?Sized> ChunkSource for &S {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        (**self).alloc_chunk(layout)
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { (**self).free_chunk(chunk, layout) }
    }
}

/// Chunks straight from the operating system, one mapping each. No state, no `std`.
///
/// Chunk alignment is that of the operating system's pages; a larger one is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsChunks;

fn os_bytes(layout: Layout) -> usize {
    layout.size().next_multiple_of(sys::os_page_size())
}

// SAFETY: fresh anonymous mappings belong to the caller until unmapped.
unsafe impl ChunkSource for OsChunks {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.align() > sys::os_page_size() {
            return None;
        }
        NonNull::new(sys::map_anonymous(0, os_bytes(layout))? as *mut u8)
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        // SAFETY: a whole mapping from `alloc_chunk`, given up by the caller.
        unsafe { sys::unmap(chunk.as_ptr() as usize, os_bytes(layout)) };
    }
}

/// Chunks from the `memmap2` crate, for platforms that [`OsChunks`] does not know. Needs `std`.
///
/// The handle of each mapping is kept in the chunk's own first bytes, so that this source, too,
/// never calls the general allocator.
#[cfg(feature = "memmap2")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MemmapChunks;

#[cfg(feature = "memmap2")]
impl MemmapChunks {
    fn with_handle(layout: Layout) -> Option<(Layout, usize)> {
        Layout::new::<memmap2::MmapMut>().extend(layout).ok()
    }
}

// SAFETY: the mapping lives until its handle, inside it, is taken out and dropped.
#[cfg(feature = "memmap2")]
unsafe impl ChunkSource for MemmapChunks {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        // Mappings are aligned to pages of at least this size on every platform.
        if layout.align() > 4096 {
            return None;
        }
        let (whole, offset) = Self::with_handle(layout)?;
        let mut map = memmap2::MmapMut::map_anon(whole.size()).ok()?;
        let start = map.as_mut_ptr();
        // SAFETY: the mapping is large enough and aligned for the handle; moving the handle does
        // not move the mapping.
        unsafe {
            start.cast::<memmap2::MmapMut>().write(map);
            NonNull::new(start.add(offset))
        }
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        if let Some((_, offset)) = Self::with_handle(layout) {
            // SAFETY: `alloc_chunk` put the handle there; dropping it unmaps the chunk.
            unsafe { drop(chunk.as_ptr().sub(offset).cast::<memmap2::MmapMut>().read()) };
        }
    }
}
