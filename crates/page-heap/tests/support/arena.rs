//! A source of pages over one arena of real memory.
//!
//! Regions are carved at random places, so that they are now neighbours and now apart; any call can be
//! refused; OS pages can be larger than the machine's. It fails a test that gives back what it does
//! not have, and hands out only what is really zero.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::ptr::NonNull;

use tiermalloc_page_heap::PageSource;
use tiermalloc_sync::sys;

pub const PAGE: usize = 8192;
/// Arenas are aligned to more than any test asks for, so that a test does the same wherever it lies.
const ALIGN: usize = 8 << 20;

/// Which calls are refused.
#[derive(Clone, Debug)]
pub enum Refusals {
    Never,
    /// The calls with these numbers, counted from the arena's start.
    Calls(Range<usize>),
    /// Bit `n % 64` says whether to refuse the n-th call since [`Arena::begin`].
    Bits(u64),
}

pub struct Arena {
    base: usize,
    pages: usize,
    os_page: usize,
    mapped: RefCell<Vec<bool>>,
    random: Cell<u64>,
    refusals: RefCell<Refusals>,
    calls: Cell<usize>,
    calls_before: Cell<usize>,
    refused: Cell<usize>,
    /// Reservations of a single page: leaves of the small map, and regions when memory is short.
    single: RefCell<BTreeSet<usize>>,
    /// Pages that nobody may touch.
    forbidden: RefCell<BTreeSet<usize>>,
    now: Cell<u64>,
    /// Bytes of a huge page; 0: the source has none.
    block: Cell<usize>,
    /// What was said about ranges: pages of the arena, and whether they will be full.
    advice: RefCell<Vec<(Range<usize>, bool)>>,
    /// Pages of the arena that lie in huge pages, as far as somebody touches those.
    full: RefCell<BTreeSet<usize>>,
    /// Whether huge pages come unasked.
    pub fills_unasked: Cell<bool>,
}

impl Arena {
    pub fn new(pages: usize, os_page: usize, seed: u64) -> Self {
        let wanted = pages * PAGE + ALIGN;
        let mapped = sys::map_anonymous(0, wanted).expect("an arena");
        let base = mapped.next_multiple_of(ALIGN);
        // A fuzzer makes so many arenas that none may leave anything behind.
        for (from, to) in [(mapped, base), (base + pages * PAGE, mapped + wanted)] {
            // SAFETY: mapped right above, and not the arena's.
            assert!(from == to || unsafe { sys::unmap(from, to - from) });
        }
        Self {
            base,
            pages,
            os_page,
            mapped: RefCell::new(vec![false; pages]),
            random: Cell::new(seed | 1),
            refusals: RefCell::new(Refusals::Never),
            calls: Cell::new(0),
            calls_before: Cell::new(0),
            refused: Cell::new(0),
            single: RefCell::default(),
            forbidden: RefCell::default(),
            now: Cell::new(1),
            block: Cell::new(0),
            advice: RefCell::default(),
            full: RefCell::default(),
            fills_unasked: Cell::new(false),
        }
    }

    pub fn base_page(&self) -> usize {
        self.base / PAGE
    }
    pub fn base(&self) -> usize {
        self.base
    }
    pub fn pages(&self) -> usize {
        self.pages
    }
    pub fn bytes(&self) -> usize {
        self.pages * PAGE
    }
    /// Whether the `n`-th page of the arena is given out.
    pub fn is_mapped(&self, n: usize) -> bool {
        self.mapped.borrow()[n]
    }
    pub fn mapped_pages(&self) -> usize {
        self.mapped.borrow().iter().filter(|&&mapped| mapped).count()
    }
    /// Whether the `n`-th page is a reservation of its own.
    pub fn is_single(&self, n: usize) -> bool {
        self.single.borrow().contains(&n)
    }
    /// Whether the `n`-th page of the arena is not to be touched.
    pub fn is_forbidden(&self, n: usize) -> bool {
        self.forbidden.borrow().contains(&n)
    }
    pub fn calls(&self) -> usize {
        self.calls.get()
    }
    /// Calls since [`begin`](Self::begin) that were refused, or for which there was no room.
    pub fn refused(&self) -> usize {
        self.refused.get()
    }
    pub fn refuse(&self, refusals: Refusals) {
        *self.refusals.borrow_mut() = refusals;
    }
    /// A new operation begins: its refusals are counted anew.
    pub fn begin(&self) {
        self.calls_before.set(self.calls.get());
        self.refused.set(0);
    }
    /// From now on there are huge pages of so many bytes.
    pub fn set_block(&self, bytes: usize) {
        self.block.set(bytes);
    }
    /// What was said since the last call.
    pub fn take_advice(&self) -> Vec<(Range<usize>, bool)> {
        self.advice.take()
    }
    pub fn pass_time(&self, ms: u64) {
        self.now.set(self.now.get() + ms);
    }

