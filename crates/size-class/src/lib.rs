//! The 208 size classes: all arithmetic on sizes that tiermalloc does is in this crate.
//!
//! A request of `size` bytes at alignment `align` is served by an object of exactly one class,
//! [`class_of`]`(size, align)`, whichever entry point it came through; or by whole pages, when the
//! answer is `None` (more than [`MAX_SIZE`] bytes, or an alignment above [`PAGE_SIZE`]).
//!
//! # The classes
//!
//! | sizes | step | classes | ids |
//! |---|---|---|---|
//! | 16 .. 1024 | 16 | 64 | 1 .. 64: the id is `size / 16` |
//! | 8 .. 248, the odd multiples of 8 | 16 | 16 | 65 .. 80 |
//! | 1088 .. 3968 | a 16th of the power of two below | 31 | 81 .. 111 |
//! | 4 KiB .. 64 KiB, and [`STAGGER`] bytes each | a 16th of the power of two below | 65 | 112 .. 176 |
//! | 72 KiB .. 256 KiB, and [`STAGGER`] bytes each | an eighth of it | 16 | 177 .. 192 |
//! | 4 KiB .. 256 KiB, at alignments above [`STAGGER`] | 4 KiB up to 32 KiB, 8 up to 64 KiB, then half the power of two below | 16 | 193 .. 208 |
//!
//! Together the first two rows are steps of 8 up to 256 and of 16 up to 1024. Beyond 128 bytes an
//! object is at most 6.25 % larger than the request (beyond 64 KiB 12.5 %, at alignments above [`STAGGER`] less than half as large again as the pages of
//! 4 KiB that it takes); below it at most 7 bytes, or 15 where the
//! caller asks for alignment 16.
//!
//! # Why large objects are a little longer
//!
//! A processor finds a line in its first cache by the low twelve bits of its address. Objects that are multiples of 4 KiB and
//! begin where pages do have all their first lines in the same few places, and so have arrays of them that grow in step:
//! dozens of buffers then push each other out of a cache that is nearly empty. With [`STAGGER`] bytes more, an object begins
//! elsewhere in its page than its neighbour; where a span holds few, it begins at a *colour* that goes by the span's
//! address (Bonwick, "The slab allocator", 1994): [`Shape::first_object`]. What asks for more alignment than [`STAGGER`] gets
//! classes of its own.
//!
//! # Why the ids are not in order of size
//!
//! C's `malloc` promises 16-byte alignment, so a small request there is `(size + 15) / 16`, and that
//! *is* the id: no table, no branch. The classes that only Rust's smaller alignments can reach stand
//! behind. [`by_size`] lists the classes in order of size for people.
//!
//! # Invariants (tested over all sizes and alignments, not sampled)
//! - S1: `size_of(class_of(s, a)) >= s`.
//! - S2: `size_of(class_of(s, a))` is a multiple of `a`; with S3 every object is aligned to `a`.
//! - S3: a span of class `c` starts on a page, its objects at its colour, which is 0 or a multiple of [`STAGGER`] below 4096 and only
//!   is another than 0 where [`STAGGER`] divides the size; object `i` starts `i * size_of(c)` bytes behind it, and the last one ends in the span.
//! - S4: `class_of` is monotone: a larger request never gets a smaller object.
//! - S5: [`Shape::object_at`] is exact for every byte of every span.
#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod table;

pub use table::{SMALL_SLOTS, by_size};

use table::{
    BATCHES, COLOURS, EIGHTHS, EIGHTHS_ABOVE, EIGHTHS_FROM, MAGICS, OBJECTS, PAGED_AT, PAGED_FROM,
    PAGED_MAX, PAGES, SIZES, SMALL,
};

