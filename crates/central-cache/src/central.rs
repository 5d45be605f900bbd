//! The cache over all classes: the transfer cache first, then the spans, then the source.

use core::ptr::NonNull;

use tiermalloc_page_heap::{Put, RawLock, Span, State};
#[cfg(not(tiermalloc_loom))]
use tiermalloc_size_class::SLOTS;
use tiermalloc_size_class::{CLASSES, Class, index_in_span};
#[cfg(not(tiermalloc_loom))]
use tiermalloc_sync::CachePadded;
use tiermalloc_sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tiermalloc_sync::{Mutex, force_unlock, leak_locked};

use crate::spans::{ChainBuilder, Spans};
use crate::transfer::{self, Transfer};
use crate::{Chain, SpanSource};

/// Spans that one call collects before it gives the lock up to free them.
const EMPTIED: usize = 16;

/// Classes that one call of [`CentralCache::plunder_next`] looks at.
const PLUNDERED: usize = if cfg!(tiermalloc_loom) { 2 } else { 16 };

/// Batches that make way at once.
const WAY: usize = 16;

/// Bytes in transfer caches (2 MiB) for each of which the source is told.
const SURPLUS: usize = 2 << 20;

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

pub(crate) struct PerClass<R: RawLock> {
    pub(crate) transfer: Mutex<R, Transfer>,
    pub(crate) spans: Mutex<R, Spans>,
}

/// An entry for each class, by id.
#[cfg(not(tiermalloc_loom))]
type Classes<R> = [CachePadded<PerClass<R>>; SLOTS];
#[cfg(tiermalloc_loom)]
use crate::modelled::Classes;

/// The central cache; see the crate's documentation. `R` is the lock, `S` the source of spans.
pub struct CentralCache<R: RawLock, S> {
    pub(crate) classes: Classes<R>,
    /// The class that is plundered next.
    next_plundered: AtomicUsize,
    /// Bytes in all transfer caches; a moment old for whoever has no lock.
    held: AtomicUsize,
    /// Whether a class took a fresh span while they held much.
    short: AtomicBool,
    pub(crate) source: S,
}

// SAFETY: all state is under locks, and chains are owned by whoever holds them.
unsafe impl<R: RawLock + Sync, S: Sync> Sync for CentralCache<R, S> {}

#[cfg(tiermalloc_loom)]
impl<R: RawLock> PerClass<R> {
    pub(crate) fn new() -> Self {
        Self { transfer: Mutex::new(Transfer::new()), spans: Mutex::new(Spans::new()) }
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// An empty cache over `source`.
    #[cfg(not(tiermalloc_loom))]
    pub const fn new(source: S) -> Self {
        Self {
            classes: [const {
                CachePadded::new(PerClass {
                    transfer: Mutex::new(Transfer::new()),
                    spans: Mutex::new(Spans::new()),
                })
            }; SLOTS],
            next_plundered: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            short: AtomicBool::new(false),
            source,
        }
    }

    /// An empty cache over `source`.
    #[cfg(tiermalloc_loom)]
    pub fn new(source: S) -> Self {
        Self {
            classes: Classes::new(),
            next_plundered: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            short: AtomicBool::new(false),
            source,
        }
    }

    /// The source of spans.
    #[inline]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Up to `wanted` free objects of `class` (at least 1 is wanted, at most a batch makes sense);
    /// fewer when that is what a span has at hand, none when there is no memory.
    ///
    /// Cost: a lock and a few instructions when a whole batch is wanted and waits in the transfer
    /// cache; else a lock and some instructions per object; else a span from the source.
    #[inline]
    pub fn fetch(&self, class: Class, wanted: usize) -> Chain {
        if wanted >= class.batch() {
            if let Some(batch) = self.remove_batch(class, 0) {
                return batch;
            }
        }
        self.fetch_from_spans(class, wanted).0
    }

    /// Bytes in all transfer caches, a moment old; one load.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        // Relaxed: a number.
        self.held.load(Ordering::Relaxed)
    }

