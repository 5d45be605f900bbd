//! Spans that a shard keeps when their last object has come home, as they are, for any class of as many pages.
//!
//! Where many processors work at the same time the page heap's lock is what they meet at, and each span that
//! is cut or coalesced there is some cache lines from elsewhere. What one class has no use for, another one soon has: so
//! with more than one shard each keeps a bounded part of the heap for itself, newest first. What nobody has wanted
//! since the last look goes back, as batches do.

use core::ptr::{self, NonNull};

use tiermalloc_page_heap::{RawLock, Span};
use tiermalloc_size_class::{Class, MAX_SPAN_PAGES, PAGE_SIZE};

use crate::{CentralCache, Near, SpanSource};

/// All shards together keep such a part of the heap,
const PART: usize = 8;
/// but none of them more than this (bytes).
const MOST: usize = if cfg!(tiermalloc_loom) { 256 << 10 } else { 8 << 20 };
/// One part in so many of that is taken from the source at once.
const RUN: usize = 4;

/// Empty spans by their length. Under the lock of the shard's own.
pub(crate) struct Kept {
    heads: [*mut Span; MAX_SPAN_PAGES + 1],
    pages: usize,
    /// Least number of pages since the last look.
    low_water: usize,
}

// SAFETY: the records belong to whoever holds the lock.
unsafe impl Send for Kept {}

impl Kept {
    pub(crate) const fn new() -> Self {
        Self { heads: [ptr::null_mut(); MAX_SPAN_PAGES + 1], pages: 0, low_water: 0 }
    }

    /// # Safety
    /// The span is the caller's alone, and on no list.
    unsafe fn push(&mut self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        let record = unsafe { span.as_ref() };
        let head = &mut self.heads[record.pages()];
        record.next.set(*head);
        *head = span.as_ptr();
        self.pages += record.pages();
    }

    /// Puts spans of so many pages each in front, linked from `first` to `last`.
    ///
    /// # Safety
    /// They are the caller's alone.
    unsafe fn splice(
        &mut self,
        first: NonNull<Span>,
        last: NonNull<Span>,
        pages: usize,
        count: usize,
    ) {
        let head = &mut self.heads[pages];
        // SAFETY: passed on to the caller.
        unsafe { last.as_ref() }.next.set(*head);
        *head = first.as_ptr();
        self.pages += pages * count;
    }

    /// The newest span of so many pages.
    fn pop(&mut self, pages: usize) -> Option<NonNull<Span>> {
        let span = NonNull::new(self.heads[pages])?;
        // SAFETY: spans on the lists are the shard's.
        self.heads[pages] = unsafe { span.as_ref() }.next.get();
        self.pages -= pages;
        self.low_water = self.low_water.min(self.pages);
        Some(span)
    }

    /// The longest one.
    fn pop_longest(&mut self) -> Option<NonNull<Span>> {
        let pages = (1..=MAX_SPAN_PAGES).rev().find(|&pages| !self.heads[pages].is_null())?;
        self.pop(pages)
    }
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// A span for `class`: a kept one, or one from the source.
    pub(crate) fn span_for(self, class: Class) -> Option<NonNull<Span>> {
        let (source, most) = (&self.central.source, self.most_kept());
        if most == 0 {
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
        let mut ends: Option<(NonNull<Span>, NonNull<Span>)> = None;
        let mut count = 0;
        let span =
            self.central.source.alloc_span_run(class, spans.saturating_sub(1), &mut |span| {
                count += 1;
                let next = ends.map_or(ptr::null_mut(), |(first, _)| first.as_ptr());
                // SAFETY: it is ours.
                unsafe { span.as_ref() }.next.set(next);
                ends = Some((span, ends.map_or(span, |(_, last)| last)));
            });
        if let Some((first, last)) = ends {
            // SAFETY: as above, all of the class's length.
            unsafe { self.shard().kept.lock().splice(first, last, class.pages(), count) };
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
        // SAFETY: the caller's alone.
        let (most, pages) = (self.most_kept(), unsafe { span.as_ref() }.pages());
        if most > 0 && pages <= MAX_SPAN_PAGES {
            let mut kept = self.shard().kept.lock();
            if kept.pages + pages <= most {
                // SAFETY: passed on to the caller.
                return unsafe { kept.push(span) };
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { self.central.source.free_span(span) }
    }

    /// Frees kept spans of `pages` pages altogether, or as many as there are, the longest first.
    fn free_kept(self, pages: usize) {
        let mut freed = 0;
        while freed < pages {
            let Some(span) = self.shard().kept.lock().pop_longest() else { return };
            // SAFETY: it was kept, and is nobody's.
            unsafe {
                freed += span.as_ref().pages();
                self.central.source.free_span(span);
            }
        }
    }

    /// Frees as much of what the shard keeps as nobody has wanted since the last call.
    ///
    /// Cost: a lock, and what it costs to free them.
    pub fn free_idle_spans(self) {
        let mut kept = self.shard().kept.lock();
        let idle = kept.low_water;
        kept.low_water = kept.pages - idle;
        drop(kept);
        self.free_kept(idle);
    }
}

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// Frees all empty spans that shards keep.
    pub fn free_kept_spans(&self) {
        self.each_shard().for_each(|shard| shard.free_kept(usize::MAX));
    }

    /// Bytes of the empty spans that shards keep.
    pub fn kept_bytes(&self) -> usize {
        self.each_shard().map(|shard| shard.shard().kept.lock().pages * PAGE_SIZE).sum()
    }
}
