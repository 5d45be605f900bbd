//! Objects on their way out of spans and home to them.
//!
//! Reading or writing an object may miss every cache, and the first time it is a page fault: with the lock of
//! the class held everybody else would wait for that. So objects are gathered by address under the lock and
//! linked behind it, and on the way home links and page map are read before it.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{Put, Putting, RawLock, Span};
use tiermalloc_size_class::{Class, MAX_BATCH, PAGE_SHIFT};
use tiermalloc_sync::atomic::Ordering;
use tiermalloc_sync::prefetch;

use crate::shard::{PerClass, SHARDS};
use crate::single::refused;
use crate::spans::Spans;
use crate::{CentralCache, Chain, Misuse, Near, SpanSource};

/// Before fresh memory free objects are taken from another shard that has more than these spans are good for,
const PLENTY_SPANS: usize = 2;
/// or more than so many bytes of them: of large ones any.
const PLENTY_BYTES: usize = 16 << 10;

/// Up to a batch of objects that come out of spans.
pub(crate) struct Gathered {
    objects: [MaybeUninit<*mut u8>; MAX_BATCH],
    pub(crate) count: usize,
}

impl Gathered {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { objects: [const { MaybeUninit::uninit() }; MAX_BATCH], count: 0 }
    }

    /// The slots that are not filled yet, for who counts what he has filled.
    #[inline(always)]
    pub(crate) fn room(&mut self) -> Room<'_> {
        Room { slots: &mut self.objects, next: self.count }
    }

    /// The chain, in the order in which the objects came.
    ///
    /// # Safety
    /// The objects are the caller's.
    #[inline]
    pub(crate) unsafe fn link(&self) -> crate::Chain {
        let (mut head, mut left) = (ptr::null_mut(), self.count);
        while left > 0 {
            left -= 1;
            // SAFETY: the first `count` slots are written, with objects that are the caller's.
            unsafe {
                let object = self.objects.get_unchecked(left).assume_init();
                Chain::link(object, head);
                head = object;
            }
        }
        crate::Chain { head, count: self.count }
    }
}

/// What of [`Gathered`] is written to: in registers, until it is known how much it was.
pub(crate) struct Room<'a> {
    slots: &'a mut [MaybeUninit<*mut u8>; MAX_BATCH],
    next: usize,
}

impl Room<'_> {
    #[inline(always)]
    pub(crate) fn push(&mut self, object: *mut u8) {
        debug_assert!(self.next < MAX_BATCH);
        if let Some(slot) = self.slots.get_mut(self.next) {
            slot.write(object);
            self.next += 1;
        }
    }

    /// Slots that are filled by now, those from before among them.
    #[inline(always)]
    pub(crate) fn filled(&self) -> usize {
        self.next
    }
}

/// Up to a batch of objects that go home, each with the span that it seems to lie in, and that one's shard: of a span
/// whose last object has gone home nothing can be told any more.
struct Homing {
    objects: [MaybeUninit<Homebound>; MAX_BATCH],
    /// Written unless there is one shard only, which `owners` says then.
    shards: [MaybeUninit<u8>; MAX_BATCH],
    count: usize,
    /// A bit for each shard that has any of the spans.
    owners: u32,
}

#[derive(Clone, Copy)]
struct Homebound {
    object: *mut u8,
    span: *mut Span,
}

/// The spans that empty when up to a batch of objects goes home.
struct Emptied {
    spans: [MaybeUninit<NonNull<Span>>; MAX_BATCH],
    count: usize,
}

impl Emptied {
    /// One for each object at most.
    #[inline(always)]
    fn push(&mut self, span: NonNull<Span>) {
        if let Some(slot) = self.spans.get_mut(self.count) {
            slot.write(span);
            self.count += 1;
        }
    }
}

/// The shard of a span; the first one's, if there is none, will say so.
#[inline]
pub(crate) fn owner_of(span: Option<NonNull<Span>>) -> usize {
    // SAFETY: from the map, and records stay records. Of a live object's span the owner does not change.
    span.map_or(0, |span| unsafe { span.as_ref() }.owner() & (SHARDS - 1))
}

