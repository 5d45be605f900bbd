//! The objects of a span: which are free, which were never touched.
//!
//! A bit per object, set while the object is free: exact, so that an object that comes back twice
//! is seen at no extra cost, and dense, so that objects leave in order of address and a fresh span
//! is never walked through (it is carved as its lowest free bits are taken).
//!
//! Invariants, all under the lock of the class:
//! - O1: `live` is the number of clear bits among the first `objects` ones.
//! - O2: no word below `hint` has a set bit.
//! - O3: objects from `fresh` on were never handed out; in a zeroed span they are all zero.

use core::ptr::NonNull;

use tiermalloc_size_class::{Class, PAGE_SIZE, Shape};

use crate::span::{INLINE_WORDS, Span};

/// What [`Span::put_object`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is back.
    Done,
    /// The address is not the start of an object of this span.
    Misplaced,
    /// The object was free already.
    Twice,
}

/// What is known of an object that [`Span::take_objects`] hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Never handed out before, and all zero.
    Zeroed,
    /// Never handed out before; what other allocations have left there may still be in it.
    Fresh,
    /// Handed out before, so that it holds what its last owner left; or passed over by
    /// [`Span::take_lines`].
    Used,
}

/// Passes the numbers of the lowest of these bits to `each`, up to `left` of them, which it counts off. Returns the bits that
/// are left.
#[inline(always)]
fn take_lowest(mut bits: u64, left: &mut usize, mut each: impl FnMut(usize)) -> u64 {
    while bits != 0 && *left > 0 {
        each(bits.trailing_zeros() as usize);
        bits &= bits - 1;
        *left -= 1;
    }
    bits
}

/// Words of bits for a span of `class`.
pub(crate) fn words_for(class: Class) -> usize {
    class.objects().div_ceil(64)
}

impl Span {
    /// Marks every object free and fresh.
    ///
    /// # Safety
    /// The caller owns the span. `external` is memory for [`words_for`] words, needed when they do
    /// not fit into the record.
    pub(crate) unsafe fn carve(&self, class: Class, external: Option<NonNull<u64>>) {
        let objects = class.objects();
        let words = words_for(class);
        debug_assert!(external.is_some() || words <= INLINE_WORDS);
        self.bits.set(match external {
            Some(memory) => memory.as_ptr(),
            None => self.inline[0].as_ptr(),
        });
        self.set_class(Some(class));
        self.words.set(words as u8);
        self.live.set(0);
        self.fresh.set(0);
        self.hint.set(0);
        for word in 0..words {
            let left = objects - word * 64;
            let bits = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            // SAFETY: `bits` has room for `words` words.
            unsafe { self.bits.get().add(word).write(bits) };
        }
    }

    /// Objects handed out.
    #[inline]
    pub fn live(&self) -> usize {
        self.live.get() as usize
    }

    /// Whether fewer objects are handed out than there have to be for the list that the span is on.
    #[inline(always)]
    pub fn is_below(&self) -> bool {
        self.live.get() < self.low.get()
    }

    /// The bits when they lie outside the record.
    pub(crate) fn external_bits(&self) -> Option<NonNull<u64>> {
        (self.words.get() as usize > INLINE_WORDS).then(|| NonNull::new(self.bits.get()))?
    }

    /// Objects at the end that were never handed out.
    ///
    /// # Safety
    /// The span is in state `Objects` and the lock of its class is held.
    pub unsafe fn never_taken(&self) -> usize {
        self.class().map_or(0, |class| class.objects() - self.fresh.get() as usize)
    }

    /// Objects that were handed out at one time: all that lie before the first that never was.
    ///
    /// # Safety
    /// As for [`never_taken`](Self::never_taken).
    #[inline]
    pub unsafe fn ever_taken(&self) -> usize {
        self.fresh.get() as usize
    }

    /// Pages that have been written to, given what the span was when it was allocated: those that may be
    /// resident. Under the lock of the class, while the span has one.
    pub fn touched_pages(&self) -> usize {
        match self.class() {
            Some(class) if self.was_zeroed() => {
                let fresh = self.fresh.get() as usize;
                if fresh == 0 {
                    return 0;
                }
                let end = class.shape().first_object(self.address()) + fresh * class.size();
                (end - self.address()).div_ceil(PAGE_SIZE).min(self.pages())
            }
            // A part of a run that nobody has carved yet.
            None if self.was_zeroed() => 0,
            _ => self.pages(),
        }
    }