    /// Whether a batch of `class` waits in the transfer cache at this moment.
    pub fn has_batches(&self, class: Class) -> bool {
        self.classes[class.id()].transfer.lock().batches() > 0
    }

    /// The newest batch of the transfer cache, of which so many count as gone to the spans.
    #[inline]
    fn remove_batch(&self, class: Class, drained: u64) -> Option<Chain> {
        let mut transfer = self.classes[class.id()].transfer.lock();
        let batch = transfer.remove(class)?;
        transfer.drained += drained;
        // Relaxed: a number. Under the lock under which it was added.
        self.held.fetch_sub(batch.count * class.size(), Ordering::Relaxed);
        Some(batch)
    }

    /// Takes a whole batch into the transfer cache; `false` when that has no room.
    ///
    /// # Safety
    /// The batch owns its objects.
    #[inline]
    unsafe fn insert_batch(&self, class: Class, batch: Chain) -> bool {
        let bytes = batch.count * class.size();
        // Whoever comes at the same time may see the same room: a batch for each too many, for a moment.
        if self.held_bytes().saturating_add(bytes) > self.source.cache_room() {
            return false;
        }
        let bound = transfer::bound(self.source.reserved_bytes());
        let mut transfer = self.classes[class.id()].transfer.lock();
        // SAFETY: passed on to the caller.
        if !unsafe { transfer.insert(class, batch, bound) } {
            return false;
        }
        // Relaxed: a number. Under the lock, so that nobody takes it off before.
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        drop(transfer);
        if before / SURPLUS != (before + bytes) / SURPLUS {
            self.source.surplus();
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
    pub fn make_way(&self, class: Class) -> Result<(), Misuse> {
        // Relaxed: a hint.
        if self.short.load(Ordering::Relaxed) { self.make_way_slow(class) } else { Ok(()) }
    }

    /// [`make_way`](Self::make_way) for an allocation of whole pages, before it.
    ///
    /// Cost: two loads, unless there is something to do.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    #[inline]
    pub fn make_way_for_pages(&self) -> Result<(), Misuse> {
        if self.holds_much() { self.drain_in_turn(None) } else { Ok(()) }
    }

    /// Whether the transfer caches hold more than they should while somebody needs fresh memory.
    #[inline]
    fn holds_much(&self) -> bool {
        let held = self.held_bytes();
        held > transfer::bound_of_all(self.source.reserved_bytes())
    }

    #[cold]
    fn make_way_slow(&self, but: Class) -> Result<(), Misuse> {
        self.short.store(false, Ordering::Relaxed);
        self.drain_in_turn(Some(but))
    }

    /// Sends some batches of the next class that has any, other than `but`, to their spans.
    #[cold]
    fn drain_in_turn(&self, but: Option<Class>) -> Result<(), Misuse> {
        for _ in 0..PLUNDERED {
            // Relaxed: whose turn it is.
            let turn = self.next_plundered.fetch_add(1, Ordering::Relaxed);
            let Some(class) = Class::from_id(turn % CLASSES + 1) else { continue };
            if Some(class) != but && self.drain(class, WAY)? > 0 {
                break;
            }
        }
        Ok(())
    }

    /// One object of `class`, and whether it is known to be all zero but for its first word.
    pub fn fetch_one(&self, class: Class) -> Option<(NonNull<u8>, bool)> {
        let (chain, zeroed) = self.fetch_from_spans(class, 1);
        NonNull::new(chain.head).map(|object| (object, zeroed))
    }

    fn fetch_from_spans(&self, class: Class, wanted: usize) -> (Chain, bool) {
        let lists = &self.classes[class.id()].spans;
        let mut chain = ChainBuilder::new();
        let mut zeroed = false;
        let mut spans = lists.lock();
        while chain.count < wanted {
            let Some(span) = spans.fullest() else { break };
            // SAFETY: spans on the lists are of this class.
            zeroed = unsafe { spans.take(class, span, wanted - chain.count, &mut chain) }.1;
        }
        if chain.count > 0 {
            spans.fetches += 1;
            drop(spans);
            return (chain.finish(), zeroed);
        }
        drop(spans);
        // None left: a fresh span, without the lock. If another thread brings one at the same time,
        // the class has two.
        if let Some(span) = self.source.alloc_span(class) {
            let mut spans = lists.lock();
            // SAFETY: a fresh span of this class.
            unsafe {
                spans.adopt(span);
                zeroed = spans.take(class, span, wanted, &mut chain).1;
                spans.fetches += 1;
            }
            drop(spans);
            if self.holds_much() {
                // Relaxed: a hint.
                self.short.store(true, Ordering::Relaxed);
            }
        }
        (chain.finish(), zeroed)
    }

    /// Takes free objects of `class` back: a whole batch into the transfer cache while there is
    /// room, anything else into the spans.
    ///
    /// What turns out not to be a free object of the class is reported, and it and the objects
    /// behind it are left alone.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline]
    pub unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        if chain.count == class.batch() {
            // SAFETY: passed on to the caller.
            if unsafe { self.insert_batch(class, chain) } {
                return Ok(());
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { self.store_to_spans(class, chain) }
    }

    /// [`store`](Self::store) past the transfer cache.
    ///
    /// # Safety
    /// As for `store`.
    pub unsafe fn store_to_spans(&self, class: Class, mut chain: Chain) -> Result<(), Misuse> {
        let (lists, shape) = (&self.classes[class.id()].spans, class.shape());
        let mut uncounted = 1;
        loop {
            let mut emptied: [Option<NonNull<Span>>; EMPTIED] = [None; EMPTIED];
            let mut count = 0;
            let mut wrong = None;
            // Neighbours often come back one after the other: what is known of the span of the last
            // object is kept for the next.
            let mut last: Option<NonNull<Span>> = None;
            let (mut start, mut bytes) = (0, 0);
            // The same span, once an object has come back to it: it has to be settled. One that has
            // emptied and left, and to which a double free leads once more, has not.
            let mut run: Option<NonNull<Span>> = None;
            let mut spans = lists.lock();
            spans.stores += core::mem::take(&mut uncounted);
            // One place stays free for the span of the last run.
            while count < EMPTIED - 1 {
                // SAFETY: the chain owns its objects.
                let Some(object) = (unsafe { chain.pop() }) else { break };
                let mut offset = (object as usize).wrapping_sub(start);
                if offset >= bytes {
                    // SAFETY: the span of a run is one of this class.
                    if let Some(gone) = unsafe { end_run(&mut spans, run.take()) } {
                        emptied[count] = Some(gone);
                        count += 1;
                    }
                    match self.span_for(class, object) {
                        Ok(span) => {
                            last = Some(span);
                            // SAFETY: a registered span of the class is valid.
                            (start, bytes) =
                                unsafe { (span.as_ref().address(), span.as_ref().bytes()) };
                            offset = object as usize - start;
                        }
                        Err(misuse) => {
                            wrong = Some(misuse);
                            break;
                        }
                    }
                }
                let Some(span) = last else { break };
                // SAFETY: the span is one of this class.
                match unsafe { spans.put(span, shape, offset) } {
                    Put::Done => run = last,
                    Put::Twice => wrong = Some(Misuse::DoubleFree(object, class)),
                    _ => wrong = Some(Misuse::NotAnObject(object, class)),
                }
                if wrong.is_some() {
                    break;
                }
            }
            // SAFETY: as above.
            emptied[count] = unsafe { end_run(&mut spans, run) };
            drop(spans);
            for span in emptied.into_iter().flatten() {
                // SAFETY: C3: it left its class with no object handed out.
                unsafe { self.source.free_span(span) };
            }
            match wrong {
                Some(misuse) => return Err(misuse),
                None if chain.head.is_null() => return Ok(()),
                None => {}
            }
        }
    }

    /// The span of `class` that `object` lies in.
    #[inline]
    pub(crate) fn span_for(&self, class: Class, object: *mut u8) -> Result<NonNull<Span>, Misuse> {
        self.source
            .span_of(object as usize)
            // SAFETY: registered spans are valid. A live object keeps its span in the class; only
            // for an object that is not one can these two differ.
            .filter(|span| unsafe {
                span.as_ref().class() == Some(class) && span.as_ref().state() == State::Objects
            })
            .ok_or(Misuse::Foreign(object, class))
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
            let offset = address - span.address();
            // A tail that no object covers may begin at a multiple of the size, too.
            offset % class.size() == 0 && index_in_span(class, offset) < class.objects()
        })
    }

    /// Sends batches that nobody has wanted since the last call from the transfer cache of `class`
    /// to their spans. Returns the number of objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn plunder(&self, class: Class) -> Result<usize, Misuse> {
        let idle = self.start_period(class);
        self.drain(class, idle)
    }