/// Number of size classes. Ids run from 1 to this; 0 stands for "no class".
pub const CLASSES: usize = 208;
/// Length of an array that is indexed by class id.
pub const SLOTS: usize = CLASSES + 1;
/// Largest object of a class in bytes; larger requests get pages of their own.
pub const MAX_SIZE: usize = 256 * 1024 + STAGGER;
/// Bytes that objects of 4 KiB and more are longer than whole steps, and the unit of colours: two cache lines, because
/// processors fetch them in pairs.
pub const STAGGER: usize = 128;
/// The largest class that is not longer by [`STAGGER`] (bytes).
const EVEN_MAX: usize = 3968;
/// 2^32 by the golden ratio: multiples of it have upper bits that differ, whatever the distance between two (Knuth, "The art of
/// computer programming", 6.4).
const GOLDEN: u32 = 0x9e37_79b1;
/// Up to here a class is found by a table or by a shift (bytes).
pub const SMALL_MAX: usize = 1024;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 13;
/// The allocator's own page in bytes: the unit of spans, whatever the operating system's is.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Most objects that a batch holds.
pub const MAX_BATCH: usize = 32;
/// Most objects that a span holds.
pub const MAX_OBJECTS: usize = 1024;
/// Most pages that a span of a class takes.
pub const MAX_SPAN_PAGES: usize = 33;
/// Bytes of one class that move between tiers at once, as far as [`MAX_BATCH`] allows: 16 KiB, in four staggered objects too. More for the models of
/// the tiers above, which want a batch of two objects that are all of a span.
const BATCH_BYTES: usize = if cfg!(tiermalloc_loom) { 64 * 1024 } else { 16 * 1024 + 4 * STAGGER };

/// A size class: a number from 1 to [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Class(u8);

impl Class {
    /// The class of an id, or `None` for 0 and for numbers above [`CLASSES`].
    #[inline(always)]
    pub const fn from_id(id: usize) -> Option<Self> {
        if id >= 1 && id <= CLASSES { Some(Self(id as u8)) } else { None }
    }

    /// All classes in order of their ids, which is not that of their sizes ([`by_size`]).
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=CLASSES).filter_map(Self::from_id)
    }

    /// The id: 1 to [`CLASSES`], an index into arrays of [`SLOTS`] elements.
    #[inline(always)]
    pub const fn id(self) -> usize {
        self.0 as usize
    }

    /// Bytes of one object.
    #[inline(always)]
    pub const fn size(self) -> usize {
        SIZES[self.0 as usize] as usize
    }

    /// Pages of one span.
    #[inline(always)]
    pub const fn pages(self) -> usize {
        PAGES[self.0 as usize] as usize
    }

    /// Objects in one span.
    #[inline(always)]
    pub const fn objects(self) -> usize {
        OBJECTS[self.0 as usize] as usize
    }

    /// Objects that move between tiers at once.
    #[inline(always)]
    pub const fn batch(self) -> usize {
        BATCHES[self.0 as usize] as usize
    }

    /// How many whole eighths of a span `objects` objects fill: 0 to 7 for fewer than all, which is all that it is asked for.
    #[inline(always)]
    pub const fn eighths(self, objects: usize) -> usize {
        (objects * EIGHTHS[self.0 as usize] as usize) >> 24
    }

    /// Most bytes of an object that a request leaves unused, if it asks for no more alignment than 16 bytes:
    /// what there is between the smallest request that the class serves and its size. Of classes for more alignment:
    /// what there is between one and the next.
    #[inline]
    pub const fn slack_most(self) -> usize {
        match self.id() {
            // C's malloc asks for multiples of 16 even where there is a class in between.
            1..=64 => 15,
            65..=80 => 7,
            81 => self.size() - SMALL_MAX - 1,
            PAGED_FROM => self.size() - 1,
            // What is aligned to 8 KiB passes over every other one.
            id if id > PAGED_FROM && self.size() <= 32 * 1024 && self.size() % PAGE_SIZE == 0 => {
                PAGE_SIZE - 1
            }
            id => self.size() - SIZES[id - 1] as usize - 1,
        }
    }

    /// Bytes of a span that no object covers, at its end and, where it has a colour, in front.
    #[inline]
    pub const fn tail_waste(self) -> usize {
        self.pages() * PAGE_SIZE - self.objects() * self.size()
    }
}

/// The class that serves `size` bytes at alignment `align` (a power of two), or `None` when it takes
/// pages of its own. Zero bytes are served like one.
///
/// Cost: folded to a constant when both are known, else a handful of instructions and at most one
/// table byte.
#[inline(always)]
pub const fn class_of(size: usize, align: usize) -> Option<Class> {
    // Rounding up to the alignment is what makes S2 hold: up to 1024 every multiple of 16 has a
    // class of exactly that size, and above, a class step of 2^k covers every multiple of 2^k, as far as objects are not
    // staggered.
    // What is nearly always asked for, in as few steps as there can be, first.
    if size <= SMALL_MAX {
        if align <= 8 {
            return Some(Class(SMALL[(size + 7) >> 3]));
        }
        let rounded = round_up(size + (size == 0) as usize, align);
        if rounded <= SMALL_MAX {
            return Some(Class(SMALL[rounded >> 3]));
        }
    }
    class_of_rest(size, align)
}

