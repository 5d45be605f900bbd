//! The places of all objects, and the queue of those that were freed.
//!
//! A page heap of its own hands out addresses, with a page map of its own: the two heaps of a process must not take
//! each other's free spans for neighbours. It never touches what its spans are made of, which is closed.

use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{MAP_BYTES, PageHeap, Span, State};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE};
use tiermalloc_sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use tiermalloc_sync::{Mutex, Patience, RawFutexMutex, force_unlock, leak_locked, sys};

use super::pages::ClosedPages;
use super::place::Place;
use crate::pools::Beside;
use crate::state::heap;

/// Blocks in the queue, however small they are: each keeps two pages of addresses and a record of 64 bytes.
const MOST_WAITING: usize = 32 * 1024;

/// Longest place (4 GiB), and largest alignment of one (64 MiB): what is closed costs the kernel 8 bytes for each page,
/// touched or not, and so do the addresses that an alignment passes over. Beyond, the hardened pool serves.
const LONGEST: usize = 4 << 30;
const MOST_ALIGN: usize = 64 << 20;

pub(super) struct Arena {
    map: PageMap<Span>,
    heap: PageHeap<'static, RawFutexMutex, ClosedPages>,
    queue: Mutex<RawFutexMutex, Queue>,
    /// Bytes of live blocks.
    live: AtomicUsize,
    /// Bytes of open pages.
    open: AtomicUsize,
    /// Blocks that were asked for.
    asked: AtomicUsize,
    /// Pages of records and of the map that the limits have been told of.
    told: AtomicUsize,
}

/// What was freed, oldest first, linked through the records.
struct Queue {
    oldest: *mut Span,
    newest: *mut Span,
    blocks: usize,
    bytes: usize,
}

// SAFETY: the records that it refers to are reached under its lock only.
unsafe impl Send for Queue {}

/// A block, as its record has it.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub size: usize,
    pub align: usize,
    pub freed: bool,
    start: usize,
}

/// In the second word of a record's note, beside the alignment.
const FREED: u64 = 1 << 63;

impl Block {
    fn of(span: &Span) -> Self {
        let [size, word] = span.note();
        Self {
            size: size as usize,
            align: (word & !FREED) as usize,
            freed: word & FREED != 0,
            start: span.address(),
        }
    }

    fn note(&self) -> [u64; 2] {
        [self.size as u64, self.align as u64 | if self.freed { FREED } else { 0 }]
    }

    fn place(&self) -> Option<Place> {
        Place::of(self.size, self.align, sys::os_page_size())
    }

    /// Where the object starts.
    pub(super) fn object(&self) -> usize {
        self.start + self.place().map_or(0, |place| place.object)
    }

    /// Length of its place.
    fn bytes(&self) -> usize {
        self.place().map_or(0, |place| place.bytes)
    }

    /// Where the open pages start, and their length.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.start, self.place().map_or(0, |place| place.open))
    }
}

/// Whole pages of the heap's for so many open bytes: what the limits count.
fn pages_of(open: usize) -> usize {
    open.div_ceil(PAGE_SIZE)
}

/// So many blocks are asked for between two looks at what records take (8 KiB of them).
const BLOCKS_PER_LOOK: usize = 128;

/// Null while the pool does not serve.
static ARENA: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());

/// The arena, if the pool serves.
#[inline]
pub(super) fn arena() -> Option<&'static Arena> {
    // SAFETY: stored by `prepare` once it was complete, and never given back.
    unsafe { ARENA.load(Ordering::Acquire).as_ref() }
}

