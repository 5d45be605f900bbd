//! Sizes and alignments as a fuzzer makes them: the kinds that the allocator treats differently, and the
//! borders between them.

use arbitrary::Arbitrary;
use tiermalloc_size_class::{CLASSES, Class, MAX_SIZE};

/// A size in bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Size {
    /// Up to 255 bytes.
    Tiny(u8),
    /// Up to 64 KiB.
    Small(u16),
    /// The size of a class, or a little more or less.
    Class(u8, i8),
    /// Whole pages, up to 2 MiB.
    Pages(u32),
    /// A mapping of its own, or nearly: 64 MiB and a few pages more or less.
    Huge(i8),
}

impl Size {
    /// The size; `most` at most.
    pub fn bytes(self, most: usize) -> usize {
        let bytes = match self {
            Self::Tiny(size) => size.into(),
            Self::Small(size) => size.into(),
            Self::Class(id, more) => {
                let class = Class::from_id(1 + usize::from(id) % CLASSES).expect("in range");
                class.size().saturating_add_signed(isize::from(more % 9))
            }
            Self::Pages(size) => MAX_SIZE - 100 + size as usize % ((2 << 20) - MAX_SIZE),
            Self::Huge(pages) => (64_usize << 20).saturating_add_signed(isize::from(pages) * 4096),
        };
        if bytes <= most { bytes } else { bytes % (most + 1) }
    }
}

/// An alignment: a power of two, mostly a small one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Align {
    /// Up to 64.
    Small(u8),
    /// Up to 2 MiB.
    Any(u8),
}

impl Align {
    /// The alignment.
    pub fn bytes(self) -> usize {
        match self {
            Self::Small(shift) => 1 << (shift % 7),
            Self::Any(shift) => 1 << (shift % 22),
        }
    }
}

/// A size that nobody can have: above `isize::MAX`, or more than there are addresses.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Absurd {
    /// So much less than all that can be written down.
    BelowMax(u16),
    /// So much more than the longest object that C knows.
    AboveHalf(u16),
    /// So much less than that: more than there are addresses.
    BelowHalf(u16),
    /// A power of two from 2^48 on.
    Power(u8),
}

impl Absurd {
    /// The size.
    pub fn bytes(self) -> usize {
        match self {
            Self::BelowMax(less) => usize::MAX - usize::from(less),
            Self::AboveHalf(more) => isize::MAX as usize + usize::from(more),
            Self::BelowHalf(less) => isize::MAX as usize - usize::from(less),
            Self::Power(shift) => 1 << (48 + shift % 16),
        }
    }
}
