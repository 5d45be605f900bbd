//! The page map: from a page number to the span that covers the page and its size class.
//!
//! It is what tells a bare `free(pointer)` where the pointer belongs, and the only thing that two
//! tiers share. Reading takes no lock and is safe for any address whatever: null, the stack,
//! garbage, kernel addresses. What is not ours has class 0 and no span.
//!
//! # Shape
//!
//! ```text
//!   address   63       57 56      48 47          31 30          13 12       0
//!            |  nothing  |   far    |     root     |     leaf     |  in page |
//!                             |            |              |
//!   far: 511 roots -----------'            |              |     for 5-level paging
//!   root: 2^17 pointers (1 MiB) -----------'              |     one leaf per 2 GiB
//!   leaf: 2^18 class bytes, then 2^18 span pointers ------'     2.25 MiB
//!
//!   home: one leaf inside the map, placed around the first region that the heap takes
//! ```
//!
//! Root, home and leaves are zero until used, so they cost addresses and no memory: a page of the
//! operating system becomes resident where an entry is written. Class bytes lie apart from the
//! pointers, 4,096 of them on one OS page, because `free` reads only those.
//!
//! The *home* leaf holds the first 2 GiB of nearly every heap; it needs no walk through the root:
//! one subtraction, one comparison, one byte. Each page has exactly one place in the map: in the
//! home leaf when it lies in its window, else in the tree.
//!
//! # Invariants
//! - M1: the home window is chosen once, by the first [`PageMap::ensure`], before any entry is set.
//! - M2: a leaf, once published, stays where it is for the life of the map.
//! - M3: an entry's span pointer is stored (release) before its class byte, and its class byte
//!   cleared before its span pointer; a reader that sees the pointer (acquire) sees the span.
//! - M4: entries of a page are written only by whoever owns the page: the page heap under its lock,
//!   or the thread to which the page heap has handed the span.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(any(feature = "alloc", tiermalloc_loom))]
extern crate alloc;

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod leaf;

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};
use tiermalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

pub use leaf::Leaf;

/// Entries of the root in the ordinary map: with [`LEAF_ENTRIES`] they cover 48 bits.
pub const ROOT_ENTRIES: usize = 1 << 17;
/// Pages that a leaf of the ordinary map covers (2 GiB of addresses).
pub const LEAF_ENTRIES: usize = 1 << 18;
/// Roots for addresses beyond the first root's: 48 to 57 bits.
const FAR_ROOTS: usize = if cfg!(tiermalloc_loom) { 2 } else { 512 };

/// Where the map takes leaves from.
///
/// # Safety
/// `alloc_zeroed` returns memory of that layout, all bytes zero, that nobody else uses and that
/// stays valid until `free`.
pub unsafe trait MapMemory {
    /// Zeroed memory, or `None` when there is none. It should cost nothing until touched.
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>>;
    /// Takes back what `alloc_zeroed` gave, when another thread was first with the same leaf.
    ///
    /// # Safety
    /// `memory` came from `alloc_zeroed` with this layout and is not used any more.
    unsafe fn free(&self, memory: NonNull<u8>, layout: Layout);
}

/// Why [`PageMap::ensure`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsureError {
    /// The [`MapMemory`] had none left.
    NoMemory,
    /// The addresses lie beyond what the map can hold.
    OutOfRange,
}

type Root<T, const ROOT: usize, const LEAF: usize> = [AtomicPtr<Leaf<T, LEAF>>; ROOT];

/// The map; see the crate's documentation. `T` is the span type, held by pointer only.
///
/// An all-zero `PageMap` is an empty one. With the default sizes it takes some 3.3 MiB of addresses:
/// make it a `static`, or take `PageMap::boxed` (feature `alloc`).
pub struct PageMap<T, const ROOT: usize = ROOT_ENTRIES, const LEAF: usize = LEAF_ENTRIES> {
    /// Address of the first byte of the home window; 0 until M1.
    home_base: AtomicUsize,
    home: Leaf<T, LEAF>,
    root: Root<T, ROOT, LEAF>,
    far: [AtomicPtr<Root<T, ROOT, LEAF>>; FAR_ROOTS],
}

// SAFETY: the map holds pointers to T and never touches what they point to; all its own state is
// atomic.
unsafe impl<T, const ROOT: usize, const LEAF: usize> Sync for PageMap<T, ROOT, LEAF> {}
// SAFETY: as above.
unsafe impl<T, const ROOT: usize, const LEAF: usize> Send for PageMap<T, ROOT, LEAF> {}

impl<T, const ROOT: usize, const LEAF: usize> PageMap<T, ROOT, LEAF> {
    const LEAF_SHIFT: u32 = LEAF.trailing_zeros();
    const ROOT_SHIFT: u32 = ROOT.trailing_zeros();
    /// Bytes of addresses under one leaf.
    const WINDOW: usize = LEAF << PAGE_SHIFT;

