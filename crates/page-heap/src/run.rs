//! Several object spans at once, and object spans that change their class.
//!
//! For callers who keep spans by themselves, so that many processors do not meet at the heap's lock for each of
//! them, nor at the same pages of the system's page table when they first write to them.

use core::ptr::NonNull;

use tiermalloc_size_class::Class;

use crate::heap::PageHeap;
use crate::lock::RawLock;
use crate::objects::words_for;
use crate::source::PageSource;
use crate::span::{INLINE_WORDS, Span, State};

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// [`alloc_objects`](Self::alloc_objects), and up to `more` further spans of as many pages that lie behind it: as many as
    /// the shortest dirty free span has room for that has room for one; where nothing that fits is dirty, all of them
    /// if a clean one has room for all; none where a limit is set. Each of these is passed to `spare`: an object span without
    /// a class, for [`recarve_objects`](Self::recarve_objects) or [`free_objects`](Self::free_objects).
    ///
    /// Cost: as for `alloc_objects`, and under the same lock a record for each further span.
    pub fn alloc_objects_run(
        &self,
        class: Class,
        more: usize,
        mut spare: impl FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        let pages = class.pages();
        let more = more.min(MOST);
        let mut inner = self.inner.lock();
        // What is dirty is used first, and the shortest piece of that before longer ones, as far as it goes: whoever
        // wants a long one finds none where runs have broken them while short ones lie about.
        let found = match more == 0 || inner.limits.any {
            true => None,
            false => self
                .find_dirty(&mut inner, pages)
                .or_else(|| inner.clean.find(pages * (more + 1)).map(NonNull::from)),
        };
        // SAFETY: spans on the sets are valid under the lock.
        let room = |found: NonNull<Span>| unsafe { found.as_ref() }.pages() / pages;
        let spans = found.map_or(1, |found| room(found).min(more + 1));
        let Some(found) = found.filter(|_| spans > 1) else {
            drop(inner);
            return self.alloc_objects(class);
        };
        let all = pages * spans;
        // What the run will be cut from, at its start: where it may hold something.
        // SAFETY: spans on the sets are valid under the lock.
        let (from, (lo, hi)) = unsafe { (found.as_ref().start(), found.as_ref().dirty()) };
        let dirty = from + lo..from + hi;
        let is_clean = |span: &Span| span.end() <= dirty.start || dirty.end <= span.start();
        // And from nothing else, whatever has come to wait meanwhile.
        let run = self.cut_out_of(&mut inner, found, 0, all, State::Objects);
        let begun = inner.take_begun();
        let Some(run) = run else {
            drop(inner);
            return self.alloc_objects(class);
        };
        // SAFETY: the run is ours until it is handed out.
        let record = unsafe { run.as_ref() };
        debug_assert_eq!(record.start(), from);
        let end = record.end();
        record.set_class(None);
        record.set_words(0);
        // From the last on, so that what could get no record stays with the first, and goes back with it.
        let mut spares = [None; MOST];
        let mut count = 0;
        while record.pages() > pages && count < MOST {
            let start = record.end() - pages;
            let Some(span) = inner.records.span(&self.source, start, pages) else { break };
            record.set_extent(record.start(), record.pages() - pages);
            // SAFETY: as above.
            unsafe {
                span.as_ref().set_zeroed(is_clean(span.as_ref()));
                span.as_ref().set_state(State::Objects);
            }
            spares[count] = Some(span);
            count += 1;
        }
        record.set_zeroed(is_clean(record));
        let whole = record.pages() == pages;
        drop(inner);
        // SAFETY: as above.
        if unsafe { self.fill_for_objects(class, begun.clone(), end) } {
            // What is resident soon is not known as clean.
            let filled = |span: &Span| span.start() < begun.end && begun.start < span.end();
            for span in spares.iter().flatten() {
                // SAFETY: as above.
                let span = unsafe { span.as_ref() };
                if filled(span) {
                    span.set_used();
                }
            }
        }
        spares.into_iter().flatten().for_each(&mut spare);
        // SAFETY: as above; without a class no object of it is handed out.
        unsafe {
            if whole && self.recarve_objects(run, class) {
                if self.is_tight() {
                    self.relieve_after_cut();
                }
                return Some(run);
            }
            self.free_objects(run);
        }
        self.alloc_objects(class)
    }

    /// Takes an object span out of the map, for who keeps it until [`recarve_objects`](Self::recarve_objects) or
    /// [`free_objects`](Self::free_objects): no address of it is an object's meanwhile, so that whoever frees one for the
    /// second time is told so.
    ///
    /// Cost: a store or two for each page.
    ///
    /// # Safety
    /// As for `free_objects`.
    pub unsafe fn unregister_objects(&self, span: NonNull<Span>) {
        // SAFETY: the caller's alone, with nobody who holds an object of it.
        unsafe {
            debug_assert_eq!((span.as_ref().state(), span.as_ref().live()), (State::Objects, 0));
            self.map.clear(span.as_ref().start(), span.as_ref().pages());
        }
    }

    /// Makes an object span one of `class`, which has as many pages, all its objects free, and registers it in the map.
    /// `false`: there is no memory for its free bits; the span has no class then, and is good for
    /// [`free_objects`](Self::free_objects) alone.
    ///
    /// Cost: some instructions, and a store or two for each page; the heap's lock if the one or
    /// the other class has free bits outside the record.
    ///
    /// # Safety
    /// As for [`free_objects`](Self::free_objects).
    pub unsafe fn recarve_objects(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: the caller's alone.
        let record = unsafe { span.as_ref() };
        debug_assert_eq!(record.state(), State::Objects);
        let (old, mut bits) = (record.class(), record.external_bits());
        if old.is_some() {
            debug_assert_eq!(record.live(), 0);
            // SAFETY: the caller's alone. An object of it may have been written to.
            if unsafe { record.ever_taken() } > 0 {
                record.set_used();
            }
        }
        let (had, needs) = (old.map_or(0, words_for), words_for(class));
        if had != needs && (bits.is_some() || needs > INLINE_WORDS) {
            bits = self.change_bits(bits, had, needs);
            record.set_words(0);
            if bits.is_none() && needs > INLINE_WORDS {
                record.set_class(None);
                return false;
            }
        }
        // SAFETY: the caller's. H3 as in `alloc_objects`.
        unsafe {
            record.carve(class, bits);
            self.map.set(record.start(), record.pages(), span, class.id() as u8);
        }
        true
    }

    /// Room for `needs` words of free bits instead of that for `had` words; none if they fit into the record, or if
    /// there is no memory.
    #[cold]
    fn change_bits(
        &self,
        bits: Option<NonNull<u64>>,
        had: usize,
        needs: usize,
    ) -> Option<NonNull<u64>> {
        let mut inner = self.inner.lock();
        if let Some(bits) = bits {
            // SAFETY: the span's own, and not used any more.
            unsafe { inner.records.give_bits(bits, had) };
        }
        if needs <= INLINE_WORDS {
            return None;
        }
        let bits = inner.records.bits(&self.source, needs);
        // A chunk of records may have been taken for them.
        self.note_soft_limit(&inner);
        bits
    }
}

/// Most spans that a run has behind its first.
pub(crate) const MOST: usize = 127;
