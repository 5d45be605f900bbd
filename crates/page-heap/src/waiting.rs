//! Freed large spans that wait, as they are, for the next allocation of about their length.
//!
//! Cutting a span out of the free ones and coalescing it with its neighbours takes the heap's lock and some hundred
//! instructions each way, for blocks that programs make and free again and again: buffers, tables, images. So the last few
//! wait first, in *places* of some slots each, over which threads are spread, and pass from hand to hand by one exchange of a
//! word. The field knows this as a span cache.
//!
//! What waits costs no memory that would else be saved: it counts as free and dirty ([`HeapStats`](crate::HeapStats)), and
//! before the heap cuts anything out of clean pages what waits becomes free: a span that is long enough, or all. So does all of it
//! before addresses go back, when pages are given back on demand, and when a block cannot grow without. What nobody has wanted between two
//! [looks](PageHeap::return_idle) becomes free as well; whoever lets a span wait beside others sees to it that the keeper looks, once 2 MiB wait, or spans in
//! several places.
//! While there is a limit nothing begins to wait, but for what a thread was just about to.
//!
//! Invariant H7: a span that waits is in state `Waiting` and in one slot, and whoever takes it out of there has it. Only in a
//! thread that is on its way to a slot, or from there, it is in none; a fork at that moment loses it to the child.

use core::ptr::NonNull;

use tiermalloc_size_class::{MAX_SIZE, PAGE_SIZE};
use tiermalloc_sync::CachePadded;
use tiermalloc_sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::demand::BLOCK;
use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::release::WORTH_A_KEEPER;
use crate::source::PageSource;
use crate::span::{Span, State};

/// Places; threads that have more share them.
const PLACES: usize = if cfg!(tiermalloc_loom) { 1 } else { 32 };
/// Spans that wait in a place: two cache lines, with what else it holds.
const SLOTS: usize = if cfg!(tiermalloc_loom) { 1 } else { 15 };
/// Fewest pages of a span that waits: shorter ones are rare, because their sizes have classes.
const SHORTEST: usize = if cfg!(tiermalloc_loom) { 1 } else { MAX_SIZE.div_ceil(PAGE_SIZE) };
/// Frees to a place until a look is considered.
const UNTIL_LOOK: u32 = 256;
/// Frees of a thread that has made a block grow that do not wait: what grows next wants pages that are joined.
const PASSES: u32 = 64;
/// Where a place is full, one in so many frees goes there instead of another span.
const INSTEAD: u32 = 4;
/// One that is longer by such a part than what is wanted will do.
const SLACK: usize = 8;
/// Bits of an address in the page map; above them in a slot's word are the span's pages, and whether a look has seen it.
const ADDRESS_BITS: u32 = 48;
const SEEN: usize = 1 << 63;

const _: () = assert!(BLOCK <= 256 && usize::BITS == 64);

/// A span of fewer than [`BLOCK`] pages in one word; 0 is none.
#[derive(Clone, Copy)]
struct Word(usize);

impl Word {
    #[inline(always)]
    fn new(span: NonNull<Span>, pages: usize) -> Self {
        debug_assert!(Self::holds(span) && pages < BLOCK);
        Self(span.as_ptr() as usize | pages << ADDRESS_BITS)
    }

    /// Whether the address of a record fits into a word.
    #[inline(always)]
    fn holds(span: NonNull<Span>) -> bool {
        (span.as_ptr() as usize) >> ADDRESS_BITS == 0
    }

    #[inline(always)]
    fn pages(self) -> usize {
        (self.0 & !SEEN) >> ADDRESS_BITS
    }

    #[inline(always)]
    fn span(self) -> Option<NonNull<Span>> {
        NonNull::new((self.0 & ((1 << ADDRESS_BITS) - 1)) as *mut Span)
    }
}

struct Place {
    slots: [AtomicUsize; SLOTS],
    /// Frees until a look is considered, about.
    until_look: AtomicU32,
    /// Frees that are not to wait, about.
    passes: AtomicU32,
}

impl Place {
    #[cfg(not(tiermalloc_loom))]
    const fn new() -> Self {
        Self {
            slots: [const { AtomicUsize::new(0) }; SLOTS],
            until_look: AtomicU32::new(0),
            passes: AtomicU32::new(0),
        }
    }

    #[cfg(tiermalloc_loom)]
    fn new() -> Self {
        Self {
            slots: core::array::from_fn(|_| AtomicUsize::new(0)),
            until_look: AtomicU32::new(0),
            passes: AtomicU32::new(0),
        }
    }

