//! Spans that a shard keeps when their last object has come home, as they are, for any class of as many pages.
//!
//! Where many processors work at the same time the page heap's lock is what they meet at, and each span that
//! is cut or coalesced there is some cache lines from elsewhere. What one class has no use for, another one soon has: so
//! with more than one shard each keeps a bounded part of the heap for itself, newest first. What nobody has wanted
//! since the last look goes back, as batches do.

use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{RawLock, Span};
use tiermalloc_size_class::{Class, MAX_SPAN_PAGES, PAGE_SIZE};

#[cfg(not(tiermalloc_loom))]
use tiermalloc_sync::{Patience, lock_within};

use crate::{CentralCache, Near, SpanSource};

/// All shards together keep such a part of the heap,
const PART: usize = 8;
/// but none of them more than this (bytes).
const MOST: usize = if cfg!(tiermalloc_loom) { 256 << 10 } else { 8 << 20 };
/// Pages (2 MiB) for each of which the source is told.
const SURPLUS: usize = (2 << 20) / PAGE_SIZE;
/// One part in so many of that is taken from the source at once.
const RUN: usize = 4;

/// Lengths of spans, 0 among them.
const LENGTHS: usize = MAX_SPAN_PAGES + 1;

/// Empty spans by their length. Under the lock of the shard's own.
pub(crate) struct Kept {
    heads: [*mut Span; LENGTHS],
    counts: [u32; LENGTHS],
    /// Least number of each since the last look.
    low_water: [u32; LENGTHS],
    pages: usize,
    /// Those of them that may be resident.
    touched: usize,
}

// SAFETY: the records belong to whoever holds the lock.
unsafe impl Send for Kept {}

impl Kept {
    pub(crate) const fn new() -> Self {
        Self {
            heads: [ptr::null_mut(); LENGTHS],
            counts: [0; LENGTHS],
            low_water: [0; LENGTHS],
            pages: 0,
            touched: 0,
        }
    }

    /// # Safety
    /// The span is the caller's alone, and on no list.
    unsafe fn push(&mut self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        let record = unsafe { span.as_ref() };
        let head = &mut self.heads[record.pages()];
        record.next.set(*head);
        *head = span.as_ptr();
        self.counts[record.pages()] += 1;
        self.pages += record.pages();
        self.touched += record.touched_pages();
    }

    /// The newest span of so many pages.
    fn pop(&mut self, pages: usize) -> Option<NonNull<Span>> {
        let span = NonNull::new(self.heads[pages])?;
        // SAFETY: spans on the lists are the shard's.
        let record = unsafe { span.as_ref() };
        self.heads[pages] = record.next.get();
        self.pages -= pages;
        self.touched -= record.touched_pages();
        self.counts[pages] -= 1;
        self.low_water[pages] = self.low_water[pages].min(self.counts[pages]);
        Some(span)
    }

    /// The longest one.
    fn pop_longest(&mut self) -> Option<NonNull<Span>> {
        let pages = (1..LENGTHS).rev().find(|&pages| !self.heads[pages].is_null())?;
        self.pop(pages)
    }

    /// Starts a new period and says how many of each length nobody has wanted in the last one.
    fn start_period(&mut self) -> [u32; LENGTHS] {
        let idle = self.low_water;
        for (low, (count, idle)) in self.low_water.iter_mut().zip(self.counts.iter().zip(idle)) {
            *low = count - idle;
        }
        idle
    }
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// A span for `class`: a kept one, or one from the source.
    pub(crate) fn span_for(self, class: Class) -> Option<NonNull<Span>> {
        let (source, most) = (&self.central.source, self.most_kept());
        if self.central.log() == 0 {
            return source.alloc_span(class);
        }
        let mut kept = self.shard().kept.lock();
        let (span, room) = (kept.pop(class.pages()), most.saturating_sub(kept.pages));
        drop(kept);
        match span {
            None => self.run_for(class, (most / RUN).min(room) / class.pages()),
            // SAFETY: it has no object handed out, and is nobody's.
            Some(span) => unsafe {
                if source.recarve(span, class) {
                    return Some(span);
                }
                source.free_span(span);
                source.alloc_span(class)
            },
        }
    }