/// Makes the arena, of which there is one; `false`: there is no memory for it. Its 3.3 MiB are addresses, which
/// no other pool pays for; nor for the room on the stack in which a heap is made where the compiler does not make it in place.
#[cold]
#[inline(never)]
pub(super) fn prepare() -> bool {
    if arena().is_some() {
        return true;
    }
    let bytes = size_of::<Arena>().next_multiple_of(sys::os_page_size().max(PAGE_SIZE));
    let Some(start) = sys::map_anonymous(0, bytes) else { return false };
    let arena = start as *mut Arena;
    // SAFETY: fresh memory of that size, zero, aligned to a page, and never given back. All zero is an empty map, and
    // no live bytes.
    unsafe {
        let map: &'static PageMap<Span> = &(*arena).map;
        (&raw mut (*arena).heap).write(PageHeap::new(map, ClosedPages::new()));
        (&raw mut (*arena).queue).write(Mutex::new(Queue::new()));
    }
    ARENA.store(arena, Ordering::Release);
    true
}

impl Arena {
    /// A block of `size` bytes at `align`, open.
    pub(super) fn alloc(&self, size: usize, align: usize) -> Option<Block> {
        let place = Place::of(size, align, sys::os_page_size())?;
        if place.bytes > LONGEST || place.align > MOST_ALIGN {
            return None;
        }
        // The limits are for all that a program has, whoever has made it.
        if !self.tell_of_records() || !heap().commit_elsewhere(pages_of(place.open)) {
            return None;
        }
        let block = self.alloc_at(&place, size, align);
        match block {
            Some(_) => {
                self.open.fetch_add(place.open, Ordering::Relaxed);
            }
            None => heap().uncommit_elsewhere(pages_of(place.open)),
        }
        block
    }

