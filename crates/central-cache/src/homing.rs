//! Objects on their way home to their spans, gathered before the lock of their class is taken.
//!
//! Links and page map are read before it, for each may miss every cache, and everybody else would wait for that.

use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{Putting, RawLock, Span};
use tiermalloc_size_class::{Class, MAX_BATCH, PAGE_SHIFT};
use tiermalloc_sync::prefetch;

use crate::shard::SHARDS;
use crate::single::refused;
use crate::spans::Spans;
use crate::{CentralCache, Chain, Misuse, Near, SpanSource};

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
pub(crate) struct Emptied {
    spans: [MaybeUninit<NonNull<Span>>; MAX_BATCH],
    count: usize,
}

impl Emptied {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { spans: [const { MaybeUninit::uninit() }; MAX_BATCH], count: 0 }
    }

    /// One for each object at most.
    #[inline(always)]
    pub(crate) fn push(&mut self, span: NonNull<Span>) {
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

    /// Takes up to `most` objects off a list, which may end before; `span_of` is asked once for neighbours in
    /// a page. `ALONE`: all spans are the first shard's.
    ///
    /// # Safety
    /// The objects are the caller's.
    #[inline(always)]
    unsafe fn take<const ALONE: bool>(
        &mut self,
        list: &mut *mut u8,
        most: usize,
        span_of: impl Fn(usize) -> Option<NonNull<Span>>,
    ) {
        let (mut page, mut span, mut owner) = (0, ptr::null_mut(), 0);
        let (mut count, mut owners) = (0, ALONE as u32);
        let mut object = *list;
        for slot in self.objects.iter_mut().take(most) {
            if object.is_null() {
                break;
            }
            let here = object as usize >> PAGE_SHIFT;
            if here != page {
                page = here;
                let found = span_of(object as usize);
                span = found.map_or(ptr::null_mut(), NonNull::as_ptr);
                if ALONE {
                    // The lock is not to be held while it comes.
                    prefetch(span.cast());
                } else {
                    owner = owner_of(found);
                    owners |= 1 << owner;
                }
            }
            slot.write(Homebound { object, span });
            if !ALONE {
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

    /// The last object, or null.
    #[inline]
    fn last(&self) -> *mut u8 {
        self.objects().last().map_or(ptr::null_mut(), |last| last.object)
    }

    /// Whether the spans of all objects seem to be the shard's.
    #[inline(always)]
    fn all_of(&self, shard: usize) -> bool {
        self.owners == 1 << shard
    }

    /// The shard of one of the [objects](Self::objects).
    ///
    /// # Safety
    /// Not [all](Self::all_of) are of one shard.
    #[inline(always)]
    unsafe fn shard_of(&self, at: usize) -> usize {
        debug_assert!(self.owners.count_ones() > 1 && at < self.count);
        // SAFETY: passed on to the caller: so they are written, up to `count`.
        self.shards.get(at).map_or(0, |shard| unsafe { shard.assume_init() } as usize)
    }
}

/// The span, if it is one of `class` and the shard. Under the lock of both.
#[inline(always)]
pub(crate) fn span_at_home(
    class: Class,
    span: Option<NonNull<Span>>,
    shard: usize,
) -> Option<NonNull<Span>> {
    let found = span?;
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
    /// Takes those of the objects back whose spans are the shard's, and counts `stores`.
    ///
    /// # Safety
    /// The objects are the caller's, and the shard is one of `homing.owners`.
    #[inline]
    unsafe fn bring_home<const ALONE: bool>(
        self,
        class: Class,
        homing: &Homing,
        stores: u64,
    ) -> Result<(), Misuse> {
        let mut emptied = Emptied::new();
        let per_class = &self.shard().classes[class.id()];
        let mut spans = per_class.spans.lock();
        spans.stores += stores;
        // SAFETY: passed on to the caller; under the lock.
        let answer = unsafe { self.put_all::<ALONE>(class, homing, &mut spans, &mut emptied) };
        self.note_spare(per_class, class, &spans);
        drop(spans);
        // SAFETY: C3: they left their class with no object handed out.
        unsafe { self.let_all_go(&emptied) };
        answer
    }

    /// Lets spans go that have left their class, which is not locked any more.
    ///
    /// # Safety
    /// They left it with no object handed out (C3), and are the caller's.
    #[inline(always)]
    pub(crate) unsafe fn let_all_go(self, emptied: &Emptied) {
        for span in emptied.spans.iter().take(emptied.count) {
            // SAFETY: the first `count` are written; else passed on to the caller.
            unsafe { self.let_go(span.assume_init()) };
        }
    }

    /// [`bring_home`](Self::bring_home) under the lock.
    ///
    /// # Safety
    /// As for `bring_home`; the spans are those of the class and the shard.
    #[inline(always)]
    unsafe fn put_all<const ALONE: bool>(
        self,
        class: Class,
        homing: &Homing,
        spans: &mut Spans,
        emptied: &mut Emptied,
    ) -> Result<(), Misuse> {
        let shape = class.shape();
        let all = ALONE || homing.all_of(self.at());
        let objects = homing.objects();
        let Range { start, end } = objects.as_ptr_range();
        // SAFETY: `each` is one of `objects`, or their end.
        let number = |each: *const Homebound| unsafe { each.offset_from(start) as usize };
        let (mut each, mut passed) = (start, 0);
        let answer = loop {
            if each == end {
                break Ok(());
            }
            // SAFETY: `each` is one of `objects` until it is their end, here and below; and not all are of this shard, which has some.
            unsafe {
                if !all && homing.shard_of(number(each)) != self.at() {
                    (each, passed) = (each.add(1), passed + 1);
                    continue;
                }
            }
            // SAFETY: as above.
            let Homebound { object, span } = unsafe { *each };
            let Some(home) = span_at_home(class, NonNull::new(span), self.at()) else {
                break Err(Misuse::Foreign(object, class));
            };
            // SAFETY: records stay records.
            let mut putting = Putting::begin(unsafe { home.as_ref() }, shape);
            let begun = each;
            // Neighbours often come back one after the other: a span is settled once for all of them.
            // SAFETY: as above; the span is one of this class, of which the shape is, under its lock.
            let refused = unsafe {
                loop {
                    if !putting.put((*each).object) {
                        break true;
                    }
                    each = each.add(1);
                    if each == end || (*each).span != span {
                        break false;
                    }
                }
            };
            // One that has emptied and left, and to which a double free leads once more, gets none: it may be another class's by now, and nothing
            // is written to it.
            if !refused || each > begun {
                putting.end();
                // SAFETY: the span is one of this class, under its lock.
                if unsafe { spans.settle(class, home) } {
                    emptied.push(home);
                }
            }
            if refused {
                // SAFETY: as above.
                break unsafe { not_put(class, (*each).object, home) };
            }
        };
        spans.live -= number(each) - passed;
        answer
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
        // SAFETY: passed on to the caller.
        unsafe {
            match self.is_alone() {
                true => self.store_each::<true>(class, chain),
                false => self.store_each::<false>(class, chain),
            }
        }
    }

    /// [`store_to_spans`](Self::store_to_spans); `ALONE`: all spans are the first shard's.
    ///
    /// # Safety
    /// As for `store_to_spans`.
    #[inline(always)]
    unsafe fn store_each<const ALONE: bool>(
        &self,
        class: Class,
        chain: Chain,
    ) -> Result<(), Misuse> {
        let (mut list, mut uncounted) = (chain.head, 1);
        let mut left = chain.count;
        loop {
            let mut homing = Homing::new();
            // SAFETY: the chain owns its objects.
            unsafe {
                homing.take::<ALONE>(&mut list, MAX_BATCH, |address| self.source.span_of(address))
            };
            if homing.count == 0 && left == 0 {
                return Ok(());
            }
            if list.is_null() && homing.count < left {
                // It was cut inside a circle.
                return Err(Misuse::DoubleFree(homing.last(), class));
            }
            left = left.saturating_sub(MAX_BATCH);
            // SAFETY: the objects are the caller's.
            unsafe {
                self.bring_all_home::<ALONE>(class, &homing, core::mem::take(&mut uncounted))?
            };
            if list.is_null() {
                return Ok(());
            }
        }
    }

    /// [`store_to_spans`](Self::store_to_spans) of the first `count` objects of a list, one at least and at most a batch. Before anybody else may have one of
    /// them `out` is told what is left of the list, and its error is the answer if it finds one.
    ///
    /// Cost: some 35 instructions for an object that lies in the same span as the one before, 75 for another one, while there is one shard.
    ///
    /// # Errors
    /// As for `store_to_spans`; a list that ends early is reported as there. Some of the objects may be at home then, of which `out` does not
    /// know.
    ///
    /// # Safety
    /// As for `store_to_spans`, of the first `count` objects from `head` on.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub unsafe fn store_first_to_spans(
        &self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        debug_assert!((1..=MAX_BATCH).contains(&count));
        if self.is_alone() {
            // SAFETY: passed on to the caller.
            return unsafe { Near::of_shard(self, 0).store_straight(class, head, count, out) };
        }
        let mut list = head;
        let mut homing = Homing::new();
        // SAFETY: passed on to the caller, here and below.
        unsafe { homing.take::<false>(&mut list, count, |address| self.source.span_of(address)) };
        if homing.count < count || list == homing.last() {
            return Err(Misuse::DoubleFree(homing.last(), class));
        }
        out(list)?;
        // SAFETY: as above.
        unsafe { self.bring_all_home::<false>(class, &homing, 1) }
    }

    /// Takes objects back, those of each shard under its lock.
    ///
    /// # Safety
    /// The objects are the caller's.
    #[inline(always)]
    unsafe fn bring_all_home<const ALONE: bool>(
        &self,
        class: Class,
        homing: &Homing,
        mut stores: u64,
    ) -> Result<(), Misuse> {
        let mut owners = homing.owners;
        while owners != 0 {
            let owner = owners.trailing_zeros() as usize;
            owners &= owners - 1;
            let shard = Near::of_shard(self, owner);
            // SAFETY: passed on to the caller, and this is one of the owners.
            unsafe { shard.bring_home::<ALONE>(class, homing, core::mem::take(&mut stores))? };
        }
        Ok(())
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
    span_at_home(class, NonNull::new(span), shard)
        .filter(|&span| is_within(object, span))
        .ok_or(Misuse::Foreign(object, class))
}

/// What an object is reported as that its span has not taken.
///
/// # Safety
/// The span is one of the class, under its lock.
#[cold]
pub(crate) unsafe fn not_put(
    class: Class,
    object: *mut u8,
    span: NonNull<Span>,
) -> Result<(), Misuse> {
    if is_within(object, span) {
        // SAFETY: passed on to the caller.
        refused(unsafe { span.as_ref().probe_refused(object as usize) }, class, object)
    } else {
        Err(Misuse::Foreign(object, class))
    }
}