    /// A span for `class` from the source; others that come with it, up to `spans` altogether, are kept. They lie side by side,
    /// and what different shards write to does not.
    fn run_for(self, class: Class, spans: usize) -> Option<NonNull<Span>> {
        let source = &self.central.source;
        if spans < 2 {
            return source.alloc_span(class);
        }
        let mut spares: *mut Span = ptr::null_mut();
        let span = source.alloc_span_run(class, spans - 1, &mut |span| {
            // SAFETY: it is ours.
            unsafe { span.as_ref() }.next.set(spares);
            spares = span.as_ptr();
        });
        if !spares.is_null() {
            let mut kept = self.shard().kept.lock();
            // The lowest was the last to be passed on, and comes to lie in front.
            let mut turned = ptr::null_mut();
            while let Some(span) = NonNull::new(spares) {
                // SAFETY: as above.
                spares = unsafe { span.as_ref() }.next.replace(turned);
                turned = span.as_ptr();
            }
            while let Some(span) = NonNull::new(turned) {
                // SAFETY: as above.
                unsafe {
                    turned = span.as_ref().next.get();
                    kept.push(span);
                }
            }
        }
        span
    }

    /// Most pages that the shard keeps: none while it is the only one.
    #[inline]
    fn most_kept(self) -> usize {
        let (source, log) = (&self.central.source, self.central.log());
        if log == 0 || source.is_tight() {
            return 0;
        }
        ((source.reserved_bytes() / PART) >> log).min(MOST) / PAGE_SIZE
    }

    /// Keeps a span or frees it.
    ///
    /// # Safety
    /// The span has left its class with no object handed out (C3).
    pub(crate) unsafe fn let_go(self, span: NonNull<Span>) {
        let source = &self.central.source;
        // SAFETY: the caller's alone.
        let (most, pages) = (self.most_kept(), unsafe { span.as_ref() }.pages());
        if most > 0 && pages <= MAX_SPAN_PAGES {
            let mut kept = self.shard().kept.lock();
            if kept.pages + pages <= most {
                // Before anybody may take it.
                // SAFETY: passed on to the caller.
                unsafe {
                    source.unregister(span);
                    kept.push(span);
                }
                let now = kept.pages;
                drop(kept);
                if now / SURPLUS != (now - pages) / SURPLUS {
                    source.surplus();
                }
                return;
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { source.free_span(span) }
    }

    /// Frees kept spans one by one, as long as `next` finds any.
    fn free_kept(self, mut next: impl FnMut(&mut Kept) -> Option<NonNull<Span>>) {
        loop {
            let Some(span) = next(&mut self.shard().kept.lock()) else { return };
            // SAFETY: it was kept, and is nobody's.
            unsafe { self.central.source.free_span(span) };
        }
    }

    /// Frees those kept spans that nobody has wanted since the last call.
    ///
    /// Cost: a lock, and what it costs to free them.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn free_idle_spans(self) {
        let idle = self.shard().kept.lock().start_period();
        for (pages, mut idle) in idle.into_iter().enumerate().filter(|&(_, idle)| idle > 0) {
            self.free_kept(|kept| {
                idle = idle.checked_sub(1)?;
                kept.pop(pages)
            });
        }
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// Frees all empty spans that shards keep.
    pub fn free_kept_spans(&self) {
        self.each_shard().for_each(|shard| shard.free_kept(Kept::pop_longest));
    }

    /// Bytes of the empty spans that shards keep; a lock for each shard.
    pub fn kept_bytes(&self) -> usize {
        self.each_shard().map(|shard| shard.shard().kept.lock().pages * PAGE_SIZE).sum()
    }
}

#[cfg(not(tiermalloc_loom))]
impl<R: RawLock, S> CentralCache<R, S> {
    /// Bytes of the empty spans that shards keep, and of pages of them that may be resident; `None`: somebody has had a
    /// lock for longer than the caller has patience.
    pub fn kept_within(&self, patience: &mut Patience) -> Option<(usize, usize)> {
        let mut all = (0, 0);
        for shard in self.each_shard() {
            let kept = lock_within(&shard.shard().kept, patience)?;
            all.0 += kept.pages * PAGE_SIZE;
            all.1 += kept.touched * PAGE_SIZE;
        }
        Some(all)
    }
}
