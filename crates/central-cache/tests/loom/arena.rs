//! What the models of the upper tiers share: pages for a page heap, and who holds which object.
//!
//! The models of the thread cache take this file as theirs.
// Each of them uses a part of it.
#![allow(dead_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool as StdBool, AtomicUsize as StdUsize, Ordering};

use loom::cell::UnsafeCell;
use tiermalloc_page_heap::{PageHeap, PageSource, Span};
use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_size_class::{Class, PAGE_SIZE, by_size};
use tiermalloc_sync::DefaultRawMutex;

/// Two objects a span, two objects a batch, one batch in the transfer cache: 7 pages a span, which has a colour.
pub const PAIR: usize = 27776;
/// One object a span and a batch: 5 pages a span.
pub const SINGLE: usize = 39040;
/// Objects that cost a budget little; no two of any class begin between two multiples of it.
pub const SMALL: usize = 4096;
/// For a slow step that costs a budget next to nothing; one object of it at a time.
pub const TINY: usize = 64;

/// Pages that the map can hold.
const MAP_PAGES: usize = 64;
const ARENA_PAGES: usize = 40;
/// What the heap takes for its records is larger than any region of these models.
const RECORDS: usize = 128 * 1024;

pub type Map = PageMap<Span, 2, MAP_PAGES>;
pub type Heap = PageHeap<'static, DefaultRawMutex, Arena, 2, MAP_PAGES>;

/// The class of exactly this size.
pub fn class(size: usize) -> Class {
    by_size().find(|class| class.size() == size).expect("a class of this size")
}

/// Regions out of one piece of memory, from the top down; records from elsewhere. Std's own locks and
/// atomics: loom switches threads only at its own, so these add nothing to explore.
pub struct Arena {
    start: usize,
    left: StdUsize,
    records: StdMutex<Vec<usize>>,
}

/// Aligned so that the borders inside the map lie alike in every execution: models are deterministic.
const ARENA: Layout = layout(ARENA_PAGES * PAGE_SIZE, MAP_PAGES * PAGE_SIZE);
const RECORD_CHUNK: Layout = layout(RECORDS, PAGE_SIZE);

const fn layout(bytes: usize, align: usize) -> Layout {
    match Layout::from_size_align(bytes, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    }
}

impl Arena {
    pub fn new() -> Self {
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(ARENA) } as usize;
        Self { start, left: StdUsize::new(ARENA.size()), records: StdMutex::new(Vec::new()) }
    }

    /// The pages of all regions, by their addresses.
    pub fn pages(&self) -> impl Iterator<Item = usize> + use<> {
        let first = self.start + self.left.load(Ordering::Relaxed);
        (first..self.start + ARENA.size()).step_by(PAGE_SIZE)
    }

    /// What all regions hold, as a fork copies it.
    pub fn copy(&self) -> Vec<u8> {
        let left = self.left.load(Ordering::Relaxed);
        // SAFETY: the arena's own memory; loom runs one thread at a time.
        unsafe { std::slice::from_raw_parts((self.start + left) as *const u8, ARENA.size() - left) }
            .to_vec()
    }

    /// Puts a [`copy`](Self::copy) back.
    ///
    /// # Safety
    /// Nobody but those who were there when it was made looks at the memory any more.
    pub unsafe fn restore(&self, copy: &[u8]) {
        let start = self.start + ARENA.size() - copy.len();
        // SAFETY: as above.
        unsafe { (start as *mut u8).copy_from_nonoverlapping(copy.as_ptr(), copy.len()) };
    }

    /// A heap over this arena, and the hands that its objects may be in.
    ///
    /// # Safety
    /// The map outlives the heap.
    pub unsafe fn heap(self, map: &Map) -> (Heap, Hands) {
        // SAFETY: passed on to the caller.
        let map: &'static Map = unsafe { NonNull::from(map).as_ref() };
        // The arena lies in the home window whichever region is the first.
        map.ensure(self.start + ARENA.size() - 1, 1, &NoLeaves).unwrap();
        let hands = Hands::new(self.start);
        (PageHeap::new(map, self), hands)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: taken with these layouts, and the heap over them is gone.
        unsafe {
            dealloc(self.start as *mut u8, ARENA);
            let records = self.records.lock().unwrap();
            records.iter().for_each(|&at| dealloc(at as *mut u8, RECORD_CHUNK));
        }
    }
}

// SAFETY: std's allocator gives zeroed, aligned memory that is ours until the drop.
unsafe impl PageSource for Arena {
    fn os_page_size(&self) -> usize {
        4096
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes == RECORDS {
            // SAFETY: the layout is not empty.
            let chunk = NonNull::new(unsafe { alloc_zeroed(RECORD_CHUNK) })?;
            self.records.lock().unwrap().push(chunk.as_ptr() as usize);
            return Some(chunk);
        }
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes)?;
        self.left.store(left, Ordering::Relaxed);
        NonNull::new((self.start + left) as *mut u8)
    }
    unsafe fn release(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
    unsafe fn decommit(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
}

/// The home window serves all of the arena, so that no leaf is ever needed.
struct NoLeaves;

// SAFETY: it returns nothing.
unsafe impl MapMemory for NoLeaves {
    fn alloc_zeroed(&self, _: Layout) -> Option<NonNull<u8>> {
        None
    }
    unsafe fn free(&self, _: NonNull<u8>, _: Layout) {}
}

/// Who holds what, for each place in the arena where an object may start: whether the program has it, and
/// a cell of loom's, into which whoever gets the object and gives it up writes. An object in two hands is a
/// failure, and so is one that was handed over without the second hand seeing what the first one wrote.
pub struct Hands {
    start: usize,
    held: Vec<StdBool>,
    seen: Vec<UnsafeCell<()>>,
    /// In the child of a fork: it sees all that was written before, whatever the locks say.
    forked: StdBool,
}

impl Hands {
    fn new(start: usize) -> Self {
        let places = ARENA.size() / SMALL;
        Self {
            start,
            held: (0..places).map(|_| StdBool::new(false)).collect(),
            seen: (0..places).map(|_| UnsafeCell::new(())).collect(),
            forked: StdBool::new(false),
        }
    }

    fn replace(&self, object: usize, held: bool) -> bool {
        let place = (object - self.start) / SMALL;
        if !self.is_forked() {
            self.seen[place].with_mut(|_| ());
        }
        self.held[place].swap(held, Ordering::Relaxed)
    }

    /// The caller has been handed an object.
    pub fn receive(&self, object: usize) {
        assert!(!self.replace(object, true), "an object is handed out twice");
    }

    /// The caller is about to give an object up.
    pub fn give_up(&self, object: usize) {
        assert!(self.replace(object, false), "an object is given up twice");
    }

    /// The process is the child of a fork now.
    pub fn fork(&self) {
        self.forked.store(true, Ordering::Relaxed);
    }

    /// Whether the process is one.
    pub fn is_forked(&self) -> bool {
        self.forked.load(Ordering::Relaxed)
    }

    /// Objects that the program has.
    pub fn held(&self) -> usize {
        self.held.iter().filter(|held| held.load(Ordering::Relaxed)).count()
    }
}
