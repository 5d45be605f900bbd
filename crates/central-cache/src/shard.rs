//! One shard of the central cache: transfer caches and spans of every class, for the threads that are near to it.
//!
//! With many processors one lock for each class and one line for each counter are what everybody waits for. A
//! *shard* has its own: threads are spread over the shards, and each span belongs to the one that took it from the
//! source, to which its objects go home wherever they are freed. So that what one thread frees still reaches
//! another one, whoever finds its own transfer cache empty looks into the others, and whoever finds no free
//! object takes from spans of others before it takes fresh memory, if they have plenty.

use core::ptr::NonNull;

use tiermalloc_page_heap::RawLock;
#[cfg(not(tiermalloc_loom))]
use tiermalloc_size_class::SLOTS;
use tiermalloc_size_class::{CLASSES, Class, PAGE_SIZE};
use tiermalloc_sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use tiermalloc_sync::{CachePadded, Mutex};

use crate::kept::Kept;
use crate::lane;
use crate::spans::Spans;
use crate::transfer::{self, Transfer};
use crate::{CentralCache, Chain, Misuse, SpanSource};

/// Most shards there are.
pub const SHARDS: usize = if cfg!(tiermalloc_loom) { 2 } else { 16 };

/// Batches that make way at once.
const WAY: usize = 16;
/// Classes that are looked at for such ones.
const LOOK_AT: usize = if cfg!(tiermalloc_loom) { 2 } else { 16 };
/// Bytes (1 MiB) by which what a shard holds may differ from what the others know.
const NOTED: usize = 1 << 20;
/// Bytes in transfer caches (256 KiB) for each of which it is asked who hoards.
const NOTICE: usize = 256 << 10;
/// The same (2 MiB) for each of which the source is told; a multiple.
const SURPLUS: usize = 8 * NOTICE;

/// Batches of the class that hoards which make way for a span of another one: twice what that has, for not each leaves a
/// whole span behind. It may be in the middle of its work, and takes them back then.
fn way_for(wanting: Option<Class>, hoarder: Class) -> usize {
    let wanted = wanting.map_or(usize::MAX, |class| 2 * class.pages() * PAGE_SIZE);
    (wanted / (hoarder.batch() * hoarder.size())).clamp(1, WAY)
}

#[repr(C)]
pub(crate) struct PerClass<R: RawLock> {
    /// Batches in the transfer cache, for who has not its lock.
    pub(crate) batches: AtomicU32,
    pub(crate) transfer: Mutex<R, Transfer>,
    /// Who is at the spans is often somebody else.
    apart: [u8; 48],
    pub(crate) spans: Mutex<R, Spans>,
    /// Free objects in the spans, for who has not their lock; kept while there are several shards.
    pub(crate) spare: AtomicU32,
}

// Two lines, in pairs as processors fetch them. What small programs touch of the table goes by that.
#[cfg(not(tiermalloc_loom))]
const _: () = {
    type Usual = PerClass<tiermalloc_sync::RawFutexMutex>;
    assert!(core::mem::offset_of!(Usual, spans) == 128 && size_of::<Usual>() <= 256);
};

/// An entry for each class, by id.
#[cfg(not(tiermalloc_loom))]
pub(crate) type Classes<R> = [CachePadded<PerClass<R>>; SLOTS];
#[cfg(tiermalloc_loom)]
pub(crate) use crate::modelled::{Classes, is_used};

/// Whether a class has an entry of its own.
#[cfg(not(tiermalloc_loom))]
pub(crate) fn is_used(_: Class) -> bool {
    true
}

/// Bytes in a shard's transfer caches; a moment old for whoever has no lock.
pub(crate) struct Held {
    bytes: AtomicUsize,
    /// What of them all shards know ([`Near::held_about`]).
    noted: AtomicUsize,
}

pub(crate) struct Shard<R: RawLock> {
    pub(crate) classes: Classes<R>,
    pub(crate) held: CachePadded<Held>,
    /// Whether a class took a fresh span while they held much: seldom written, read at each refill.
    pub(crate) short: CachePadded<AtomicBool>,
    /// The class that makes way next.
    turn: AtomicUsize,
    /// One that may hold so much that it makes way before; 0 for none.
    hoarder: AtomicUsize,
    pub(crate) kept: CachePadded<Mutex<R, Kept>>,
}

impl<R: RawLock> PerClass<R> {
    /// Under the lock of the spans: leaves word of how many free objects they have.
    #[inline]
    pub(crate) fn note_spare(&self, class: Class, spans: &Spans) {
        let spare = spans.spans as usize * class.objects() - spans.live;
        // Relaxed: a hint.
        self.spare.store(spare.min(u32::MAX as usize) as u32, Ordering::Relaxed);
    }
}