    /// An empty map.
    #[cfg(not(tiermalloc_loom))]
    #[allow(clippy::new_without_default)] // a Default would build 3 MiB on the stack
    pub const fn new() -> Self {
        assert!(ROOT.is_power_of_two() && LEAF.is_power_of_two());
        Self {
            home_base: AtomicUsize::new(0),
            home: Leaf::new(),
            root: [const { AtomicPtr::new(ptr::null_mut()) }; ROOT],
            far: [const { AtomicPtr::new(ptr::null_mut()) }; FAR_ROOTS],
        }
    }

    /// An empty map.
    #[cfg(tiermalloc_loom)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            home_base: AtomicUsize::new(0),
            home: Leaf::new(),
            root: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            far: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        }
    }

    /// An empty map on the heap, without a copy on the stack.
    #[cfg(all(feature = "alloc", not(tiermalloc_loom)))]
    pub fn boxed() -> alloc::boxed::Box<Self> {
        let layout = Layout::new::<Self>();
        // SAFETY: the layout is not empty; an all-zero map is valid and empty; Box frees with the
        // same layout.
        unsafe {
            let memory = alloc::alloc::alloc_zeroed(layout).cast::<Self>();
            if memory.is_null() {
                alloc::alloc::handle_alloc_error(layout);
            }
            alloc::boxed::Box::from_raw(memory)
        }
    }

    /// The class id of the page under a live allocation's `address` if it lies in the home window;
    /// `None` says to ask [`class_id`](Self::class_id).
    ///
    /// Cost: five instructions on x86-64. This is the first half of every `free`.
    ///
    /// # Safety
    /// `address` is that of a live allocation, or nobody changes the entry of its page meanwhile. A
    /// live allocation's entry was written before its address was handed out, and stays until it is
    /// freed (M1, M4), so plain reads will do. An address that is neither is read all the same, with
    /// nothing worse than an answer that may be out of date: the window never leaves the map.
    #[inline(always)]
    pub unsafe fn home_class_id(&self, address: usize) -> Option<usize> {
        #[cfg(not(tiermalloc_loom))]
        // SAFETY: passed on to the caller.
        let base = unsafe { self.home_base.as_ptr().read() };
        #[cfg(tiermalloc_loom)]
        let base = self.home_base.load(Ordering::Relaxed);
        let page = address.wrapping_sub(base) >> PAGE_SHIFT;
        if page >= LEAF {
            return None;
        }
        // SAFETY: passed on to the caller; the page lies in the window.
        Some(unsafe { self.home.quiet_class(page) } as usize)
    }

    /// The class id of the page under `address`; 0 when the page serves no class.
    #[inline]
    pub fn class_id(&self, address: usize) -> usize {
        match self.locate(address >> PAGE_SHIFT) {
            Some((leaf, index)) => leaf.class(index) as usize,
            None => 0,
        }
    }

    /// The span under `address`, if the map has one for its page. Acquire: what was written to the
    /// span before it was registered is seen (M3).
    #[inline]
    pub fn span(&self, address: usize) -> Option<NonNull<T>> {
        let (leaf, index) = self.locate(address >> PAGE_SHIFT)?;
        leaf.span(index)
    }

    /// Registers `span` with class id `class` (0: none) for `pages` pages from `page` on.
    ///
    /// # Safety
    /// The pages were covered by [`ensure`](Self::ensure), and M4: the caller owns them.
    pub unsafe fn set(&self, page: usize, pages: usize, span: NonNull<T>, class: u8) {
        for p in page..page + pages {
            if let Some((leaf, index)) = self.locate(p) {
                leaf.set(index, span, class);
            }
        }
    }

    /// Forgets `pages` pages from `page` on.
    ///
    /// # Safety
    /// M4: the caller owns the pages.
    pub unsafe fn clear(&self, page: usize, pages: usize) {
        for p in page..page + pages {
            if let Some((leaf, index)) = self.locate(p) {
                leaf.clear(index);
            }
        }
    }

    /// Makes sure that every page of `[address, address + bytes)` has a place in the map. Nothing
    /// is lost when it fails: leaves made on the way stay for later.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn ensure(
        &self,
        address: usize,
        bytes: usize,
        memory: &impl MapMemory,
    ) -> Result<(), EnsureError> {
        self.choose_home(address);
        let Some(last) = address.checked_add(bytes.max(1) - 1) else {
            return Err(EnsureError::OutOfRange);
        };
        let mut page = address >> PAGE_SHIFT;
        let last = last >> PAGE_SHIFT;
        while page <= last {
            if self.home_index(page).is_none() {
                self.ensure_leaf(page, memory)?;
            }
            // On to the first page of the next leaf, or of the home window, whichever is nearer.
            let next_leaf = ((page >> Self::LEAF_SHIFT) + 1) << Self::LEAF_SHIFT;
            let home_start = self.home_base.load(Ordering::Relaxed) >> PAGE_SHIFT;
            let home_end = home_start + LEAF;
            page = [next_leaf, home_start, home_end]
                .into_iter()
                .filter(|&border| border > page)
                .min()
                .unwrap_or(next_leaf);
        }
        Ok(())
    }

    /// M1: places the home window around `address`, most of it below, because kernels hand out
    /// addresses from the top down.
    fn choose_home(&self, address: usize) {
        if self.home_base.load(Ordering::Relaxed) != 0 {
            return;
        }
        let below = Self::WINDOW - Self::WINDOW / 8;
        let base = (address.saturating_sub(below) & !(PAGE_SIZE - 1)).max(PAGE_SIZE);
        // Relaxed on both: the window is a number, nothing is published by it. Whoever loses uses
        // the winner's.
        let _ =
            self.home_base.compare_exchange(0, base, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    }

    #[inline(always)]
    fn home_index(&self, page: usize) -> Option<usize> {
        let base = self.home_base.load(Ordering::Relaxed) >> PAGE_SHIFT;
        let index = page.wrapping_sub(base);
        (index < LEAF).then_some(index)
    }

    /// The one place of a page in the map.
    #[inline(always)]
    fn locate(&self, page: usize) -> Option<(&Leaf<T, LEAF>, usize)> {
        if let Some(index) = self.home_index(page) {
            return Some((&self.home, index));
        }
        let slot = self.root_slot(page)?;
        // Acquire: pairs with the release in `ensure_leaf`.
        let leaf = slot.load(Ordering::Acquire);
        // SAFETY: a published leaf is valid for the life of the map (M2).
        unsafe { leaf.as_ref() }.map(|leaf| (leaf, page & (LEAF - 1)))
    }

    /// The root entry above a page, if its root exists.
    #[inline(always)]
    fn root_slot(&self, page: usize) -> Option<&AtomicPtr<Leaf<T, LEAF>>> {
        let entry = page >> Self::LEAF_SHIFT;
        if entry < ROOT {
            return Some(&self.root[entry]);
        }
        self.far_slot(entry)
    }

    #[cold]
    fn far_slot(&self, entry: usize) -> Option<&AtomicPtr<Leaf<T, LEAF>>> {
        // Acquire: pairs with the release in `ensure_leaf`.
        let root = self.far.get(entry >> Self::ROOT_SHIFT)?.load(Ordering::Acquire);
        // SAFETY: a published root is valid for the life of the map, like a leaf (M2).
        unsafe { root.as_ref() }.map(|root| &root[entry & (ROOT - 1)])
    }

    fn ensure_leaf(&self, page: usize, memory: &impl MapMemory) -> Result<(), EnsureError> {
        let entry = page >> Self::LEAF_SHIFT;
        if entry >= ROOT {
            let far = self.far.get(entry >> Self::ROOT_SHIFT).ok_or(EnsureError::OutOfRange)?;
            publish(far, memory, |root| {
                // SAFETY: fresh zeroed memory of a root's layout.
                unsafe { init_root::<T, ROOT, LEAF>(root) }
            })?;
        }
        let slot = self.root_slot(page).ok_or(EnsureError::OutOfRange)?;
        publish(slot, memory, |leaf| {
            // SAFETY: fresh zeroed memory of a leaf's layout.
            unsafe { Leaf::init(leaf) }
        })
    }
}

