//! Memory for the heap's own records, from the same source as the pages.

use core::alloc::Layout;
use core::ptr::NonNull;

use tiermalloc_object_pool::{ChunkSource, RawPool};
use tiermalloc_page_map::MapMemory;
use tiermalloc_size_class::{MAX_OBJECTS, PAGE_SIZE};

use crate::source::PageSource;
use crate::span::Span;

/// Bytes of records taken at once. They cost memory only as they are used.
const CHUNK: usize = 128 * 1024;

/// Free bits for spans of up to 512 objects, and for all others.
const SHORT_BITS: usize = 512;

/// Adapts a page source to what the page map and the pools ask for.
pub(crate) struct Meta<'a, S>(pub(crate) &'a S);

fn whole_pages(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE_SIZE)
}

// SAFETY: reserved memory is zero, aligned to pages (no record asks for more) and ours alone.
unsafe impl<S: PageSource> MapMemory for Meta<'_, S> {
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.reserve(whole_pages(layout))
    }
    unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.release(memory, whole_pages(layout)) };
    }
}

// SAFETY: as above.
unsafe impl<S: PageSource> ChunkSource for Meta<'_, S> {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.reserve(whole_pages(layout))
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { self.0.release(chunk, whole_pages(layout)) };
    }
}

/// The pools of records. Under the heap's lock.
pub(crate) struct Records {
    spans: RawPool,
    short_bits: RawPool,
    long_bits: RawPool,
}

impl Records {
    pub(crate) const fn new() -> Self {
        let (Ok(short), Ok(long)) = (
            Layout::from_size_align(SHORT_BITS / 8, 64),
            Layout::from_size_align(MAX_OBJECTS / 8, 64),
        ) else {
            panic!("constant layouts");
        };
        Self {
            spans: RawPool::new(Layout::new::<Span>(), CHUNK),
            short_bits: RawPool::new(short, CHUNK),
            long_bits: RawPool::new(long, CHUNK),
        }
    }

    /// A record for the pages `start..start + pages`, in state `Moving`.
    pub(crate) fn span<S: PageSource>(
        &mut self,
        source: &S,
        start: usize,
        pages: usize,
    ) -> Option<NonNull<Span>> {
        let span = self.spans.take(&Meta(source))?.cast::<Span>();
        // SAFETY: fresh memory of a span's layout.
        unsafe { span.write(Span::new(start, pages)) };
        Some(span)
    }

    /// # Safety
    /// The record came from `span` and nobody refers to it any more.
    pub(crate) unsafe fn give_span(&mut self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.spans.give(span.cast()) };
    }

    /// Room for `words` words of free bits.
    pub(crate) fn bits<S: PageSource>(&mut self, source: &S, words: usize) -> Option<NonNull<u64>> {
        self.bits_pool(words).take(&Meta(source)).map(NonNull::cast)
    }

    /// # Safety
    /// The memory came from `bits` with the same `words` and is not used any more.
    pub(crate) unsafe fn give_bits(&mut self, bits: NonNull<u64>, words: usize) {
        // SAFETY: passed on to the caller.
        unsafe { self.bits_pool(words).give(bits.cast()) };
    }

    fn bits_pool(&mut self, words: usize) -> &mut RawPool {
        if words * 64 <= SHORT_BITS { &mut self.short_bits } else { &mut self.long_bits }
    }

    /// Bytes taken from the source for records.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.spans.reserved_bytes()
            + self.short_bits.reserved_bytes()
            + self.long_bits.reserved_bytes()
    }

    /// Bytes of whole pages for records that nobody has touched.
    pub(crate) fn untouched_bytes(&self) -> usize {
        [&self.spans, &self.short_bits, &self.long_bits]
            .iter()
            .map(|pool| pool.fresh_bytes() & !(PAGE_SIZE - 1))
            .sum()
    }

    /// Bytes of records in use.
    pub(crate) fn live_bytes(&self) -> usize {
        self.spans.live() * size_of::<Span>()
            + self.short_bits.live() * SHORT_BITS / 8
            + self.long_bits.live() * MAX_OBJECTS / 8
    }
}