    /// One of `0..below`.
    fn pick(&self, below: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 11) as usize % below
    }

    fn is_refused(&self) -> bool {
        let call = self.calls.replace(self.calls.get() + 1);
        let refused = match &*self.refusals.borrow() {
            Refusals::Never => false,
            Refusals::Calls(range) => range.contains(&call),
            Refusals::Bits(bits) => bits >> ((call - self.calls_before.get()) % 64) & 1 == 1,
        };
        if refused {
            self.refused.set(self.refused.get() + 1);
        }
        refused
    }

    fn range(&self, address: usize, bytes: usize) -> Range<usize> {
        assert_eq!((address | bytes) % PAGE, 0, "{address:#x} {bytes:#x}");
        assert!(address >= self.base && address + bytes <= self.base + self.bytes());
        let first = (address - self.base) / PAGE;
        first..first + bytes / PAGE
    }

    /// Pages that the source maps for so many bytes: whole OS pages.
    fn rounded(&self, bytes: usize) -> usize {
        assert_eq!(bytes % PAGE, 0);
        bytes.next_multiple_of(self.os_page) / PAGE
    }

    fn set(&self, range: Range<usize>, to: bool) {
        let mut mapped = self.mapped.borrow_mut();
        assert!(mapped[range.clone()].iter().all(|&now| now != to), "{range:?} is {to} already");
        mapped[range.clone()].fill(to);
        if !to {
            self.single.borrow_mut().retain(|page| !range.contains(page));
            self.forbidden.borrow_mut().retain(|page| !range.contains(page));
            let at = self.base + range.start * PAGE;
            // SAFETY: the pages are the arena's own, and were given back.
            unsafe { clear(at, range.len() * PAGE) };
        }
    }

    /// A place for `count` pages: at one end or in the midst of one of the gaps, at random.
    fn place(&self, count: usize) -> Option<usize> {
        let unit = (self.os_page / PAGE).max(1);
        let mapped = self.mapped.borrow();
        let mut gaps = Vec::new();
        let mut at = 0;
        while at < self.pages {
            let end = (at..self.pages).find(|&page| mapped[page]).unwrap_or(self.pages);
            if end - at >= count {
                gaps.push(at..end);
            }
            at = (end..self.pages).find(|&page| !mapped[page]).unwrap_or(self.pages);
        }
        if gaps.is_empty() {
            return None;
        }
        let gap = gaps[self.pick(gaps.len())].clone();
        let room = (gap.len() - count) / unit;
        let skip = match self.pick(4) {
            0 | 1 => 0,
            2 => room,
            _ => self.pick(room + 1),
        };
        Some(gap.start + skip * unit)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the arena's own, and nobody uses it any more.
        unsafe { sys::unmap(self.base, self.bytes()) };
    }
}

/// Makes pages of the arena zero, and where the machine's pages are small enough, gives them back.
///
/// # Safety
/// The pages are the arena's own and nobody needs what they hold.
unsafe fn clear(address: usize, bytes: usize) {
    // SAFETY: passed on to the caller.
    unsafe {
        if sys::os_page_size() > PAGE {
            (address as *mut u8).write_bytes(0, bytes);
        } else {
            assert!(sys::decommit(address, bytes));
        }
    }
}

/// Whether `bytes` bytes at `address` are zero.
pub fn is_zero(address: usize, bytes: usize) -> bool {
    // SAFETY: callers ask about memory of the arena or of a live span, which is readable.
    let words = unsafe { std::slice::from_raw_parts(address as *const u64, bytes / 8) };
    words.iter().all(|&word| word == 0)
}

