//! The cache over all classes and shards: the transfer cache first, then the spans, then the source.

use core::ptr::NonNull;

use tiermalloc_page_heap::RawLock;
use tiermalloc_size_class::Class;
use tiermalloc_sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use tiermalloc_sync::{CachePadded, Mutex, force_unlock, leak_locked};

use crate::lane;
use crate::shard::{Near, SHARDS, Shard, is_used};
use crate::transfer;
use crate::{Chain, SpanSource};

/// A program's mistake that shows when an object comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// The object was free already.
    DoubleFree(*mut u8, Class),
    /// The address lies inside an object, or between two.
    NotAnObject(*mut u8, Class),
    /// The address does not belong to a span of the class.
    Foreign(*mut u8, Class),
}

/// What a class holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Spans of the class.
    pub spans: usize,
    /// Objects outside the spans: in the program, in threads' caches and in the transfer cache.
    pub out: usize,
    /// Objects in the transfer cache.
    pub transfer: usize,
}

/// How many shards are in use: only ever grows. All zero is one.
struct Width {
    /// The binary logarithm.
    log: AtomicU32,
    /// What of somebody's number says which shard he is near to.
    mask: AtomicUsize,
}

/// The central cache; see the crate's documentation. `R` is the lock, `S` the source of spans.
///
/// It begins with one shard, and all functions here that move objects are those of that one; who has
/// [widened](Self::widen) it goes by [`near`](Self::near).
pub struct CentralCache<R: RawLock, S> {
    #[cfg(not(tiermalloc_loom))]
    pub(crate) shards: [Shard<R>; SHARDS],
    #[cfg(tiermalloc_loom)]
    pub(crate) shards: std::vec::Vec<Shard<R>>,
    width: CachePadded<Width>,
    /// Bytes in all transfer caches, as far as the shards have said.
    pub(crate) noted: CachePadded<AtomicUsize>,
    /// Held while the number of shards changes, and over a fork.
    widening: Mutex<R, ()>,
    pub(crate) source: S,
}

// SAFETY: all state is under locks, and chains are owned by whoever holds them.
unsafe impl<R: RawLock + Sync, S: Sync> Sync for CentralCache<R, S> {}