impl Homing {
    #[inline(always)]
    fn new() -> Self {
        Self {
            objects: [const { MaybeUninit::uninit() }; MAX_BATCH],
            shards: [const { MaybeUninit::uninit() }; MAX_BATCH],
            count: 0,
            owners: 0,
        }
    }

    /// Takes objects off a list, up to its end whatever their number; `span_of` is asked once for neighbours in
    /// a page. `alone`: all spans are the first shard's.
    ///
    /// # Safety
    /// The objects are the caller's.
    #[inline(always)]
    unsafe fn take(
        &mut self,
        list: &mut *mut u8,
        alone: bool,
        span_of: impl Fn(usize) -> Option<NonNull<Span>>,
    ) {
        let (mut page, mut span, mut owner) = (0, ptr::null_mut(), 0);
        let (mut count, mut owners) = (0, alone as u32);
        let mut object = *list;
        while count < MAX_BATCH && !object.is_null() {
            let here = object as usize >> PAGE_SHIFT;
            if here != page {
                page = here;
                let found = span_of(object as usize);
                span = found.map_or(ptr::null_mut(), NonNull::as_ptr);
                if alone {
                    // The lock is not to be held while it comes.
                    prefetch(span.cast());
                } else {
                    owner = owner_of(found);
                    owners |= 1 << owner;
                }
            }
            self.objects[count].write(Homebound { object, span });
            if !alone {
                self.shards[count].write(owner as u8);
            }
            count += 1;
            // SAFETY: passed on to the caller.
            object = unsafe { Chain::next(object) };
        }
        (self.count, self.owners) = (count, owners);
        *list = object;
    }

    /// The objects.
    #[inline(always)]
    fn objects(&self) -> &[Homebound] {
        debug_assert!(self.count <= MAX_BATCH);
        // SAFETY: the first `count` are written.
        unsafe { core::slice::from_raw_parts(self.objects.as_ptr().cast(), self.count) }
    }

    /// Whether the spans of all objects seem to be the shard's.
    #[inline(always)]
    fn all_of(&self, shard: usize) -> bool {
        self.owners == 1 << shard
    }

    /// The shard of the first of the last `left` [objects](Self::objects).
    ///
    /// # Safety
    /// Not [all](Self::all_of) are of one shard.
    #[inline(always)]
    unsafe fn shard_of_last(&self, left: usize) -> usize {
        debug_assert!(self.owners.count_ones() > 1);
        // SAFETY: passed on to the caller: so they are written, up to `count`.
        self.shards
            .get(self.count - left)
            .map_or(0, |shard| unsafe { shard.assume_init() } as usize)
    }
}

/// The span, if it is one of `class` and the shard. Under the lock of both.
#[inline(always)]
fn span_at_home(class: Class, span: *mut Span, shard: usize) -> Option<NonNull<Span>> {
    let found = NonNull::new(span)?;
    // SAFETY: from the map, and records stay records.
    let span = unsafe { found.as_ref() };
    let ours = span.is_of(class) && span.owner() == shard;
    ours.then_some(found)
}