    /// Forgets where the free bits are.
    pub(crate) fn set_words(&self, words: usize) {
        self.words.set(words as u8);
    }

    /// Takes up to `wanted` free objects, lowest addresses first, and passes the address of each to
    /// `each`, with what is known of its contents. Returns their number.
    ///
    /// # Safety
    /// The span is in state `Objects` and the lock of its class is held.
    #[inline]
    pub unsafe fn take_objects(&self, wanted: usize, mut each: impl FnMut(usize, Past)) -> usize {
        let Some(class) = self.class() else { return 0 };
        let (size, base) = (class.size(), class.shape().first_object(self.address()));
        let words = self.words.get() as usize;
        let unused = if self.was_zeroed() { Past::Zeroed } else { Past::Fresh };
        let fresh = self.fresh.get() as usize;
        let mut word = self.hint.get() as usize;
        let mut left = wanted;
        while word < words && left > 0 {
            // SAFETY: `word < words`.
            let slot = unsafe { self.bits.get().add(word) };
            // SAFETY: as above; the lock makes the access ours alone.
            let bits = unsafe { slot.read() };
            let start = base + word * 64 * size;
            // All that is known of a past is the same for those before `fresh`, and for those behind.
            let used = match fresh.saturating_sub(word * 64) {
                64.. => u64::MAX,
                some => (1 << some) - 1,
            };
            let rest_of_used = take_lowest(bits & used, &mut left, |index| {
                each(start + index * size, Past::Used);
            });
            let rest_of_unused = take_lowest(bits & !used, &mut left, |index| {
                each(start + index * size, unused);
            });
            let rest = rest_of_used | rest_of_unused;
            // SAFETY: as above.
            unsafe { slot.write(rest) };
            let last = 64 - (bits ^ rest).leading_zeros() as usize;
            self.fresh.set((word * 64 + last).max(self.fresh.get() as usize) as u16);
            if rest == 0 {
                word += 1;
            }
        }
        self.hint.set(word as u8);
        let taken = wanted - left;
        self.live.set((self.live() + taken) as u16);
        taken
    }

    /// Takes eight objects that fill whole cache lines, which nobody else has a part of, if there are any
    /// such: sizes are multiples of 8 bytes, so eight neighbours of which the first has an index that
    /// divides by eight do. Else nothing. Otherwise as [`take_objects`](Self::take_objects).
    ///
    /// # Safety
    /// As for `take_objects`.
    pub unsafe fn take_lines(&self, each: impl FnMut(usize, Past)) -> usize {
        for word in self.hint.get() as usize..self.words.get() as usize {
            // SAFETY: `word < words`; the lock makes the access ours alone.
            let bits = unsafe { self.bits.get().add(word).read() };
            // A bit for each byte of ones: the lowest one of a byte survives if all others do.
            let pairs = bits & bits >> 1;
            let fours = pairs & pairs >> 2;
            let whole = fours & fours >> 4 & 0x0101_0101_0101_0101;
            if whole != 0 {
                let first = whole.trailing_zeros();
                // SAFETY: as above; these bits are set.
                return unsafe { self.take_bits(word, 0xff << first, each) };
            }
        }
        0
    }

    /// Takes the objects with these bits of a word, all of them free.
    ///
    /// # Safety
    /// As for `take_objects`, and the bits are set.
    unsafe fn take_bits(
        &self,
        word: usize,
        taken: u64,
        mut each: impl FnMut(usize, Past),
    ) -> usize {
        let Some(class) = self.class() else { return 0 };
        // SAFETY: passed on to the caller.
        unsafe {
            let slot = self.bits.get().add(word);
            slot.write(slot.read() & !taken);
        }
        let fresh = self.fresh.get() as usize;
        let first = word * 64 + taken.trailing_zeros() as usize;
        let last = word * 64 + 63 - taken.leading_zeros() as usize;
        let base = class.shape().first_object(self.address());
        for index in first..=last {
            let past = match index < fresh {
                true => Past::Used,
                false if self.was_zeroed() => Past::Zeroed,
                false => Past::Fresh,
            };
            each(base + index * class.size(), past);
        }
        // O3: what lies between the fresh ones and these has not been handed out, and counts as if.
        self.fresh.set(fresh.max(last + 1) as u16);
        self.live.set((self.live() + taken.count_ones() as usize) as u16);
        taken.count_ones() as usize
    }