    /// Whether a free is not to wait; counts it.
    #[inline(always)]
    fn passes(&self) -> bool {
        // Relaxed, and no exchange: about so many.
        let passes = self.passes.load(Ordering::Relaxed);
        if passes > 0 {
            self.passes.store(passes - 1, Ordering::Relaxed);
        }
        passes > 0
    }

    /// Counts a span that waits now. `true`: it is time to consider a look.
    #[inline(always)]
    fn tick(&self) -> bool {
        // Relaxed, and no exchange: about so many.
        let left = self.until_look.load(Ordering::Relaxed);
        self.until_look.store(if left == 0 { UNTIL_LOOK } else { left - 1 }, Ordering::Relaxed);
        left == 0
    }

    /// Pages of what waits here, as far as one sees while others come and go.
    fn pages(&self) -> usize {
        // Relaxed: numbers.
        self.slots.iter().map(|slot| Word(slot.load(Ordering::Relaxed)).pages()).sum()
    }
}

/// All places.
pub(crate) struct Waiting {
    places: [CachePadded<Place>; PLACES],
    /// A bit for each place in which something waits, or did when somebody last looked or returned all of it.
    used: AtomicU32,
    /// The slot that makes way when a place is full.
    turn: AtomicU32,
    /// Whether nothing is to wait, because there is a limit, or
    closed: AtomicBool,
    /// because a source has put records where only the map's far roots reach.
    far: AtomicBool,
    /// Whether somebody was asked, since the last look, to look at what waits.
    watched: AtomicBool,
}

impl Waiting {
    #[cfg(not(tiermalloc_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            places: [const { CachePadded::new(Place::new()) }; PLACES],
            used: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            far: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        }
    }

    #[cfg(tiermalloc_loom)]
    pub(crate) fn new() -> Self {
        Self {
            places: core::array::from_fn(|_| CachePadded::new(Place::new())),
            used: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            far: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        }
    }

    #[inline(always)]
    fn place(&self, near: usize) -> &Place {
        &self.places[near % PLACES]
    }

    /// The places in which something may wait.
    fn in_use(&self) -> impl Iterator<Item = usize> {
        // SeqCst: see `note_use` and `return_idle`.
        let used = self.used.load(Ordering::SeqCst);
        (0..PLACES).filter(move |at| used & 1 << at != 0)
    }

    /// Whether anything waits at this moment, or has since the last look; one load.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: a hint.
        self.used.load(Ordering::Relaxed) != 0
    }

    /// From now on nothing begins to wait, or it may again.
    pub(crate) fn close(&self, closed: bool) {
        // Who has not seen it yet lets one more wait. SeqCst: of this and `note_record` the later one sees the other.
        self.closed.store(closed, Ordering::SeqCst);
        if self.far.load(Ordering::SeqCst) {
            self.closed.store(true, Ordering::SeqCst);
        }
    }

    /// Nobody was asked to look, as far as one knows.
    pub(crate) fn forget_watch(&self) {
        self.watched.store(false, Ordering::SeqCst);
    }

    /// A large allocation has come about whose record may be to wait.
    #[inline]
    pub(crate) fn note_record(&self, span: NonNull<Span>) {
        if !Word::holds(span) {
            self.far.store(true, Ordering::SeqCst);
            self.close(true);
        }
    }

    /// Number and pages of all that waits, as far as one sees while others come and go.
    #[inline]
    pub(crate) fn count(&self) -> (usize, usize) {
        if self.any() { self.count_slots() } else { (0, 0) }
    }

    #[cold]
    #[inline(never)]
    fn count_slots(&self) -> (usize, usize) {
        let slots = self.in_use().flat_map(|at| &self.place(at).slots);
        slots.fold((0, 0), |(spans, pages), slot| {
            // Relaxed: numbers.
            let word = Word(slot.load(Ordering::Relaxed));
            (spans + (word.0 != 0) as usize, pages + word.pages())
        })
    }

    /// Takes down that nothing waits in a place, if that is so.
    fn note_empty(&self, at: usize) {
        let slots = &self.place(at).slots;
        if slots.iter().any(|slot| slot.load(Ordering::Relaxed) != 0) {
            return;
        }
        // Whoever puts something there either does so before the exchanges below, which find it, or has seen them, and then
        // that the bit is gone.
        self.used.fetch_and(!(1 << at), Ordering::SeqCst);
        if slots.iter().any(|slot| slot.fetch_or(0, Ordering::SeqCst) != 0) {
            self.used.fetch_or(1 << at, Ordering::SeqCst);
        }
    }

    /// Something waits in a place. Returns whether it does nowhere else.
    #[inline(always)]
    fn note_use(&self, near: usize) -> bool {
        let bit = 1 << (near % PLACES);
        // SeqCst, as the exchange of the slot before it and those of `return_waiting`: either that finds the span, or this
        // finds the bit taken away.
        let used = self.used.load(Ordering::SeqCst);
        if used == bit {
            return true;
        }
        if used & bit == 0 {
            self.used.fetch_or(bit, Ordering::SeqCst);
        }
        used == 0
    }
}