/// Whether an object lies in a span.
#[inline]
fn is_within(object: *mut u8, span: NonNull<Span>) -> bool {
    // SAFETY: from the map, and records stay records.
    let span = unsafe { span.as_ref() };
    (object as usize).wrapping_sub(span.address()) < span.bytes()
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// Up to `wanted` objects past the transfer cache, and whether the last of them was never used and is all zero but
    /// for its first word.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) fn fetch_from_spans(self, class: Class, wanted: usize) -> (Chain, bool) {
        let wanted = wanted.min(MAX_BATCH);
        let mut gathered = Gathered::new();
        let mut zeroed = self.take(class, wanted, &mut gathered);
        let alone = self.central.log() == 0;
        if gathered.count == 0 && !alone {
            let bytes = PLENTY_BYTES / class.size();
            let plenty = bytes.min(class.objects() * PLENTY_SPANS);
            zeroed = self.take_from_others(class, wanted, plenty, &mut gathered);
        }
        if gathered.count == 0 {
            zeroed = self.take_fresh(class, wanted, &mut gathered);
        }
        if gathered.count == 0 && !alone {
            // There is no memory: whatever anybody has.
            zeroed = self.take_from_others(class, wanted, 0, &mut gathered);
        }
        // SAFETY: what was taken is ours (C1).
        (unsafe { gathered.link() }, zeroed)
    }

    /// Takes objects out of the shard's spans, and says whether the last of them is all zero.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn take(self, class: Class, wanted: usize, gathered: &mut Gathered) -> bool {
        let per_class = &self.shard().classes[class.id()];
        let mut zeroed = false;
        let mut spans = per_class.spans.lock();
        while gathered.count < wanted {
            let Some(span) = spans.fullest() else { break };
            let missing = wanted - gathered.count;
            // SAFETY: spans on the lists are of this class.
            zeroed = unsafe { spans.take(class, span, missing, gathered) }.1;
        }
        if gathered.count > 0 {
            spans.fetches += 1;
            self.note_spare(per_class, class, &spans);
        }
        zeroed
    }

    /// [`take`](Self::take) from another shard that has more than `plenty` free objects.
    #[cold]
    fn take_from_others(
        self,
        class: Class,
        wanted: usize,
        plenty: usize,
        gathered: &mut Gathered,
    ) -> bool {
        for other in self.others() {
            // Relaxed: a hint.
            let spare = other.shard().classes[class.id()].spare.load(Ordering::Relaxed);
            if spare as usize > plenty {
                let zeroed = other.take(class, wanted, gathered);
                if gathered.count > 0 {
                    return zeroed;
                }
            }
        }
        false
    }

    /// [`take`](Self::take) from a fresh span. If another thread brings one at the same time, the class has two.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn take_fresh(self, class: Class, wanted: usize, gathered: &mut Gathered) -> bool {
        let Some(span) = self.span_for(class) else { return false };
        // SAFETY: nobody else has the span.
        unsafe { span.as_ref() }.set_owner(self.at());
        let per_class = &self.shard().classes[class.id()];
        let mut spans = per_class.spans.lock();
        // SAFETY: a fresh span of this class.
        let zeroed = unsafe {
            spans.adopt(span);
            spans.take(class, span, wanted, gathered).1
        };
        spans.fetches += 1;
        self.note_spare(per_class, class, &spans);
        drop(spans);
        if self.holds_much() {
            // Relaxed: a hint.
            self.shard().short.store(true, Ordering::Relaxed);
        }
        zeroed
    }

    /// Under the lock of the spans: leaves word of how many free objects they have.
    #[inline]
    fn note_spare(self, per_class: &PerClass<R>, class: Class, spans: &Spans) {
        if self.central.log() > 0 {
            per_class.note_spare(class, spans);
        }
    }

    /// Takes those of the objects back whose spans are the shard's, and counts `stores`.
    ///
    /// # Safety
    /// The objects are the caller's, and the shard is one of `homing.owners`.
    #[inline]
    unsafe fn bring_home(self, class: Class, homing: &Homing, stores: u64) -> Result<(), Misuse> {
        let mut emptied = Emptied { spans: [const { MaybeUninit::uninit() }; MAX_BATCH], count: 0 };
        let per_class = &self.shard().classes[class.id()];
        let mut spans = per_class.spans.lock();
        spans.stores += stores;
        // SAFETY: passed on to the caller; under the lock.
        let answer = unsafe { self.put_all(class, homing, &mut spans, &mut emptied) };
        self.note_spare(per_class, class, &spans);
        drop(spans);
        for span in emptied.spans.iter().take(emptied.count) {
            // SAFETY: the first `count` are written. C3: they left their class with no object handed out.
            unsafe { self.let_go(span.assume_init()) };
        }
        answer
    }

    /// [`bring_home`](Self::bring_home) under the lock.
    ///
    /// # Safety
    /// As for `bring_home`; the spans are those of the class and the shard.
    #[inline(always)]
    unsafe fn put_all(
        self,
        class: Class,
        homing: &Homing,
        spans: &mut Spans,
        emptied: &mut Emptied,
    ) -> Result<(), Misuse> {
        let shape = class.shape();
        let all = homing.all_of(self.at());
        let mut left = homing.objects();
        while let [first, rest @ ..] = left {
            // SAFETY: not all are of this shard, which has some.
            if !all && unsafe { homing.shard_of_last(left.len()) } != self.at() {
                left = rest;
                continue;
            }
            let Some(span) = span_at_home(class, first.span, self.at()) else {
                return Err(Misuse::Foreign(first.object, class));
            };
            // SAFETY: records stay records.
            let putting = Putting::begin(unsafe { span.as_ref() }, shape);
            let before = left.len();
            // Neighbours often come back one after the other: a span is settled once for all of them.
            let found = loop {
                let [now, rest @ ..] = left else { break Put::Done };
                if now.span != first.span {
                    break Put::Done;
                }
                // SAFETY: the span is one of this class, of which the shape is, under its lock.
                let found = unsafe { putting.put(now.object) };
                if found != Put::Done {
                    break found;
                }
                left = rest;
            };
            let back = before - left.len();
            spans.live -= back;
            // One that has emptied and left, and to which a double free leads once more, gets none.
            // SAFETY: the span is one of this class, under its lock.
            if back > 0 && unsafe { spans.settle(class, span) } {
                emptied.push(span);
            }
            if let (false, [wrong, ..]) = (found == Put::Done, left) {
                return not_put(found, class, wrong.object, span);
            }
        }
        Ok(())
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// [`store`](Self::store) past the transfer cache: each object to the span that it lies in, whosesoever that is.
    ///
    /// # Errors
    /// A mistake of the program, as for [`Near::store`]; also a chain that has fewer objects than it says, as a double free or a write to
    /// what is free makes of it: its last object is reported, and those of the batch that ends there stay where they are.
    ///
    /// # Safety
    /// As for `store`.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub unsafe fn store_to_spans(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        let (mut list, mut uncounted, alone) = (chain.head, 1, self.is_alone());
        let mut left = chain.count;
        loop {
            let mut homing = Homing::new();
            // SAFETY: the chain owns its objects.
            unsafe { homing.take(&mut list, alone, |address| self.source.span_of(address)) };
            if homing.count == 0 && left == 0 {
                return Ok(());
            }
            if list.is_null() && homing.count < left {
                // It was cut inside a circle.
                let last = homing.objects().last().map_or(ptr::null_mut(), |last| last.object);
                return Err(Misuse::DoubleFree(last, class));
            }
            left = left.saturating_sub(MAX_BATCH);
            let mut owners = homing.owners;
            while owners != 0 {
                let owner = owners.trailing_zeros() as usize;
                owners &= owners - 1;
                let shard = Near::of_shard(self, owner);
                // SAFETY: the objects are the caller's, and this is one of the owners.
                unsafe { shard.bring_home(class, &homing, core::mem::take(&mut uncounted))? };
            }
            if list.is_null() {
                return Ok(());
            }
        }
    }

    /// The shard and the span of `class` that `object` lies in. Exact under the lock of the class in that shard.
    #[inline]
    pub(crate) fn home_of(&self, object: *mut u8) -> (Near<'_, R, S>, *mut Span) {
        let span = self.source.span_of(object as usize);
        (Near::of_shard(self, owner_of(span)), span.map_or(ptr::null_mut(), NonNull::as_ptr))
    }
}

/// The span, if it is one of `class` and the shard in which `object` lies; else what the object is reported as. Under
/// the lock of the class in that shard. A live object keeps its span in them; only for an object that is not one may it be another, or
/// another's meanwhile.
#[inline]
pub(crate) fn expect_home(
    class: Class,
    object: *mut u8,
    (span, shard): (*mut Span, usize),
) -> Result<NonNull<Span>, Misuse> {
    span_at_home(class, span, shard)
        .filter(|&span| is_within(object, span))
        .ok_or(Misuse::Foreign(object, class))
}

/// What an object is reported as that its span has not taken.
#[cold]
fn not_put(found: Put, class: Class, object: *mut u8, span: NonNull<Span>) -> Result<(), Misuse> {
    if is_within(object, span) {
        refused(found, class, object)
    } else {
        Err(Misuse::Foreign(object, class))
    }
}