#[cfg(tiermalloc_loom)]
impl<R: RawLock> PerClass<R> {
    pub(crate) fn new() -> Self {
        Self {
            batches: AtomicU32::new(0),
            transfer: Mutex::new(Transfer::new()),
            apart: [0; 48],
            spans: Mutex::new(Spans::new()),
            spare: AtomicU32::new(0),
        }
    }
}

impl<R: RawLock> Shard<R> {
    #[cfg(not(tiermalloc_loom))]
    pub(crate) const fn new() -> Self {
        Self {
            classes: [const {
                CachePadded::new(PerClass {
                    batches: AtomicU32::new(0),
                    transfer: Mutex::new(Transfer::new()),
                    apart: [0; 48],
                    spans: Mutex::new(Spans::new()),
                    spare: AtomicU32::new(0),
                })
            }; SLOTS],
            held: CachePadded::new(Held { bytes: AtomicUsize::new(0), noted: AtomicUsize::new(0) }),
            short: CachePadded::new(AtomicBool::new(false)),
            turn: AtomicUsize::new(0),
            hoarder: AtomicUsize::new(0),
            kept: CachePadded::new(Mutex::new(Kept::new())),
        }
    }

    #[cfg(tiermalloc_loom)]
    pub(crate) fn new() -> Self {
        Self {
            classes: Classes::new(),
            held: CachePadded::new(Held { bytes: AtomicUsize::new(0), noted: AtomicUsize::new(0) }),
            short: CachePadded::new(AtomicBool::new(false)),
            turn: AtomicUsize::new(0),
            hoarder: AtomicUsize::new(0),
            kept: CachePadded::new(Mutex::new(Kept::new())),
        }
    }

    /// Leaves word of a class that holds more than all should.
    #[inline]
    fn note_hoarder(&self, class: Class) {
        // Relaxed: a hint, and not written where it is known, for others of the shard read it.
        if self.hoarder.load(Ordering::Relaxed) != class.id() {
            self.hoarder.store(class.id(), Ordering::Relaxed);
        }
    }

    /// The batches of a transfer cache have been lost, as only a program that frees twice or writes to what it has freed can lose them: they are not waited for.
    /// What is counted of batches that came and went says that they went.
    #[cold]
    #[inline(never)]
    fn forget(&self, class: Class, transfer: &mut Transfer) {
        let bytes = transfer.batches() * class.batch() * class.size();
        transfer.forget();
        // Relaxed: numbers.
        self.classes[class.id()].batches.store(0, Ordering::Relaxed);
        self.held.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The newest batch of the transfer cache for who goes near to it by that number, of which so many count as gone to the spans.
    #[inline(always)]
    fn remove_batch(&self, class: Class, near: usize, drained: u64) -> Option<Chain> {
        let per_class = &self.classes[class.id()];
        let mut transfer = per_class.transfer.lock();
        let Some(batch) = transfer.remove(class, lane::of(near)) else {
            if transfer.batches() > 0 {
                self.forget(class, &mut transfer);
            }
            return None;
        };
        transfer.drained += drained;
        // Relaxed: numbers. Under the lock under which they were added.
        per_class.batches.store(transfer.batches() as u32, Ordering::Relaxed);
        self.held.bytes.fetch_sub(batch.count * class.size(), Ordering::Relaxed);
        Some(batch)
    }
}

/// The central cache as it is for those who are near to one of its shards.
pub struct Near<'a, R: RawLock, S> {
    pub(crate) central: &'a CentralCache<R, S>,
    /// The shard, and the [lane](lane) above it.
    pub(crate) number: usize,
}

impl<R: RawLock, S> Clone for Near<'_, R, S> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: RawLock, S> Copy for Near<'_, R, S> {}

