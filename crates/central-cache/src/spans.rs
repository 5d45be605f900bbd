//! The spans of one class, by occupancy.

use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{Past, Span};
use tiermalloc_size_class::Class;

use crate::carry::Gathered;
#[cfg(not(tiermalloc_loom))]
use crate::counts::Survey;

/// Lists by occupancy: the last one holds the fullest spans.
pub(crate) const GROUPS: usize = 8;
/// `Span::group` of a span that is on no list.
const ON_NONE: u8 = u8::MAX;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Objects that fill whole lines, whatever their size is.
const LINES: usize = 8;

/// The spans of a class that have free objects. Under the lock of the class, which also covers the
/// object fields of all spans of the class, full ones included.
pub(crate) struct Spans {
    heads: [*mut Span; GROUPS],
    /// Bit `g`: list `g` is not empty.
    nonempty: u32,
    /// Spans of the class, full ones included.
    pub(crate) spans: u32,
    /// Objects handed out, to threads and to the transfer cache.
    pub(crate) live: usize,
    /// Objects in the spans that have been handed out at one time.
    pub(crate) touched: usize,
    /// Since the start: chains that were fetched, objects in them, chains that came back.
    pub(crate) fetches: u64,
    pub(crate) taken: u64,
    pub(crate) stores: u64,
}

// SAFETY: the records belong to whoever holds the lock.
unsafe impl Send for Spans {}

/// Which list a span with `live` objects handed out belongs to.
#[inline]
fn group_of(class: Class, live: usize) -> u8 {
    if live >= class.objects() { ON_NONE } else { class.eighths(live) as u8 }
}

/// The fewest objects handed out with which a span belongs to a group, but for those with none, which leave their class.
#[inline]
fn fewest_of(class: Class, group: u8) -> usize {
    let objects = class.objects();
    if group == ON_NONE { objects } else { (group as usize * objects).div_ceil(GROUPS).max(1) }
}

impl Spans {
    pub(crate) const fn new() -> Self {
        Self {
            heads: [ptr::null_mut(); GROUPS],
            nonempty: 0,
            spans: 0,
            live: 0,
            touched: 0,
            fetches: 0,
            taken: 0,
            stores: 0,
        }
    }

    /// The fullest span that has a free object.
    #[inline]
    pub(crate) fn fullest(&self) -> Option<NonNull<Span>> {
        let group = self.nonempty.checked_ilog2()?;
        NonNull::new(self.heads[group as usize])
    }

    /// Adopts a fresh span, on no list yet.
    ///
    /// # Safety
    /// The span is of this class and the caller's alone.
    pub(crate) unsafe fn adopt(&mut self, span: NonNull<Span>) {
        self.spans += 1;
        // SAFETY: the caller's alone; now the class's.
        unsafe {
            self.touched += span.as_ref().ever_taken();
            span.as_ref().group.set(ON_NONE);
            self.regroup(span.as_ref());
        }
    }

