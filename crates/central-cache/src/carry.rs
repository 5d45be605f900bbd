//! Objects on their way out of spans and home to them.
//!
//! Reading or writing an object may miss every cache, and the first time it is a page fault: with the lock of
//! the class held everybody else would wait for that. So objects are gathered by address under the lock and
//! linked behind it, and on the way home links and page map are read before it.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{RawLock, Span, State};
use tiermalloc_size_class::{Class, MAX_BATCH, PAGE_SHIFT};
use tiermalloc_sync::atomic::Ordering;

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

/// Up to a batch of objects that go home, in runs of neighbours that seem to lie in one span, each with that span and
/// its shard: of a span whose last object has gone home nothing can be told any more.
struct Homing {
    objects: [MaybeUninit<*mut u8>; MAX_BATCH],
    count: usize,
    runs: [MaybeUninit<Run>; MAX_BATCH],
    run_count: usize,
    /// A bit for each shard that has any of the spans.
    owners: u32,
}

#[derive(Clone, Copy)]
struct Run {
    span: *mut Span,
    owner: usize,
    /// Where its objects begin; they end where those of the next run begin.
    first: usize,
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
            count: 0,
            runs: [const { MaybeUninit::uninit() }; MAX_BATCH],
            run_count: 0,
            owners: 0,
        }
    }

    /// Takes objects off a list, up to its end whatever their number; `span_of` is asked once for neighbours in
    /// a page.
    ///
    /// # Safety
    /// The objects are the caller's.
    #[inline(always)]
    unsafe fn take(
        &mut self,
        list: &mut *mut u8,
        span_of: impl Fn(usize) -> Option<NonNull<Span>>,
    ) {
        let (mut page, mut count, mut span) = (0, 0, ptr::null_mut());
        let (mut run_count, mut owners) = (0, 0);
        let mut object = *list;
        while count < MAX_BATCH && !object.is_null() {
            let here = object as usize >> PAGE_SHIFT;
            if here != page {
                page = here;
                let found = span_of(object as usize);
                let this = found.map_or(ptr::null_mut(), NonNull::as_ptr);
                if this != span || this.is_null() {
                    span = this;
                    let owner = owner_of(found);
                    owners |= 1 << owner;
                    debug_assert!(run_count <= count);
                    // SAFETY: no more runs have begun than objects have come, and there is room for another one of these.
                    unsafe { self.runs.get_unchecked_mut(run_count) }.write(Run {
                        span,
                        owner,
                        first: count,
                    });
                    run_count += 1;
                }
            }
            self.objects[count].write(object);
            count += 1;
            // SAFETY: passed on to the caller.
            object = unsafe { Chain::next(object) };
        }
        (self.count, self.run_count, self.owners) = (count, run_count, owners);
        *list = object;
    }

    /// The runs, each with its objects, which are one at least.
    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = (Run, &[*mut u8])> {
        (0..self.run_count).map(|n| {
            debug_assert!(n < MAX_BATCH && self.count <= MAX_BATCH);
            // SAFETY: so many are written, of each kind, and each run has begun at an object that was written behind it.
            unsafe {
                let run = self.runs.get_unchecked(n).assume_init();
                let end = match n + 1 < self.run_count {
                    true => self.runs.get_unchecked(n + 1).assume_init_ref().first,
                    false => self.count,
                };
                let objects = self.objects.as_ptr().cast::<*mut u8>().add(run.first);
                (run, core::slice::from_raw_parts(objects, end - run.first))
            }
        })
    }
}

/// The span, if it is one of `class` and the shard in which `object` lies. Under the lock of both. A live object
/// keeps its span in them; only for an object that is not one may it be another, or another's meanwhile.
#[inline]
fn home(class: Class, object: *mut u8, span: *mut Span, shard: usize) -> Option<NonNull<Span>> {
    let found = NonNull::new(span)?;
    // SAFETY: from the map, and records stay records.
    let span = unsafe { found.as_ref() };
    let within = || (object as usize).wrapping_sub(span.address()) < span.bytes();
    let ours = span.class() == Some(class) && span.state() == State::Objects;
    (ours && span.owner() == shard && within()).then_some(found)
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
    /// The objects are the caller's.
    #[inline]
    unsafe fn bring_home(self, class: Class, homing: &Homing, stores: u64) -> Result<(), Misuse> {
        let shape = class.shape();
        let mut emptied = [const { MaybeUninit::<NonNull<Span>>::uninit() }; MAX_BATCH];
        let mut count = 0;
        let mut wrong = Ok(());
        let per_class = &self.shard().classes[class.id()];
        let mut spans = per_class.spans.lock();
        spans.stores += stores;
        for (run, objects) in homing.runs() {
            if run.owner != self.at() {
                continue;
            }
            let first = objects.first().copied().unwrap_or(ptr::null_mut());
            let Some(span) = home(class, first, run.span, self.at()) else {
                wrong = Err(Misuse::Foreign(first, class));
                break;
            };
            // SAFETY: the span is one of this class.
            let (put, found) = unsafe { spans.put(span, shape, objects) };
            // Neighbours often come back one after the other: a span is settled once for all of them. One that has
            // emptied and left, and to which a double free leads once more, gets none.
            // SAFETY: as above.
            if put > 0 && unsafe { spans.settle(span) } {
                // Each object empties one span at most.
                if let Some(slot) = emptied.get_mut(count) {
                    slot.write(span);
                    count += 1;
                }
            }
            if let Some(&object) = objects.get(put) {
                wrong = refused(found, class, object);
                break;
            }
        }
        self.note_spare(per_class, class, &spans);
        drop(spans);
        for span in emptied.iter().take(count) {
            // SAFETY: the first `count` are written. C3: they left their class with no object handed out.
            unsafe { self.let_go(span.assume_init()) };
        }
        wrong
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// [`store`](Self::store) past the transfer cache: each object to the span that it lies in, whosesoever that is.
    ///
    /// # Errors
    /// A mistake of the program, as for [`Near::store`].
    ///
    /// # Safety
    /// As for `store`.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub unsafe fn store_to_spans(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        let (mut list, mut uncounted) = (chain.head, 1);
        loop {
            let mut homing = Homing::new();
            // SAFETY: the chain owns its objects.
            unsafe { homing.take(&mut list, |address| self.source.span_of(address)) };
            let mut owners = homing.owners;
            while owners != 0 {
                let owner = owners.trailing_zeros() as usize;
                owners &= owners - 1;
                let shard = Near::of_shard(self, owner);
                // SAFETY: the objects are the caller's.
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
/// the lock of the class in that shard.
#[inline]
pub(crate) fn expect_home(
    class: Class,
    object: *mut u8,
    (span, shard): (*mut Span, usize),
) -> Result<NonNull<Span>, Misuse> {
    home(class, object, span, shard).ok_or(Misuse::Foreign(object, class))
}