/// Makes a span that was taken out of its slot an allocation again.
#[inline(always)]
fn hand_out(span: &NonNull<Span>) {
    // SAFETY: the caller's (H7).
    unsafe { span.as_ref() }.set_state(State::Large);
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// A large span that waits near to `near`, a number of the caller's choice: `pages` pages long, or up to an eighth longer;
    /// `None` if there is none. What it holds is anybody's guess.
    ///
    /// Cost: some instructions, one of them atomic.
    #[inline(always)]
    pub fn alloc_waiting(&self, near: usize, pages: usize) -> Option<NonNull<Span>> {
        self.take_waiting(near, pages, pages / SLACK).inspect(hand_out)
    }

    /// [`alloc_waiting`](Self::alloc_waiting) near to anybody else.
    ///
    /// Cost: a load for each slot of places that are in use.
    pub fn alloc_waiting_elsewhere(&self, near: usize, pages: usize) -> Option<NonNull<Span>> {
        let mut others = self.waiting.in_use().filter(|at| *at != near % PLACES);
        others.find_map(|at| self.take_waiting(at, pages, pages / SLACK)).inspect(hand_out)
    }

    /// A span of `pages` pages, or up to `slack` longer, out of a place; still `Waiting`, so that whoever frees it for the
    /// second time at this moment is refused.
    #[inline(always)]
    fn take_waiting(&self, near: usize, pages: usize, slack: usize) -> Option<NonNull<Span>> {
        for slot in &self.waiting.place(near).slots {
            // Relaxed: looked at only.
            let word = Word(slot.load(Ordering::Relaxed));
            // An empty slot is 0 pages long, which is less.
            if word.pages().wrapping_sub(pages) > slack {
                continue;
            }
            // Acquire: pairs with the exchange that put it there.
            let taken = slot.compare_exchange(word.0, 0, Ordering::Acquire, Ordering::Relaxed);
            if let (Ok(_), Some(span)) = (taken, word.span()) {
                return Some(span);
            }
        }
        None
    }

    /// Frees the large allocation of less than 2 MiB that starts at `address`, so that it waits near to `near`. `false`: there
    /// is none, or nothing waits at present; it is [`free_large`](Self::free_large)'s then.
    ///
    /// Cost: some instructions, two of them atomic; where all slots of the place are taken one of the others is freed instead.
    ///
    /// # Safety
    /// If such an allocation starts there, it is not used any more.
    #[inline(always)]
    pub unsafe fn free_to_wait(&self, near: usize, address: usize) -> bool {
        // Relaxed: a hint.
        if self.waiting.closed.load(Ordering::Relaxed) {
            return false;
        }
        let Some(span) = self.map.span(address) else { return false };
        // SAFETY: records stay records; that of a live allocation is its own.
        let record = unsafe { span.as_ref() };
        if record.state() != State::Large || record.address() != address {
            return false;
        }
        let pages = record.pages();
        let place = self.waiting.place(near);
        // Of two threads that free the same address at the same time one finds nothing.
        if !(SHORTEST..BLOCK).contains(&pages) || place.passes() || !record.begin_wait() {
            return false;
        }
        record.set_used();
        let word = Word::new(span, pages);
        for (at, slot) in place.slots.iter().enumerate() {
            if slot.load(Ordering::Relaxed) != 0 {
                continue;
            }
            // SeqCst: releases the record to who takes it out; and see `note_use`.
            if slot.compare_exchange(0, word.0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                // One that waits alone is less than what anybody is asked for; or nearly so, where others of the place are
                // in slots behind it.
                let alone = self.waiting.note_use(near) && at == 0;
                if alone {
                    if place.tick() {
                        self.look_if_due();
                    }
                } else if !self.waiting.watched.load(Ordering::SeqCst) {
                    // SeqCst: who is told that somebody looks is where that one finds it.
                    self.ask_for_looks(place);
                }
                return true;
            }
        }
        self.wait_instead(near, word);
        true
    }

    /// Puts a span where another one waits, which is freed; or frees it, because most of what waits is wanted again.
    #[cold]
    #[inline(never)]
    fn wait_instead(&self, near: usize, word: Word) {
        // Relaxed: whose turn it is.
        let turn = self.waiting.turn.fetch_add(1, Ordering::Relaxed);
        let slot = &self.waiting.place(near).slots[(turn / INSTEAD) as usize % SLOTS];
        // SeqCst: as above, and acquires the record that was there.
        let before = match turn % INSTEAD {
            0 => Word(slot.swap(word.0, Ordering::SeqCst)),
            _ => word,
        };
        self.waiting.note_use(near);
        if let Some(span) = before.span() {
            let mut inner = self.inner.lock();
            // SAFETY: taken out of its slot, or never in one (H7).
            unsafe { self.free_waiting(&mut inner, span) };
            self.after_free(inner);
        }
    }

    /// Somebody near to `near` makes blocks grow: those that he frees soon do not wait, so that they are joined with what lies
    /// beside them.
    pub fn note_growth(&self, near: usize) {
        // Relaxed: a hint.
        self.waiting.place(near).passes.store(PASSES, Ordering::Relaxed);
    }

    /// Sees to it that somebody looks at what waits, if that is much. The keeper is asked once for each look that he takes;
    /// where he does not come a look is considered now and then.
    #[cold]
    #[inline(never)]
    fn ask_for_looks(&self, place: &Place) {
        let alone = || self.waiting.in_use().nth(1).is_none();
        let much = || place.pages() >= WORTH_A_KEEPER || !alone();
        if let Some(keeper) = self.keeper.filter(|_| much()) {
            // Before he is asked: the look that he takes then takes it away again.
            self.waiting.watched.store(true, Ordering::SeqCst);
            if keeper() {
                return;
            }
            self.waiting.watched.store(false, Ordering::SeqCst);
        }
        if place.tick() {
            self.look_if_due();
        }
    }

    /// Asks the keeper, if there is enough to give back, or takes a look if one is due: for who does so now and then while
    /// nothing is freed here.
    #[cold]
    #[inline(never)]
    pub fn look_if_due(&self) {
        self.consider(self.inner.lock());
    }

    /// # Safety
    /// Under the heap's lock: the span was taken out of its slot by the caller.
    unsafe fn free_waiting(&self, inner: &mut Inner, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe {
            span.as_ref().set_state(State::Moving);
            self.map.clear(span.as_ref().start(), 1);
            self.put_back_large(inner, span);
        }
    }

    /// A free span with dirty pages that has room for `pages`, out of what waits: one that is long enough becomes free, or all.
    #[cold]
    #[inline(never)]
    pub(crate) fn return_for(&self, inner: &mut Inner, pages: usize) -> Option<NonNull<Span>> {
        let mut places = self.waiting.in_use();
        match places.find_map(|at| self.take_waiting(at, pages, BLOCK)) {
            // SAFETY: taken out of its slot, and nobody's (H7).
            Some(span) => unsafe { self.free_waiting(inner, span) },
            None => self.return_waiting(inner),
        }
        inner.dirty.find(pages).map(NonNull::from)
    }

    /// All that waits becomes free.
    #[cold]
    #[inline(never)]
    pub(crate) fn return_waiting(&self, inner: &mut Inner) {
        // SeqCst: see `note_use`.
        let used = self.waiting.used.swap(0, Ordering::SeqCst);
        for at in (0..PLACES).filter(|at| used & 1 << at != 0) {
            for slot in &self.waiting.place(at).slots {
                if let Some(span) = Word(slot.swap(0, Ordering::SeqCst)).span() {
                    // SAFETY: taken out of its slot (H7).
                    unsafe { self.free_waiting(inner, span) };
                }
            }
        }
    }

    /// [`return_waiting`](Self::return_waiting), by who has no lock.
    pub(crate) fn return_all_waiting(&self) {
        if self.waiting.any() {
            self.return_waiting(&mut self.inner.lock());
        }
    }

    /// What has waited since the last such call becomes free.
    ///
    /// Cost: a load for each slot of places that are in use, the heap's lock for each span.
    pub fn return_idle(&self) {
        // What comes to wait from here on asks anew. SeqCst: what came before is seen below.
        self.waiting.watched.store(false, Ordering::SeqCst);
        for at in self.waiting.in_use() {
            for slot in &self.waiting.place(at).slots {
                let word = slot.load(Ordering::SeqCst);
                let Some(span) = Word(word).span() else { continue };
                let seen = word & SEEN != 0;
                let next = if seen { 0 } else { word | SEEN };
                // Acquire: as in `alloc_waiting`. Release: the record goes on to who takes it out.
                let changed =
                    slot.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed);
                if seen && changed.is_ok() {
                    // SAFETY: taken out of its slot (H7).
                    unsafe { self.free_waiting(&mut self.inner.lock(), span) };
                }
            }
            self.waiting.note_empty(at);
        }
    }
}
