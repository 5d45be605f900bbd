//! The record of a span: 64 bytes, out of line, one cache line.
//!
//! ```text
//!   0        8     12   13   14   15  16     24     32     40   42   44  45  46  48        64
//!   | start  | pages |state|class|grp|own | prev | next | bits |live|frsh|wrd|hnt|low| inline |
//!                                            links          |      of object spans          |
//! ```
//!
//! # Who may touch what, when
//!
//! | state | meaning | `start`, `pages`, links, `inline` | object fields |
//! |---|---|---|---|
//! | `Free` | in the page heap's sets | under the page heap's lock | nobody |
//! | `Moving` | taken out of the sets by the page heap, for a system call or a resize | the thread that took it | nobody |
//! | `Objects` | carved into objects of a class | `start`, `pages` read only; links: under the lock of the class | under the lock of the class |
//! | `Large` | one large allocation | its owner, resized under the page heap's lock | nobody |
//! | `Waiting` | a large allocation that was freed and waits for the next one | who has taken it out of its slot (H7) | nobody |
//! | `Huge` | one mapping of its own | its owner | nobody |
//!
//! Invariant H1: `state` changes only under the page heap's lock; between `Large` and `Waiting` by who has the
//! span. It, and nothing else, says whether a span may be merged: an `Objects` span whose `live` count is 0 is on its way to or from a
//! thread that carves it at this very moment.

use core::cell::Cell;
use core::ptr;

use tiermalloc_size_class::{Class, PAGE_SHIFT};
use tiermalloc_sync::atomic::{AtomicU8, Ordering};
use tiermalloc_sync::cell::Cell as Watched;

/// What a span is being used for; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// In the page heap's sets.
    Free = 0,
    /// Between two states, in the hands of one thread.
    Moving = 1,
    /// Carved into objects of a class.
    Objects = 2,
    /// One large allocation from the page heap.
    Large = 3,
    /// One mapping of its own.
    Huge = 4,
    /// Freed, and waiting for an allocation of about its length.
    Waiting = 5,
}

/// Words of free bits that the record itself holds: enough for 128 objects.
pub(crate) const INLINE_WORDS: usize = 2;

/// A run of pages; see the module's table for the rules of access.
///
/// `Watched` cells are `core`'s; under loom they fail on an access that breaks the table's rules. Links
/// and free bits are reached by pointer too, so they are plain ones there as well.
#[repr(C, align(64))]
pub struct Span {
    start: Watched<usize>,
    pages: Watched<u32>,
    state: AtomicU8,
    class: Watched<u8>,
    /// The central cache's: which of its lists the span is on.
    pub group: Cell<u8>,
    /// Bit 0: whether all of it was zero. Of an object span, above that: its owner.
    zeroed: Watched<u8>,
    /// Link of whichever list the span is on; left child in a tree.
    pub prev: Cell<*mut Span>,
    /// Link of whichever list the span is on; right child in a tree.
    pub next: Cell<*mut Span>,
    pub(crate) bits: Watched<*mut u64>,
    pub(crate) live: Watched<u16>,
    pub(crate) fresh: Watched<u16>,
    pub(crate) words: Watched<u8>,
    pub(crate) hint: Watched<u8>,
    /// The central cache's: with fewer objects handed out the span belongs on another of its lists.
    pub low: Cell<u16>,
    /// Free bits of a small object span; of a free span, the dirty pages, and whether they are stuck;
    /// of a huge one, the bytes of guard on either side, and up to where it is filled; of a large one, its owner's note.
    pub(crate) inline: [Cell<u64>; INLINE_WORDS],
}

#[cfg(not(tiermalloc_loom))]
const _: () = assert!(size_of::<Span>() == 64);

// SAFETY: the module's table says which thread may touch which field in which state; `state` itself
// is atomic.
unsafe impl Sync for Span {}

impl Span {
    /// A record in state `Moving`.
    pub(crate) fn new(start: usize, pages: usize) -> Self {
        Self {
            start: Watched::new(start),
            pages: Watched::new(pages as u32),
            state: AtomicU8::new(State::Moving as u8),
            class: Watched::new(0),
            group: Cell::new(0),
            zeroed: Watched::new(0),
            prev: Cell::new(ptr::null_mut()),
            next: Cell::new(ptr::null_mut()),
            bits: Watched::new(ptr::null_mut()),
            live: Watched::new(0),
            fresh: Watched::new(0),
            words: Watched::new(0),
            hint: Watched::new(0),
            low: Cell::new(0),
            inline: [const { Cell::new(0) }; INLINE_WORDS],
        }
    }

    /// First page (page number).
    #[inline]
    pub fn start(&self) -> usize {
        self.start.get()
    }

    /// Length in pages.
    #[inline]
    pub fn pages(&self) -> usize {
        self.pages.get() as usize
    }