impl<R: RawLock, S> CentralCache<R, S> {
    /// An empty cache over `source`.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(source: S) -> Self {
        Self {
            shards: [const { Shard::new() }; SHARDS],
            width: CachePadded::new(Width { log: AtomicU32::new(0), mask: AtomicUsize::new(0) }),
            noted: CachePadded::new(AtomicUsize::new(0)),
            widening: Mutex::new(()),
            source,
        }
    }

    /// An empty cache over `source`.
    #[cfg(tiermalloc_loom)]
    pub fn new(source: S) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            width: CachePadded::new(Width { log: AtomicU32::new(0), mask: AtomicUsize::new(0) }),
            noted: CachePadded::new(AtomicUsize::new(0)),
            widening: Mutex::new(()),
            source,
        }
    }

    /// The source of spans.
    #[inline]
    pub fn source(&self) -> &S {
        &self.source
    }

    #[inline]
    pub(crate) fn log(&self) -> u32 {
        // Relaxed: a number; a shard needs no preparation.
        self.width.log.load(Ordering::Relaxed)
    }

    /// Whether no span is another shard's than the first one's, as far as the caller can know of any: an object of such a span comes
    /// from somebody who had seen the mask, and so has whoever it was handed to (by anything that synchronizes the two).
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        // Relaxed: by coherence.
        self.width.mask.load(Ordering::Relaxed) == 0
    }

    /// Shards in use: a power of two, 1 to [`SHARDS`].
    #[inline]
    pub fn shards(&self) -> usize {
        1 << self.log()
    }

    /// Spreads threads over more shards from now on, if there are fewer than `shards`, of which the largest power of
    /// two counts, at most [`SHARDS`]. For good: spans stay with their shards.
    ///
    /// More shards than processors are of no use, and each one more has spans and batches of its own.
    pub fn widen(&self, shards: usize) {
        let log = shards.clamp(1, SHARDS).ilog2();
        if log > self.log() {
            let _widening = self.widening.lock();
            self.width.log.fetch_max(log, Ordering::Relaxed);
            // Who sees the one and not the other is near to fewer shards for a moment, or leaves no word for others. Whose a
            // span is goes by the mask alone (`is_alone`).
            self.width.mask.fetch_or((1 << log) - 1, Ordering::Relaxed);
            // Nobody has left word of that while there was one shard.
            for class in Class::all().filter(|&class| is_used(class)) {
                let per_class = &self.shards[0].classes[class.id()];
                per_class.note_spare(class, &per_class.spans.lock());
            }
        }
    }

    /// The cache for somebody with that number: neighbours in number are spread over the shards. Of those who are near to the
    /// same shard each has the lane of his number ([`spread`](crate::spread)); numbers up to 255 have the first one.
    #[inline]
    pub fn near(&self, number: usize) -> Near<'_, R, S> {
        // Relaxed: a number.
        let mask = self.width.mask.load(Ordering::Relaxed);
        Near { central: self, number: number & (mask | lane::BITS) }
    }

    /// The cache, once for each shard in use.
    pub fn each_shard(&self) -> impl Iterator<Item = Near<'_, R, S>> {
        (0..self.shards()).map(|at| Near::of_shard(self, at))
    }

    /// Bytes in all transfer caches, a moment old; a load for each shard.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.each_shard().map(Near::held_bytes).sum()
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// [`Near::fetch`] from the first shard.
    #[inline]
    pub fn fetch(&self, class: Class, wanted: usize) -> Chain {
        self.near(0).fetch(class, wanted)
    }

    /// [`Near::store`] to the first shard.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline]
    pub unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.near(0).store(class, chain) }
    }

    /// [`Near::make_way`] of the first shard.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[inline]
    pub fn make_way(&self, class: Class) -> Result<(), Misuse> {
        self.near(0).make_way(class)
    }

    /// [`make_way`](Self::make_way) for an allocation of whole pages, before it.
    ///
    /// Cost: two loads, and one for each further shard, unless there is something to do.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[inline]
    pub fn make_way_for_pages(&self) -> Result<(), Misuse> {
        let bound = transfer::bound_of_all(self.source.reserved_bytes());
        let most = transfer::share_of_all(bound, self.log());
        let mut at = 0;
        loop {
            let shard = Near::of_shard(self, at);
            if shard.held_bytes() > most {
                return shard.drain_in_turn(None);
            }
            at += 1;
            if at >> self.log() > 0 {
                return Ok(());
            }
        }
    }

    /// Whether a batch of `class` waits in a transfer cache at this moment.
    pub fn has_batches(&self, class: Class) -> bool {
        self.each_shard().any(|shard| shard.has_batches(class))
    }

    /// [`Near::fetch_one`] from the first shard.
    pub fn fetch_one(&self, class: Class) -> Option<(NonNull<u8>, bool)> {
        self.near(0).fetch_one(class)
    }

    /// Whether an object of `class`, handed out or free, starts at `address`. For messages and for
    /// what a fork leaves behind; takes no lock, so the answer is exact only while nobody else takes
    /// the span away.
    pub fn is_object(&self, class: Class, address: usize) -> bool {
        self.source.span_of(address).is_some_and(|span| {
            // SAFETY: registered spans are valid.
            let span = unsafe { span.as_ref() };
            if span.class() != Some(class) {
                return false;
            }
            let shape = class.shape();
            shape.object_at(address.wrapping_sub(shape.first_object(span.address()))).is_some()
        })
    }

    /// Sends batches that nobody has wanted since the last call from the transfer caches of `class`
    /// to their spans. Returns the number of objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn plunder(&self, class: Class) -> Result<usize, Misuse> {
        let mut objects = 0;
        for shard in self.each_shard() {
            objects += shard.plunder(class)?;
        }
        Ok(objects)
    }

    /// [`Near::plunder_next`] from the first shard on.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn plunder_next(&self) -> Result<(), Misuse> {
        self.near(0).plunder_next()
    }

    /// Sends up to `batches` batches of each transfer cache of `class` to their spans. Returns the number of
    /// objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn drain(&self, class: Class, batches: usize) -> Result<usize, Misuse> {
        let mut objects = 0;
        for shard in self.each_shard() {
            objects += shard.drain(class, batches)?;
        }
        Ok(objects)
    }

    /// What `class` holds at this moment.
    pub fn stats(&self, class: Class) -> ClassStats {
        let mut stats = ClassStats::default();
        for shard in self.each_shard() {
            let per_class = &shard.shard().classes[class.id()];
            stats.transfer += per_class.transfer.lock().batches() * class.batch();
            let spans = per_class.spans.lock();
            stats.spans += spans.spans as usize;
            stats.out += spans.live;
        }
        stats
    }

    /// Bytes of objects of up to `size` bytes that have been handed out at one time, in spans that there are; a moment
    /// old.
    ///
    /// Cost: a lock for each class and shard.
    pub fn touched_bytes(&self, size: usize) -> usize {
        let mut bytes = 0;
        for shard in self.each_shard() {
            let of = |class: Class| {
                shard.shard().classes[class.id()].spans.lock().touched * class.size()
            };
            bytes += Class::all().filter(|class| class.size() <= size).map(of).sum::<usize>();
        }
        bytes
    }

    /// Takes every lock and keeps it, before a fork: transfer caches, then spans.
    pub fn lock_for_fork(&self) {
        leak_locked(&self.widening);
        for shard in self.each_shard() {
            shard.shard().classes.iter().for_each(|class| leak_locked(&class.transfer));
        }
        for shard in self.each_shard() {
            shard.shard().classes.iter().for_each(|class| leak_locked(&class.spans));
            leak_locked(&shard.shard().kept);
        }
    }

    /// Gives every lock up after a fork, in parent and child.
    ///
    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub unsafe fn unlock_after_fork(&self) {
        for shard in self.each_shard() {
            // SAFETY: passed on to the caller; nobody has widened it since.
            unsafe {
                force_unlock(&shard.shard().kept);
                for class in shard.shard().classes.iter() {
                    force_unlock(&class.spans);
                    force_unlock(&class.transfer);
                }
            }
        }
        // SAFETY: as above.
        unsafe { force_unlock(&self.widening) };
    }
}
