//! Pages from the `memmap2` crate, for tier users and platforms without a source of their own.

#![cfg(feature = "memmap2")]

use core::ptr::NonNull;
use std::sync::Mutex;
use std::vec::Vec;

use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use tiermalloc_size_class::PAGE_SIZE;

use crate::source::PageSource;

/// A [`PageSource`] over `memmap2`. It needs `std` and keeps its mappings in a vector, so it is for
/// heaps that are *not* the program's global allocator.
///
/// What was not released stays mapped when the source is dropped: leaves of a page map lie in it, and
/// the map may be read for as long as it lives.
#[derive(Debug, Default)]
pub struct MemmapPages {
    maps: Mutex<Vec<MmapMut>>,
}

impl MemmapPages {
    /// A source without mappings.
    pub const fn new() -> Self {
        Self { maps: Mutex::new(Vec::new()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<MmapMut>> {
        // A thread that panicked while it held the lock left the vector whole.
        self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for MemmapPages {
    fn drop(&mut self) {
        self.lock().drain(..).for_each(core::mem::forget);
    }
}

// SAFETY: anonymous mappings are zero and live until released; memmap2 aligns to OS pages, and one
// page of ours is added to align to ours.
unsafe impl PageSource for MemmapPages {
    fn os_page_size(&self) -> usize {
        tiermalloc_sync::sys::os_page_size()
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut map = MmapOptions::new()
            .len(bytes.checked_add(PAGE_SIZE)?)
            .no_reserve_swap()
            .map_anon()
            .ok()?;
        let start = (map.as_mut_ptr() as usize).next_multiple_of(PAGE_SIZE);
        self.lock().push(map);
        NonNull::new(start as *mut u8)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        let mut maps = self.lock();
        let whole = maps.iter().position(|map| {
            (map.as_ptr() as usize).next_multiple_of(PAGE_SIZE) == address
                && map.len() == bytes + PAGE_SIZE
        });
        whole.map(|index| maps.swap_remove(index)).is_some()
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        let maps = self.lock();
        maps.iter()
            .find_map(|map| {
                let offset = address.checked_sub(map.as_ptr() as usize)?;
                (offset + bytes <= map.len()).then_some((map, offset))
            })
            .is_some_and(|(map, offset)| {
                // SAFETY: passed on to the caller: nobody needs what the pages hold.
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, bytes) }
                    .is_ok()
            })
    }
}