    /// Whether an object is handed out: `Done` if one starts at `address` and is, else what
    /// [`put_object`](Self::put_object) would find. Changes nothing.
    ///
    /// # Safety
    /// As for `put_object`.
    pub unsafe fn probe_object(&self, address: usize) -> Put {
        let Some(index) = self.locate(address) else { return Put::Misplaced };
        // SAFETY: index < objects, so it has a bit; the lock makes the access ours alone.
        let bits = unsafe { self.bits.get().add(index / 64).read() };
        if bits >> (index % 64) & 1 != 0 { Put::Twice } else { Put::Done }
    }

    /// Why [`put`](Putting::put) has refused an object: never `Done`, whatever has become of the span meanwhile, which may be another class's where
    /// a program frees twice.
    ///
    /// # Safety
    /// As for `put_object`.
    #[cold]
    pub unsafe fn probe_refused(&self, address: usize) -> Put {
        // SAFETY: passed on to the caller.
        match unsafe { self.probe_object(address) } {
            Put::Misplaced => Put::Misplaced,
            Put::Done | Put::Twice => Put::Twice,
        }
    }

    /// The index of the object that starts at `address`.
    #[inline]
    fn locate(&self, address: usize) -> Option<usize> {
        let shape = self.class()?.shape();
        shape.object_at(address.wrapping_sub(shape.first_object(self.address())))
    }

    /// Takes an object back. What is misplaced or free already is left as it is.
    ///
    /// # Safety
    /// The span is in state `Objects` and the lock of its class is held.
    #[inline]
    pub unsafe fn put_object(&self, address: usize) -> Put {
        let Some(class) = self.class() else { return Put::Misplaced };
        let mut putting = Putting::begin(self, class.shape());
        // SAFETY: passed on to the caller; the shape is its class's.
        if !unsafe { putting.put(address as *mut u8) } {
            // SAFETY: as above.
            return unsafe { self.probe_refused(address) };
        }
        putting.end();
        Put::Done
    }
}

/// Objects that come back to one span, one after the other: what is the same for all of them is found out once.
///
/// Cost: some 10 instructions for the span, and 20 for each object.
#[must_use = "the span has to be told: `end`"]
pub struct Putting<'s> {
    span: &'s Span,
    shape: Shape,
    /// The address of the first object.
    start: usize,
    bits: *mut u64,
    /// The span's, when all is put.
    live: u16,
    hint: u8,
}

impl<'s> Putting<'s> {
    /// None has come back yet.
    #[inline(always)]
    pub fn begin(span: &'s Span, shape: Shape) -> Self {
        let start = shape.first_object(span.address());
        let (live, hint) = (span.live.get(), span.hint.get());
        Self { span, shape, start, bits: span.bits.get(), live, hint }
    }

    /// Takes an object back, and says whether it did: what is misplaced or free already is left as it is, and
    /// [`probe_refused`](Span::probe_refused) says which of the two it is.
    ///
    /// # Safety
    /// The span is in state `Objects`, the shape is that of its class, and the lock of the class has been held since
    /// [`begin`](Self::begin).
    #[inline(always)]
    pub unsafe fn put(&mut self, object: *mut u8) -> bool {
        let Some(index) = self.shape.object_at((object as usize).wrapping_sub(self.start)) else {
            return false;
        };
        let word = index / 64;
        // SAFETY: index < objects, so word < words; the lock makes the access ours alone.
        unsafe {
            let slot = self.bits.add(word);
            let free = slot.read();
            if free >> (index % 64) & 1 != 0 {
                return false;
            }
            slot.write(free | 1 << (index % 64));
        }
        self.hint = self.hint.min(word as u8);
        self.live -= 1;
        true
    }

    /// Lets the span know what has come back: called before the lock is given up.
    #[inline(always)]
    pub fn end(self) {
        self.span.live.set(self.live);
        self.span.hint.set(self.hint);
    }
}
