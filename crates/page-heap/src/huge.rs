//! The largest allocations: a mapping each, straight from the source and back to it.

use core::ptr::NonNull;

use tiermalloc_size_class::{PAGE_SHIFT, PAGE_SIZE, round_up};
use tiermalloc_sync::MutexGuard;

use crate::grow::MAX_SPAN;
use crate::heap::{Inner, PageHeap};
use crate::lock::RawLock;
use crate::meta::Meta;
use crate::source::PageSource;
use crate::span::{Span, State};

/// Shortest free span that is unmapped when addresses run out (pages; 256 KiB).
const WORTH_UNMAPPING: usize = if cfg!(tiermalloc_loom) { 2 } else { 32 };

/// Guarded allocations at one time. Each costs the kernel three mappings where a program has 65,530 by
/// default, and without any left nothing can be mapped at all.
const MOST_GUARDED: usize = if cfg!(tiermalloc_loom) { 2 } else { 8192 };

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// A mapping of its own for `bytes` bytes at alignment `align` (a power of two), all zero. When
    /// the source has none, a free span of the heap will do; when addresses are short, what the heap
    /// has free is unmapped first, also what others are about to give back at this moment: then it may take some 200 ms. `None`
    /// when all that has not helped.
    pub fn alloc_huge(&self, bytes: usize, align: usize) -> Option<NonNull<Span>> {
        let unit = self.unit();
        let bytes = self.whole_pages(bytes)?;
        if let Some(span) = self.map_huge(bytes, align.max(unit), 0) {
            return Some(span);
        }
        let pages = bytes >> PAGE_SHIFT;
        let align_pages = (align >> PAGE_SHIFT).max(1);
        if !self.has_room(bytes) {
            return None;
        }
        let from_free = || self.alloc_large_from_free(pages, align_pages);
        let unmap = || {
            self.unmap_free();
            self.map_huge(bytes, align.max(unit), 0)
        };
        if let Some(span) = from_free() {
            return Some(span);
        }
        let others = self.unmapping_may_help(bytes)?;
        // What others have in their hands is neither free nor the source's.
        unmap().or_else(|| {
            if self.await_others() || others { from_free().or_else(unmap) } else { None }
        })
    }

    /// [`alloc_huge`](Self::alloc_huge) between two pages that nobody can touch, as far as the source
    /// can forbid it; never out of what the heap has free. Such an allocation is not resized in place.
    /// `None` also when there are many such already (8192).
    pub fn alloc_guarded(&self, bytes: usize, align: usize) -> Option<NonNull<Span>> {
        let unit = self.unit();
        let bytes = self.whole_pages(bytes)?;
        if self.inner.lock().stats.guarded_spans >= MOST_GUARDED {
            return None;
        }
        let span = self.map_huge(bytes, align.max(unit), unit)?;
        // SAFETY: a mapping of the caller's; nobody has seen what lies on its sides.
        unsafe {
            let (start, end) = (span.as_ref().address() - unit, span.as_ref().address() + bytes);
            for guard in
                [start, end].map(|page| NonNull::new(page as *mut u8)).into_iter().flatten()
            {
                self.source.forbid(guard, unit);
            }
        }
        Some(span)
    }

    /// What mappings are made of: whole pages of ours and of the system's (bytes).
    fn unit(&self) -> usize {
        PAGE_SIZE.max(self.source.os_page_size())
    }

    /// The length of a mapping for `bytes` bytes, unless that is absurd.
    fn whole_pages(&self, bytes: usize) -> Option<usize> {
        let bytes = round_up(bytes, self.unit());
        let fits = bytes != 0 && bytes <= isize::MAX as usize && bytes >> PAGE_SHIFT <= MAX_SPAN;
        fits.then_some(bytes)
    }

    /// Whether the source would have `bytes` bytes if it had all free pages back, and those in somebody's hands: tried with the
    /// difference. Else an absurd request would cost the heap all that it has free. Returns whether anybody had pages in his
    /// hands, or `None` if it would not.
    fn unmapping_may_help(&self, bytes: usize) -> Option<bool> {
        self.return_all_waiting();
        let (free, in_hand) = {
            let inner = self.inner.lock();
            (inner.stats.free_pages << PAGE_SHIFT, inner.in_hand() << PAGE_SHIFT)
        };
        let missing = round_up(bytes.saturating_sub(free + in_hand), self.unit());
        if missing > 0 {
            let probe = self.source.reserve(missing)?;
            // SAFETY: nobody has seen it.
            unsafe { self.give_back(probe, missing) };
        }
        Some(in_hand > 0)
    }

    /// A mapping with `guard` bytes more on either side, which do not count.
    fn map_huge(&self, bytes: usize, align: usize, guard: usize) -> Option<NonNull<Span>> {
        if !self.commit_huge(bytes >> PAGE_SHIFT) {
            return None;
        }
        let mapped = self.map_committed(bytes, align, guard);
        match mapped {
            Some(_) if self.is_tight() => self.relieve_after_cut(),
            Some(_) => {}
            None => self.uncommit_huge(bytes >> PAGE_SHIFT),
        }
        mapped
    }

    /// [`map_huge`](Self::map_huge) of what has been counted.
    fn map_committed(&self, bytes: usize, align: usize, guard: usize) -> Option<NonNull<Span>> {
        let slack = if align > PAGE_SIZE { align - self.unit().min(align) } else { 0 };
        let mapped = bytes.checked_add(slack)?.checked_add(2 * guard)?;
        let region = self.source.reserve_block(mapped)?;
        let start = region.as_ptr() as usize;
        let address = round_up(start + guard, align);
        let (first, end) = (address - guard, address + bytes + guard);
        let (head, tail) = (first - start, start + mapped - end);
        // SAFETY: both ends are ours and nobody has seen them.
        unsafe {
            if head > 0 {
                self.give_back(region, head);
            }
            if tail > 0 {
                self.give_back(NonNull::new(end as *mut u8)?, tail);
            }
        }
        let place = NonNull::new(first as *mut u8)?;
        // SAFETY: ours until handed out.
        let filled = guard == 0 && unsafe { self.fill_mapping(place, end - first) };
        if self.map.ensure(address, 1, &Meta(&self.source)).is_ok() {
            let mut inner = self.inner.lock();
            let record =
                inner.records.span(&self.source, address >> PAGE_SHIFT, bytes >> PAGE_SHIFT);
            if let Some(span) = record {
                inner.stats.huge_spans += 1;
                inner.stats.huge_made += 1;
                inner.stats.guarded_spans += (guard > 0) as usize;
                // SAFETY: ours until handed out (H3).
                unsafe {
                    span.as_ref().set_zeroed(true);
                    span.as_ref().set_guard(guard);
                    span.as_ref().set_filled_to(if filled { bytes } else { 0 });
                    span.as_ref().set_state(State::Huge);
                    self.map.set(address >> PAGE_SHIFT, 1, span, 0);
                }
                self.note_soft_limit(&inner);
                return Some(span);
            }
        }
        // SAFETY: nobody has seen the mapping.
        unsafe { self.give_back(place, end - first) };
        None
    }

    /// The second half of freeing a huge span; gives the lock up.
    ///
    /// # Safety
    /// The span is the caller's, `Moving`, and in the map with no page.
    // Apart, so that it costs who frees a large span no register.
    #[inline(never)]
    pub(crate) unsafe fn free_huge(
        &self,
        mut inner: MutexGuard<'_, R, Inner>,
        span: NonNull<Span>,
    ) {
        // SAFETY: the caller's.
        let record = unsafe { span.as_ref() };
        let (guard, bytes) = (record.guard(), record.bytes());
        let (first, mapped) = (record.address() - guard, bytes + 2 * guard);
        let pages = record.pages();
        inner.stats.huge_pages -= pages;
        inner.stats.huge_spans -= 1;
        inner.stats.guarded_spans -= (guard > 0) as usize;
        let Some(place) = NonNull::new(first as *mut u8) else { return };
        let this = inner.begin_move(record, pages);
        drop(inner);
        // SAFETY: the mapping is not used any more.
        if unsafe { self.source.release(place, mapped) } {
            let mut inner = self.inner.lock();
            inner.end_move(this);
            inner.stats.huge_returned_pages += pages;
            self.note_soft_limit(&inner);
            // SAFETY: nothing refers to the record any more.
            unsafe { inner.records.give_span(span) };
            return;
        }
        // The source keeps it (a kernel out of mappings, say): it becomes part of the heap, and only guards
        // are lost.
        if self.map.ensure(record.address(), bytes, &Meta(&self.source)).is_ok() {
            record.set_guard(0);
            let mut inner = self.inner.lock();
            let reserved = inner.stats.reserved_pages + record.pages();
            self.set_reserved(&mut inner, reserved);
            record.set_dirty(0, record.pages());
            // SAFETY: ours, on no set, in the map with no page.
            unsafe { self.put_back(&mut inner, span) };
            inner.end_move(this);
            self.note_soft_limit(&inner);
        } else {
            // Nor is there a leaf for it: its addresses are lost, its memory need not be.
            // SAFETY: the mapping is not used any more, and nothing refers to the record.
            unsafe {
                self.source.decommit(place, mapped);
                let mut inner = self.inner.lock();
                inner.end_move(this);
                self.note_soft_limit(&inner);
                inner.records.give_span(span);
            }
        }
    }

    /// Resizes the huge allocation at `address` to `bytes` bytes, moved by the source if it has to
    /// be. `None`: it could not, and nothing has changed.
    ///
    /// # Safety
    /// `address` is a live huge allocation of the caller's; when the answer differs from it, the old
    /// address is not used again.
    pub unsafe fn resize_huge(&self, address: usize, bytes: usize) -> Option<usize> {
        let bytes = self.whole_pages(bytes)?;
        let span = self.map.span(address)?;
        // SAFETY: a live allocation's record is valid, and it is the caller's.
        let record = unsafe { span.as_ref() };
        let old = record.bytes();
        if old == bytes {
            return Some(address);
        }
        if record.guard() > 0 {
            return None;
        }
        let place = NonNull::new(address as *mut u8)?;
        if bytes < old {
            let end = NonNull::new((address + bytes) as *mut u8)?;
            // SAFETY: the caller gives up the end.
            if !unsafe { self.source.release(end, old - bytes) } {
                return None;
            }
            let mut inner = self.inner.lock();
            inner.set_extent(record, record.start(), bytes >> PAGE_SHIFT);
            inner.stats.huge_pages -= (old - bytes) >> PAGE_SHIFT;
            inner.stats.huge_returned_pages += (old - bytes) >> PAGE_SHIFT;
            self.note_soft_limit(&inner);
            return Some(address);
        }
        let more = (bytes - old) >> PAGE_SHIFT;
        if !self.commit_huge(more) {
            return None;
        }
        // SAFETY: a whole mapping, which is the caller's.
        if unsafe { self.source.resize_in_place(place, old, bytes) } {
            let mut inner = self.inner.lock();
            inner.set_extent(record, record.start(), bytes >> PAGE_SHIFT);
            let over = self.note_soft_limit(&inner);
            drop(inner);
            if over {
                self.relieve_after_cut();
            }
            // SAFETY: passed on to the caller.
            unsafe { self.fill_grown(record, old) };
            return Some(address);
        }
        // SAFETY: passed on to the caller.
        let moved = unsafe { self.move_huge(span, bytes) };
        match moved {
            Some(_) if self.is_tight() => self.relieve_after_cut(),
            Some(_) => {}
            None => self.uncommit_huge(more),
        }
        moved
    }

    /// The second half of [`resize_huge`](Self::resize_huge): a longer block in another place.
    ///
    /// # Safety
    /// `span` is a live huge allocation of the caller's without guards; when there is an answer, its old address
    /// is not used again.
    unsafe fn move_huge(&self, span: NonNull<Span>, bytes: usize) -> Option<usize> {
        // SAFETY: a live allocation's record is valid, and it is the caller's.
        let record = unsafe { span.as_ref() };
        let old = record.bytes();
        let place = NonNull::new(record.address() as *mut u8)?;
        // A new place, known to the map before anything moves.
        let target = self.source.reserve_block(bytes)?;
        let now = target.as_ptr() as usize;
        // The old place leaves the map before somebody else can be given it.
        // SAFETY: the page is the caller's.
        unsafe { self.map.clear(record.start(), 1) };
        let moved = self.map.ensure(now, 1, &Meta(&self.source)).is_ok()
            // SAFETY: two whole mappings, the target unused; the caller gives up the old one.
            && unsafe { self.source.move_onto(place, old, target, bytes) };
        if !moved {
            // SAFETY: the target is unused, the old place still the caller's.
            unsafe {
                self.map.set(record.start(), 1, span, 0);
                self.give_back(target, bytes);
            }
            return None;
        }
        let mut inner = self.inner.lock();
        inner.set_extent(record, now >> PAGE_SHIFT, bytes >> PAGE_SHIFT);
        self.note_soft_limit(&inner);
        // SAFETY: the page is the caller's.
        unsafe { self.map.set(now >> PAGE_SHIFT, 1, span, 0) };
        drop(inner);
        // SAFETY: passed on to the caller.
        unsafe { self.fill_grown(record, old) };
        Some(now)
    }

    /// Unmaps the heap's longer free spans, addresses and all: for when addresses run out. Returns
    /// the number of pages.
    #[cold]
    pub fn unmap_free(&self) -> usize {
        let mut unmapped = 0;
        self.return_all_waiting();
        loop {
            let mut inner = self.inner.lock();
            let longest = [inner.clean.longest(), inner.dirty.longest()]
                .into_iter()
                .flatten()
                .max_by_key(|span| span.pages())
                .filter(|span| span.pages() >= WORTH_UNMAPPING)
                .map(NonNull::from);
            let Some(span) = longest else { return unmapped };
            // SAFETY: the span is free; taking it out under the lock makes it ours (H1).
            let record = unsafe {
                inner.remove(span.as_ref());
                self.map.clear(span.as_ref().start(), 1);
                self.map.clear(span.as_ref().end() - 1, 1);
                span.as_ref()
            };
            let dirty = record.dirty_pages();
            let this = inner.begin_move(record, dirty);
            drop(inner);
            let place = NonNull::new(record.address() as *mut u8);
            // SAFETY: the pages are free and ours.
            let gone = place.is_some_and(|p| unsafe { self.source.release(p, record.bytes()) });
            let mut inner = self.inner.lock();
            inner.end_move(this);
            // SAFETY: ours, on no set, in the map with no page.
            unsafe {
                if !gone {
                    self.put_back(&mut inner, span);
                    return unmapped;
                }
                Self::forget_filled(&mut inner, record.start()..record.end());
                let reserved = inner.stats.reserved_pages - record.pages();
                self.set_reserved(&mut inner, reserved);
                unmapped += record.pages();
                inner.stats.unmapped_pages += record.pages();
                inner.stats.unmaps += 1;
                inner.records.give_span(span);
            }
            self.note_soft_limit(&inner);
        }
    }
}