/// An all-zero root is an empty one, but under loom atomics are objects.
///
/// # Safety
/// `root` is fresh, zeroed memory of the root's layout.
unsafe fn init_root<T, const ROOT: usize, const LEAF: usize>(root: *mut Root<T, ROOT, LEAF>) {
    #[cfg(tiermalloc_loom)]
    // SAFETY: passed on to the caller.
    unsafe {
        root.write(core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())));
    }
    #[cfg(not(tiermalloc_loom))]
    let _ = root;
}

/// Makes sure that `slot` points to a node; when two threads do it at once, one node stays.
fn publish<N>(
    slot: &AtomicPtr<N>,
    memory: &impl MapMemory,
    init: impl FnOnce(*mut N),
) -> Result<(), EnsureError> {
    if !slot.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let layout = Layout::new::<N>();
    let fresh = memory.alloc_zeroed(layout).ok_or(EnsureError::NoMemory)?;
    let node = fresh.cast::<N>().as_ptr();
    init(node);
    // Release: a reader that acquires the pointer sees the node as initialised (M2). The failure
    // ordering is relaxed because the winner's node is not touched here.
    if slot.compare_exchange(ptr::null_mut(), node, Ordering::Release, Ordering::Relaxed).is_err() {
        // SAFETY: it came from this memory with this layout, and was never published. Atomics need
        // no drop outside loom, and loom's models use one thread less than that.
        unsafe {
            ptr::drop_in_place(node);
            memory.free(fresh, layout);
        }
    }
    Ok(())
}
