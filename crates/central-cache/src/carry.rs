//! Objects on their way out of spans.
//!
//! Reading or writing an object may miss every cache, and the first time it is a page fault: with the lock of
//! the class held everybody else would wait for that. So objects are gathered by address under the lock and
//! linked behind it.

use core::mem::MaybeUninit;
use core::ptr;

use tiermalloc_page_heap::RawLock;
use tiermalloc_size_class::{Class, MAX_BATCH};
use tiermalloc_sync::atomic::Ordering;

use crate::shard::PerClass;
use crate::spans::Spans;
use crate::{Chain, Near, SpanSource};

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
    pub(crate) fn note_spare(self, per_class: &PerClass<R>, class: Class, spans: &Spans) {
        if self.central.log() > 0 {
            per_class.note_spare(class, spans);
        }
    }
}