/// [`class_of`] when the small classes have no answer.
#[inline]
const fn class_of_rest(size: usize, align: usize) -> Option<Class> {
    if size > MAX_SIZE || align > PAGE_SIZE {
        return None;
    }
    // No overflow: both are small now.
    let rounded = round_up(size + (size == 0) as usize, align);
    if align > STAGGER && rounded > EVEN_MAX {
        return paged(rounded);
    }
    if rounded <= MAX_SIZE { Some(class_of_large(rounded)) } else { None }
}

/// The class for `size` bytes at an alignment that staggered objects do not have: of its size 4 KiB and 8 KiB are divisors as
/// soon as they are of the request's.
const fn paged(size: usize) -> Option<Class> {
    if size > PAGED_MAX {
        return None;
    }
    Some(Class((PAGED_FROM as u8) + PAGED_AT[(size - 1) >> 12]))
}

/// [`class_of`] for sizes above [`SMALL_MAX`] and up to [`MAX_SIZE`].
#[inline(always)]
pub const fn class_of_large(size: usize) -> Class {
    debug_assert!(size > SMALL_MAX && size <= MAX_SIZE);
    // The stagger taken off. From EVEN_MAX to 4096 the class is that of 4096 with or without.
    let below = size as i32 - if size > EVEN_MAX + STAGGER { 1 + STAGGER as i32 } else { 1 };
    if below >= EIGHTHS_ABOVE as i32 {
        // Of two doublings the upper one?
        let upper = below >> (EIGHTHS_ABOVE.ilog2() + 1);
        let eighth = (below >> (EIGHTHS_ABOVE.ilog2() as i32 - 3 + upper)) & 7;
        return Class((EIGHTHS_FROM as i32 + 8 * upper + eighth) as u8);
    }
    // A float has what is asked for side by side in its bits: the exponent, and the binary digits behind the first one.
    // Exact below 2^24 (S. E. Anderson, "Bit twiddling hacks"); half as many instructions as counting zeros.
    const REST: u32 = f32::MANTISSA_DIGITS - 1 - 4;
    const FIRST: u32 = 1024_f32.to_bits() >> REST;
    Class((81 + ((below as f32).to_bits() >> REST) - FIRST) as u8)
}

/// Where the objects of a class lie in its spans: what the tables say, read once.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    magic: u64,
    objects: usize,
    colours: u32,
}

impl Class {
    /// Where the objects lie.
    #[inline(always)]
    pub const fn shape(self) -> Shape {
        let id = self.0 as usize;
        Shape { magic: MAGICS[id], objects: self.objects(), colours: COLOURS[id] as u32 }
    }
}

impl Shape {
    /// The address of the first object of a span that starts at `span` (an address too): that one, and the span's colour,
    /// which goes by the number of its page.
    #[inline(always)]
    pub const fn first_object(self, span: usize) -> usize {
        // Most small sizes have one only.
        if self.colours == 1 {
            return span;
        }
        let mixed = ((span >> PAGE_SHIFT) as u32).wrapping_mul(GOLDEN);
        let colour = (mixed as u64 * self.colours as u64) >> 32;
        span + colour as usize * STAGGER
    }

    /// The index of the object that starts `offset` bytes behind the first one; `None` where none does, which holds for
    /// offsets outside of the span as well, be they before it (as a number that has wrapped).
    #[inline(always)]
    pub const fn object_at(self, offset: usize) -> Option<usize> {
        let product = offset as u128 * self.magic as u128;
        let index = (product >> 64) as usize;
        // An offset outside of the span has an index of none of its objects.
        if (product as u64) < self.magic && index < self.objects { Some(index) } else { None }
    }
}

/// `size` rounded up to a multiple of `align`, a power of two; wraps to a small number on overflow.
#[inline(always)]
pub const fn round_up(size: usize, align: usize) -> usize {
    size.wrapping_add(align - 1) & !(align - 1)
}

/// Pages that cover `bytes` bytes.
#[inline(always)]
pub const fn pages_for(bytes: usize) -> usize {
    (bytes >> PAGE_SHIFT) + (bytes & (PAGE_SIZE - 1) != 0) as usize
}