    /// The first half of [`plunder`](Self::plunder): the number of batches of `class` that nobody has wanted
    /// since the last call. Who has other things to do meanwhile [drains](Self::drain) them piece by piece.
    pub fn start_period(&self, class: Class) -> usize {
        self.classes[class.id()].transfer.lock().start_period()
    }

    /// [`plunder`](Self::plunder) of the next few classes in turn, so that regular calls keep all
    /// transfer caches at what is wanted of them.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn plunder_next(&self) -> Result<(), Misuse> {
        // Relaxed: whose turn it is.
        let first = self.next_plundered.fetch_add(PLUNDERED, Ordering::Relaxed);
        for turn in (0..PLUNDERED).map(|n| first.wrapping_add(n)) {
            if let Some(class) = Class::from_id(turn % CLASSES + 1) {
                self.plunder(class)?;
            }
        }
        Ok(())
    }

    /// Sends up to `batches` batches of the transfer cache to their spans. Returns the number of
    /// objects.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    pub fn drain(&self, class: Class, batches: usize) -> Result<usize, Misuse> {
        let mut objects = 0;
        for _ in 0..batches {
            let Some(batch) = self.remove_batch(class, 1) else { break };
            objects += batch.count;
            // SAFETY: the batch is ours.
            unsafe { self.store_to_spans(class, batch)? };
        }
        Ok(objects)
    }

    /// What `class` holds at this moment.
    pub fn stats(&self, class: Class) -> ClassStats {
        let per_class = &self.classes[class.id()];
        let transfer = per_class.transfer.lock().batches() * class.batch();
        let spans = per_class.spans.lock();
        ClassStats { spans: spans.spans, out: spans.live, transfer }
    }

    /// Bytes of objects of up to `size` bytes that have been handed out at one time, in spans that there are; a moment
    /// old.
    ///
    /// Cost: a lock for each class.
    pub fn touched_bytes(&self, size: usize) -> usize {
        let of = |class: Class| self.classes[class.id()].spans.lock().touched * class.size();
        Class::all().filter(|class| class.size() <= size).map(of).sum()
    }

    /// Takes every lock and keeps it, before a fork: transfer caches, then spans.
    pub fn lock_for_fork(&self) {
        self.classes.iter().for_each(|class| leak_locked(&class.transfer));
        self.classes.iter().for_each(|class| leak_locked(&class.spans));
    }

    /// Gives every lock up after a fork, in parent and child.
    ///
    /// # Safety
    /// [`lock_for_fork`](Self::lock_for_fork) was called by the thread that forked.
    pub unsafe fn unlock_after_fork(&self) {
        for class in self.classes.iter() {
            // SAFETY: passed on to the caller.
            unsafe {
                force_unlock(&class.spans);
                force_unlock(&class.transfer);
            }
        }
    }
}

/// Ends a run of objects that came back to one span; the span, if it has left the class.
///
/// # Safety
/// The span is one of the lists' class.
#[inline]
unsafe fn end_run(spans: &mut Spans, run: Option<NonNull<Span>>) -> Option<NonNull<Span>> {
    // SAFETY: passed on to the caller.
    run.filter(|&span| unsafe { spans.settle(span) })
}