impl<'a, R: RawLock, S> Near<'a, R, S> {
    /// The cache.
    #[inline]
    pub fn central(self) -> &'a CentralCache<R, S> {
        self.central
    }

    /// The cache near to a shard, for who has no lane of his own.
    #[inline]
    pub(crate) fn of_shard(central: &'a CentralCache<R, S>, at: usize) -> Self {
        debug_assert!(at < SHARDS);
        Self { central, number: at }
    }

    /// The number of the shard.
    #[inline]
    pub(crate) fn at(self) -> usize {
        self.number & (SHARDS - 1)
    }

    #[inline]
    pub(crate) fn shard(self) -> &'a Shard<R> {
        &self.central.shards[self.at()]
    }

    /// The other shards, the nearest by number first.
    #[inline]
    pub(crate) fn others(self) -> impl Iterator<Item = Self> {
        (1..self.central.shards()).map(move |step| Self { number: self.number ^ step, ..self })
    }

    /// Bytes in the shard's transfer caches, a moment old; one load.
    #[inline]
    pub fn held_bytes(self) -> usize {
        // Relaxed: a number.
        self.shard().held.bytes.load(Ordering::Relaxed)
    }

    /// Bytes in all transfer caches, for which each other shard counts within a MiB; three loads.
    #[inline]
    pub fn held_about(self) -> usize {
        // Relaxed, here and below: numbers.
        let noted = self.central.noted.load(Ordering::Relaxed);
        let own = self.shard().held.noted.load(Ordering::Relaxed);
        let about = noted.wrapping_sub(own).wrapping_add(self.held_bytes());
        // Who changes both numbers does so one after the other: for a moment there may be less than nothing.
        (about as isize).max(0) as usize
    }

    /// Lets all shards know what this one holds, if that differs by much from what they know.
    #[inline]
    fn note_held(self) {
        if self.central.log() == 0 {
            return;
        }
        let held = &self.shard().held;
        let (now, known) = (self.held_bytes(), held.noted.load(Ordering::Relaxed));
        if now.abs_diff(known) >= NOTED
            && held.noted.compare_exchange(known, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.central.noted.fetch_add(now.wrapping_sub(known), Ordering::Relaxed);
        }
    }

    /// A batch out of the transfer cache of another shard, if one has any.
    #[inline(never)]
    fn steal_batch(self, class: Class) -> Option<Chain> {
        self.others().filter(|other| other.has_batches(class)).find_map(|other| {
            let batch = other.shard().remove_batch(class, other.number, 0);
            other.note_held();
            batch
        })
    }
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// Up to `wanted` free objects of `class` (at least 1 is wanted, at most a batch makes sense);
    /// fewer when that is what a span has at hand, none when there is no memory.
    ///
    /// Cost: a lock and a few instructions when a whole batch is wanted and waits in the transfer
    /// cache, or in one of another shard; else a lock and some instructions per object; else a span from the source.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn fetch(self, class: Class, wanted: usize) -> Chain {
        if wanted >= class.batch() {
            if let Some(batch) = self.shard().remove_batch(class, self.number, 0) {
                self.note_held();
                return batch;
            }
            if self.central.log() > 0 {
                if let Some(batch) = self.steal_batch(class) {
                    return batch;
                }
            }
        }
        self.fetch_from_spans(class, wanted).0
    }

    /// One object of `class`, and whether it is known to be all zero but for its first word.
    pub fn fetch_one(self, class: Class) -> Option<(NonNull<u8>, bool)> {
        let (chain, zeroed) = self.fetch_from_spans(class, 1);
        NonNull::new(chain.head).map(|object| (object, zeroed))
    }

    /// Takes free objects of `class` back: a whole batch into the transfer cache while there is
    /// room, anything else into the spans.
    ///
    /// # Errors
    /// What turns out not to be a free object of the class is reported, and it and the objects
    /// behind it are left alone, of its own shard and of others behind that; those of the shards before go home.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub unsafe fn store(self, class: Class, chain: Chain) -> Result<(), Misuse> {
        if chain.count == class.batch() {
            // SAFETY: passed on to the caller.
            if unsafe { self.insert_batch(class, chain) } {
                return Ok(());
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { self.central.store_to_spans(class, chain) }
    }

    /// Takes a whole batch into the transfer cache; `false` when that has no room.
    ///
    /// # Safety
    /// The batch owns its objects.
    #[inline]
    unsafe fn insert_batch(self, class: Class, batch: Chain) -> bool {
        let (shard, log, source) = (self.shard(), self.central.log(), &self.central.source);
        let bytes = batch.count * class.size();
        // Whoever comes at the same time may see the same room: a batch for each too many, for a moment.
        if self.held_bytes() + bytes > source.cache_room() >> log {
            return false;
        }
        let bound = transfer::bound(source.reserved_bytes() >> log);
        let per_class = &shard.classes[class.id()];
        let mut transfer = per_class.transfer.lock();
        // SAFETY: passed on to the caller.
        if !unsafe { transfer.insert(class, batch, lane::of(self.number), bytes, bound) } {
            return false;
        }
        // Relaxed: numbers. Under the lock, so that nobody takes them off before.
        let batches = transfer.batches();
        per_class.batches.store(batches as u32, Ordering::Relaxed);
        let before = shard.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        drop(transfer);
        self.note_held();
        if before / NOTICE != (before + bytes) / NOTICE {
            if batches * bytes > self.most() {
                shard.note_hoarder(class);
            }
            if before / SURPLUS != (before + bytes) / SURPLUS {
                source.surplus();
            }
        }
        true
    }

    /// Called after [`fetch`](Self::fetch), for its class: when the transfer caches hold much and a class
    /// had to take a fresh span all the same, some of what they hold goes to its spans, which may empty
    /// them. Each batch goes that way once at most, as it would have if they were smaller.
    ///
    /// Cost: a load, unless there is something to do.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[inline]
    pub fn make_way(self, class: Class) -> Result<(), Misuse> {
        // Relaxed: a hint.
        if self.shard().short.load(Ordering::Relaxed) { self.make_way_slow(class) } else { Ok(()) }
    }

    #[cold]
    fn make_way_slow(self, but: Class) -> Result<(), Misuse> {
        self.shard().short.store(false, Ordering::Relaxed);
        self.drain_in_turn(Some(but))
    }

    /// Sends some batches of the class that hoards, or else of the next one that has any, other than `but`, to their
    /// spans.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn drain_in_turn(self, but: Option<Class>) -> Result<(), Misuse> {
        let shard = self.shard();
        // Relaxed: whose turn it is, and hints.
        if let Some(class) = Class::from_id(shard.hoarder.load(Ordering::Relaxed)) {
            if !self.hoards(class) {
                shard.hoarder.store(0, Ordering::Relaxed);
            } else if Some(class) != but {
                return self.drain(class, way_for(but, class)).map(drop);
            }
        }
        for _ in 0..LOOK_AT {
            let turn = shard.turn.fetch_add(1, Ordering::Relaxed);
            let Some(class) = Class::from_id(turn % CLASSES + 1) else { continue };
            if Some(class) != but && self.drain(class, WAY)? > 0 {
                if self.hoards(class) {
                    shard.note_hoarder(class);
                }
                break;
            }
        }
        Ok(())
    }

    /// Whether the transfer cache of `class` holds more by itself than those of all classes should.
    fn hoards(self, class: Class) -> bool {
        let batches = self.shard().classes[class.id()].batches.load(Ordering::Relaxed) as usize;
        batches * class.batch() * class.size() > self.most()
    }

    /// Bytes that the transfer caches should hold at most while somebody needs fresh memory.
    fn most(self) -> usize {
        let bound = transfer::bound_of_all(self.central.source.reserved_bytes());
        transfer::share_of_all(bound, self.central.log())
    }

    /// Whether the transfer caches hold more than they should while somebody needs fresh memory.
    #[inline]
    pub(crate) fn holds_much(self) -> bool {
        self.held_bytes() > self.most()
    }

    /// The number of batches of `class` in the shard that nobody has wanted since the last call: what
    /// [`CentralCache::plunder`] sends to the spans. Who has other things to do meanwhile
    /// [drains](Self::drain) them piece by piece.
    pub fn start_period(self, class: Class) -> usize {
        self.shard().classes[class.id()].transfer.lock().start_period()
    }

    /// Sends batches of `class` that nobody has wanted since the last call from the shard's transfer cache to
    /// their spans. Returns the number of objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn plunder(self, class: Class) -> Result<usize, Misuse> {
        let idle = self.start_period(class);
        self.drain(class, idle)
    }

    /// [`plunder`](Self::plunder) of the next few classes in turn, so that regular calls keep all
    /// transfer caches at what is wanted of them: the shard's own, then those of the others.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn plunder_next(self) -> Result<(), Misuse> {
        // Relaxed: whose turn it is.
        let first = self.shard().turn.fetch_add(LOOK_AT, Ordering::Relaxed);
        let round = (first / CLASSES) & (self.central.shards() - 1);
        let shard = Self { number: self.number ^ round, ..self };
        if first % CLASSES < LOOK_AT {
            shard.free_idle_spans();
        }
        for turn in (0..LOOK_AT).map(|n| first.wrapping_add(n)) {
            if let Some(class) = Class::from_id(turn % CLASSES + 1) {
                shard.plunder(class)?;
            }
        }
        Ok(())
    }

    /// Sends up to `batches` batches of the shard's transfer cache to their spans. Returns the number of
    /// objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn drain(self, class: Class, batches: usize) -> Result<usize, Misuse> {
        let mut objects = 0;
        for _ in 0..batches {
            let Some(batch) = self.shard().remove_batch(class, self.number, 1) else { break };
            self.note_held();
            objects += batch.count;
            // SAFETY: the batch is ours.
            unsafe { self.central.store_to_spans(class, batch)? };
        }
        Ok(objects)
    }
}