    /// Counts what records and map take, which they keep, now and then. `false`: the hard limit does not allow it.
    fn tell_of_records(&self) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed) % BLOCKS_PER_LOOK != 0 {
            return true;
        }
        let stats = self.heap.stats();
        let bytes = stats.record_bytes + stats.reserved_pages * MAP_BYTES;
        let pages = bytes.div_ceil(PAGE_SIZE);
        // Relaxed: a number.
        let more = pages.saturating_sub(self.told.fetch_max(pages, Ordering::Relaxed));
        let counted = more == 0 || heap().commit_elsewhere(more);
        if !counted {
            self.told.fetch_sub(more, Ordering::Relaxed);
        }
        counted
    }

    fn alloc_at(&self, place: &Place, size: usize, align: usize) -> Option<Block> {
        let (pages, align_pages) = (place.bytes >> PAGE_SHIFT, place.align >> PAGE_SHIFT);
        let span = self.heap.alloc_large(pages, align_pages).or_else(|| {
            // What waits, or lies free in pieces, may be all the addresses that there are.
            self.flush();
            self.heap.alloc_large(pages, align_pages).or_else(|| {
                self.heap.unmap_free();
                self.heap.alloc_large(pages, align_pages)
            })
        })?;
        // SAFETY: just allocated, so the record is ours, and its pages are closed (K1).
        unsafe {
            let record = span.as_ref();
            let block = Block { size, align, freed: false, start: record.address() };
            if place.open > 0 && !self.heap.source().open(block.start, place.open, place.bytes) {
                let _ = self.heap.free_large(block.start);
                return None;
            }
            record.set_note(block.note());
            self.live.fetch_add(size, Ordering::Relaxed);
            Some(block)
        }
    }

    /// The record of the block whose first page `address` lies in.
    fn record_at(&self, address: usize) -> Option<&Span> {
        // SAFETY: records of registered spans are valid; that of a block stays one while it lives or waits.
        let span = unsafe { self.map.span(address)?.as_ref() };
        (span.state() == State::Large).then_some(span)
    }

    /// The block whose first page `address` lies in.
    pub(super) fn block_at(&self, address: usize) -> Option<Block> {
        self.record_at(address).map(Block::of)
    }

    /// Marks the block whose object starts at `address` as freed, and returns it as it was: two threads that free it
    /// see each other. `None`: there is no block.
    pub(super) fn give_up(&self, address: usize) -> Option<Block> {
        let _queue = self.queue.lock();
        let record = self.record_at(address)?;
        let block = Block::of(record);
        if block.object() == address && !block.freed {
            record.set_note(Block { freed: true, ..block }.note());
        }
        Some(block)
    }

    /// Closes a block that was given up, and lets it wait; others leave for it, so that no more than `most` bytes
    /// do.
    ///
    /// # Safety
    /// The block was given up by the caller.
    pub(super) unsafe fn retire(&self, block: &Block, most: usize) {
        self.live.fetch_sub(block.size, Ordering::Relaxed);
        let (start, bytes) = block.open();
        // What cannot be closed stays, and counts.
        // SAFETY: nobody uses the block any more; its pages were opened in one piece, and the rest of its place is closed.
        if bytes > 0 && !unsafe { self.heap.source().close(start, bytes, block.bytes()) } {
            // Its addresses are never used again.
            return;
        }
        self.open.fetch_sub(bytes, Ordering::Relaxed);
        heap().uncommit_elsewhere(pages_of(bytes));
        let mut queue = self.queue.lock();
        if let Some(record) = self.record_at(block.start) {
            queue.push(record);
        }
        while queue.bytes > most || queue.blocks > MOST_WAITING {
            self.leave(&mut queue);
        }
    }

    /// The oldest block's addresses are free.
    fn leave(&self, queue: &mut Queue) {
        if let Some(record) = queue.pop() {
            // SAFETY: an allocation of the heap's, closed, that nobody uses (K2).
            let _ = unsafe { self.heap.free_large(record.as_ref().address()) };
        }
    }

    /// Nothing waits any more.
    pub(super) fn flush(&self) {
        let mut queue = self.queue.lock();
        while queue.blocks > 0 {
            self.leave(&mut queue);
        }
    }

    /// Gives free addresses back.
    pub(super) fn unmap_free(&self) {
        self.heap.unmap_free();
    }

    /// `None`: somebody has had a lock for longer than there is patience.
    pub(super) fn figures(&self, patience: &mut Patience) -> Option<Beside> {
        let pages = self.heap.stats_within(patience)?;
        let (waiting, blocks) = {
            let queue = tiermalloc_sync::lock_within(&self.queue, patience)?;
            (queue.bytes, queue.blocks)
        };
        Some(Beside {
            live: self.live.load(Ordering::Relaxed),
            live_blocks: pages.large_spans.saturating_sub(blocks),
            open: self.open.load(Ordering::Relaxed),
            waiting,
            mapped: (pages.reserved_pages << PAGE_SHIFT) + pages.record_bytes,
            metadata: pages.record_live_bytes,
            touched: pages.record_bytes - pages.record_untouched_bytes,
            metadata_free: pages.record_bytes - pages.record_live_bytes,
        })
    }

    pub(super) fn lock_for_fork(&self) {
        leak_locked(&self.queue);
        self.heap.lock_for_fork();
    }

    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub(super) unsafe fn unlock_after_fork(&self) {
        // SAFETY: passed on to the caller.
        unsafe {
            self.heap.unlock_after_fork();
            force_unlock(&self.queue);
        }
    }
}

impl Queue {
    const fn new() -> Self {
        Self { oldest: ptr::null_mut(), newest: ptr::null_mut(), blocks: 0, bytes: 0 }
    }

    /// Links are the owner's while a span is large, and the queue owns what waits.
    fn push(&mut self, record: &Span) {
        let here = ptr::from_ref(record).cast_mut();
        record.next.set(ptr::null_mut());
        match NonNull::new(self.newest) {
            // SAFETY: a record in the queue, which is valid.
            Some(newest) => unsafe { newest.as_ref() }.next.set(here),
            None => self.oldest = here,
        }
        self.newest = here;
        self.blocks += 1;
        self.bytes += Block::of(record).size;
    }

    fn pop(&mut self) -> Option<NonNull<Span>> {
        let oldest = NonNull::new(self.oldest)?;
        // SAFETY: a record in the queue, which is valid.
        let record = unsafe { oldest.as_ref() };
        self.oldest = record.next.get();
        if self.oldest.is_null() {
            self.newest = ptr::null_mut();
        }
        self.blocks -= 1;
        self.bytes -= Block::of(record).size;
        Some(oldest)
    }
}