    /// Takes up to `wanted` objects out of `span`, in order of address; `gathered` has room for them. Returns
    /// their number, and whether the last of them was never used and is all zero.
    ///
    /// # Safety
    /// The span is of this class.
    #[inline]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn take(
        &mut self,
        class: Class,
        span: NonNull<Span>,
        wanted: usize,
        gathered: &mut Gathered,
    ) -> (usize, bool) {
        let mut zeroed = false;
        // SAFETY: under the lock of the class; what `take_objects` gives out is ours (C1).
        unsafe {
            let mut room = gathered.room();
            let mut each = |address, past| {
                zeroed = past == Past::Zeroed;
                room.push(address as *mut u8);
            };
            let mut taken = 0;
            let before = span.as_ref().ever_taken();
            // Who begins with a class of such small objects asks for these: its lines are its own then.
            if wanted == LINES && class.size() < LINE {
                taken = span.as_ref().take_lines(&mut each);
            }
            if taken == 0 {
                taken = span.as_ref().take_objects(wanted, each);
            }
            gathered.count = room.filled();
            self.live += taken;
            self.taken += taken as u64;
            self.touched += span.as_ref().ever_taken() - before;
            self.regroup(span.as_ref());
            (taken, zeroed)
        }
    }

    /// Takes one object out of `span`, untouched, and what is known of its contents.
    ///
    /// # Safety
    /// The span is of this class.
    pub(crate) unsafe fn take_one(&mut self, span: NonNull<Span>) -> Option<(*mut u8, Past)> {
        let mut got = None;
        // SAFETY: under the lock of the class; what `take_objects` gives out is ours (C1).
        unsafe {
            let before = span.as_ref().ever_taken();
            let taken = span.as_ref().take_objects(1, |address, past| {
                got = Some((address as *mut u8, past));
            });
            self.live += taken;
            self.taken += taken as u64;
            self.fetches += taken as u64;
            self.touched += span.as_ref().ever_taken() - before;
            self.regroup(span.as_ref());
        }
        got
    }

    /// Puts a span to which objects came back where it belongs (C2). When all have, it leaves the
    /// class (C3): true, and the caller frees it once the lock is given up.
    ///
    /// # Safety
    /// The span is one of this class.
    #[inline(always)]
    pub(crate) unsafe fn settle(&mut self, class: Class, span: NonNull<Span>) -> bool {
        // SAFETY: under the lock of the class.
        unsafe { span.as_ref().is_below() && self.resettle(class, span) }
    }

    /// [`settle`](Self::settle) of a span that does not belong where it is. Once in several objects: out of the way of what
    /// is done for each.
    ///
    /// # Safety
    /// As for `settle`.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    unsafe fn resettle(&mut self, class: Class, span: NonNull<Span>) -> bool {
        // SAFETY: under the lock of the class.
        unsafe {
            let record = span.as_ref();
            self.unlink(record);
            if record.live() > 0 {
                self.link(class, record, group_of(class, record.live()));
                return false;
            }
            self.touched -= record.ever_taken();
        }
        self.spans -= 1;
        true
    }

    #[cfg(not(tiermalloc_loom))]
    /// Looks at every span that has a free object: how full they are, and what was never handed out.
    pub(crate) fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let mut listed = 0;
        for (group, &head) in self.heads.iter().enumerate() {
            let mut at = head;
            // SAFETY: spans on the lists are of the class, whose lock is held.
            while let Some(span) = unsafe { at.as_ref() } {
                survey.by_eighths[group] += 1;
                // SAFETY: as above.
                survey.never_taken += unsafe { span.never_taken() };
                survey.untouched_pages += span.pages() - span.touched_pages();
                listed += 1;
                at = span.next.get();
            }
        }
        survey.by_eighths[GROUPS] = (self.spans as usize).saturating_sub(listed);
        survey
    }

    /// Puts a span on the list of its occupancy (C2).
    #[inline(always)]
    unsafe fn regroup(&mut self, span: &Span) {
        let Some(class) = span.class() else { return };
        let group = group_of(class, span.live());
        if group != span.group.get() {
            // SAFETY: under the lock of the class.
            unsafe {
                self.unlink(span);
                self.link(class, span, group);
            }
        }
    }

    unsafe fn link(&mut self, class: Class, span: &Span, group: u8) {
        span.group.set(group);
        span.low.set(fewest_of(class, group) as u16);
        if group == ON_NONE {
            return;
        }
        let head = self.heads[group as usize];
        span.prev.set(ptr::null_mut());
        span.next.set(head);
        // SAFETY: heads of lists are null or spans of the class.
        if let Some(head) = unsafe { head.as_ref() } {
            head.prev.set(ptr::from_ref(span).cast_mut());
        }
        self.heads[group as usize] = ptr::from_ref(span).cast_mut();
        self.nonempty |= 1 << group;
    }

    unsafe fn unlink(&mut self, span: &Span) {
        let group = span.group.get();
        if group == ON_NONE {
            return;
        }
        let (prev, next) = (span.prev.get(), span.next.get());
        // SAFETY: neighbours on a list are null or spans of the class.
        unsafe {
            match prev.as_ref() {
                Some(prev) => prev.next.set(next),
                None => self.heads[group as usize] = next,
            }
            if let Some(next) = next.as_ref() {
                next.prev.set(prev);
            }
        }
        if self.heads[group as usize].is_null() {
            self.nonempty &= !(1 << group);
        }
        span.group.set(ON_NONE);
    }
}