    /// First byte.
    #[inline]
    pub fn address(&self) -> usize {
        self.start.get() << PAGE_SHIFT
    }

    /// Length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.pages() << PAGE_SHIFT
    }

    /// First page behind the span (page number).
    #[inline]
    pub fn end(&self) -> usize {
        self.start() + self.pages()
    }

    pub(crate) fn set_extent(&self, start: usize, pages: usize) {
        self.start.set(start);
        self.pages.set(pages as u32);
    }

    /// The state at this moment. Relaxed: who relies on it holds the page heap's lock or owns the
    /// span (H1); for anybody else it is a hint for a message.
    #[inline]
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Free,
            2 => State::Objects,
            3 => State::Large,
            4 => State::Huge,
            5 => State::Waiting,
            _ => State::Moving,
        }
    }

    /// From `Large` to `Waiting`. `false`: it is not large, or not any more.
    #[inline]
    pub(crate) fn begin_wait(&self) -> bool {
        let (large, waiting) = (State::Large as u8, State::Waiting as u8);
        // Relaxed: what the span holds is passed on by its slot.
        self.state.compare_exchange(large, waiting, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// H1: under the page heap's lock, or of a span that has waited.
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// The class of an object span.
    #[inline]
    pub fn class(&self) -> Option<Class> {
        Class::from_id(self.class.get() as usize)
    }

    /// Whether this is a span of objects of `class`; exact under the lock of the class. What is no object span has no class.
    #[inline(always)]
    pub fn is_of(&self, class: Class) -> bool {
        self.class.get() as usize == class.id()
    }

    pub(crate) fn set_class(&self, class: Option<Class>) {
        self.class.set(class.map_or(0, |c| c.id() as u8));
    }

    /// Whether all of the span was zero when it was allocated.
    #[inline]
    pub fn was_zeroed(&self) -> bool {
        self.zeroed.get() & 1 != 0
    }

    /// Says so of a span that is being handed out; nobody owns it yet.
    pub(crate) fn set_zeroed(&self, zeroed: bool) {
        self.zeroed.set(zeroed as u8);
    }

    /// Something may have been written to the span. Its owner stays.
    pub(crate) fn set_used(&self) {
        self.zeroed.set(self.zeroed.get() & !1);
    }

    /// The number that [`set_owner`](Self::set_owner) has noted; 0 before.
    #[inline]
    pub fn owner(&self) -> usize {
        (self.zeroed.get() >> 1) as usize
    }

    /// Notes whose the span is: a number below 128, by whoever has taken it from the heap, before anybody else
    /// knows of it. It stays until the span is freed.
    pub fn set_owner(&self, owner: usize) {
        debug_assert!(owner < 128);
        self.zeroed.set(self.zeroed.get() & 1 | (owner as u8) << 1);
    }

    /// The pages of a free span that may hold something: an interval of offsets, `lo..hi`. All
    /// others are zero and cost no memory.
    pub(crate) fn dirty(&self) -> (usize, usize) {
        let word = self.inline[0].get();
        ((word & 0xffff_ffff) as usize, (word >> 32) as usize)
    }

    pub(crate) fn set_dirty(&self, lo: usize, hi: usize) {
        let (lo, hi) = if lo < hi { (lo, hi) } else { (0, 0) };
        self.inline[0].set(lo as u64 | (hi as u64) << 32);
        self.inline[1].set(0);
    }

    /// Whether the dirty pages of a free span cannot be given back until it grows, because they fill no
    /// whole page of the operating system.
    pub(crate) fn is_stuck(&self) -> bool {
        self.inline[1].get() != 0
    }

    /// Until the dirty interval is set anew.
    pub(crate) fn set_stuck(&self) {
        self.inline[1].set(1);
    }

    /// Bytes on either side of a huge allocation that belong to its mapping.
    pub(crate) fn guard(&self) -> usize {
        self.inline[0].get() as usize
    }

    pub(crate) fn set_guard(&self, bytes: usize) {
        self.inline[0].set(bytes as u64);
    }

    /// Bytes up to which a huge allocation that grows stays what it is, made of huge pages; 0: it is not.
    pub(crate) fn filled_to(&self) -> usize {
        self.inline[1].get() as usize
    }

    pub(crate) fn set_filled_to(&self, bytes: usize) {
        self.inline[1].set(bytes as u64);
    }

    /// Two words that the owner of a large span has written there; what they are before is anybody's guess.
    #[inline]
    pub fn note(&self) -> [u64; 2] {
        [self.inline[0].get(), self.inline[1].get()]
    }

    /// Writes them. They stay until the span is freed.
    pub fn set_note(&self, words: [u64; 2]) {
        debug_assert_eq!(self.state(), State::Large);
        self.inline[0].set(words[0]);
        self.inline[1].set(words[1]);
    }

    pub(crate) fn dirty_pages(&self) -> usize {
        let (lo, hi) = self.dirty();
        hi - lo
    }
}