// SAFETY: the arena's memory is zero where it is not given out, and each page is given out once.
unsafe impl PageSource for Arena {
    fn os_page_size(&self) -> usize {
        self.os_page
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.is_refused() {
            return None;
        }
        let count = self.rounded(bytes);
        let Some(start) = self.place(count) else {
            self.refused.set(self.refused.get() + 1);
            return None;
        };
        self.set(start..start + count, true);
        let address = self.base + start * PAGE;
        // Not every page: reading makes it resident.
        let zero = (0..count).step_by(8).all(|page| is_zero(address + page * PAGE, PAGE));
        assert!(zero, "somebody wrote where nothing was given out");
        if bytes == PAGE {
            self.single.borrow_mut().insert(start);
        }
        NonNull::new(address as *mut u8)
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        let range = self.range(address, bytes);
        assert!(self.mapped.borrow()[range.clone()].iter().all(|&mapped| mapped), "{range:?}");
        if (address | bytes) % self.os_page != 0 || self.is_refused() {
            return false;
        }
        self.full.borrow_mut().retain(|page| !range.contains(page));
        self.set(range, false);
        true
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        assert_eq!((address | bytes) % self.os_page, 0, "not in whole OS pages");
        assert!(bytes > 0);
        let range = self.range(address, bytes);
        assert!(self.mapped.borrow()[range].iter().all(|&mapped| mapped));
        if self.is_refused() {
            return false;
        }
        // SAFETY: the arena's own; nobody needs what the pages hold.
        unsafe { clear(address, bytes) };
        true
    }

    unsafe fn resize_in_place(&self, start: NonNull<u8>, old: usize, new: usize) -> bool {
        let range = self.range(start.as_ptr() as usize, old);
        if self.is_refused() || self.pick(3) == 0 {
            return false;
        }
        assert_eq!((old | new) % self.os_page, 0);
        let end = range.start + new / PAGE;
        if new <= old {
            self.set(end..range.end, false);
            return true;
        }
        let fits = end <= self.pages && (range.end..end).all(|page| !self.is_mapped(page));
        if fits {
            self.set(range.end..end, true);
        }
        fits
    }

    unsafe fn move_onto(
        &self,
        start: NonNull<u8>,
        old: usize,
        target: NonNull<u8>,
        new: usize,
    ) -> bool {
        let (from, to) = (start.as_ptr() as usize, target.as_ptr() as usize);
        let (from_range, to_range) = (self.range(from, old), self.range(to, new));
        assert!(old <= new);
        assert!(from_range.end <= to_range.start || to_range.end <= from_range.start);
        assert!(self.mapped.borrow()[to_range].iter().all(|&mapped| mapped));
        if self.is_refused() {
            return false;
        }
        // SAFETY: both ranges are the arena's, given out, and apart.
        unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), target.as_ptr(), old) };
        self.set(from_range, false);
        true
    }

    fn block_bytes(&self) -> usize {
        self.block.get()
    }

    unsafe fn advise(&self, start: NonNull<u8>, bytes: usize, full: bool) {
        let range = self.range(start.as_ptr() as usize, bytes);
        if full {
            assert!(self.mapped.borrow()[range.clone()].iter().all(|&mapped| mapped), "{range:?}");
        }
        let mut pages = self.full.borrow_mut();
        match full {
            true => pages.extend(range.clone()),
            false => pages.retain(|page| !range.contains(page)),
        }
        self.advice.borrow_mut().push((range, full));
    }

    fn fills_unasked(&self) -> bool {
        self.fills_unasked.get()
    }

    fn is_resident(&self, address: usize) -> bool {
        if address < self.base || address + 4096 > self.base + self.bytes() {
            return false;
        }
        let page = (address - self.base) / PAGE;
        // A huge page is there as soon as any of it was touched.
        let block = self.block.get();
        let first = (address & !(block.max(1) - 1)).wrapping_sub(self.base) / PAGE;
        let full = self.full.borrow();
        if block > 0 && (first..first + block / PAGE).all(|page| full.contains(&page)) {
            return self.is_mapped(page) && !is_zero(self.base + first * PAGE, block);
        }
        self.is_mapped(page) && !is_zero(address, 4096)
    }

    unsafe fn forbid(&self, start: NonNull<u8>, bytes: usize) -> bool {
        let address = start.as_ptr() as usize;
        assert_eq!((address | bytes) % self.os_page, 0, "not in whole OS pages");
        let range = self.range(address, bytes);
        assert!(self.mapped.borrow()[range.clone()].iter().all(|&mapped| mapped));
        if self.is_refused() {
            return false;
        }
        self.forbidden.borrow_mut().extend(range);
        true
    }

    fn now_ms(&self) -> u64 {
        self.now.get()
    }
}
