//! The C entry points of the library that ships, loaded by `dlopen` beside the process's own allocator:
//! contents, alignment, zero sizes, overflow, the rules of `EINVAL`, and `errno`, which is left alone by
//! what succeeds; and the figures of `mallinfo2`, which are true to the byte.
//!
//! `TIERMALLOC_LIB` says where the library lies.
#![no_main]

mod library;
mod program;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tiermalloc_fuzz::request::{Absurd, Align, Size};

#[derive(Arbitrary, Debug)]
pub struct Section {
    /// By a thread of its own, which ends with the section.
    in_a_thread: bool,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    Malloc {
        size: Size,
        libc_name: bool,
    },
    Calloc {
        size: Size,
        count: u8,
        libc_name: bool,
    },
    Realloc {
        pick: u8,
        size: Size,
        libc_name: bool,
    },
    ReallocArray {
        pick: u8,
        count: u8,
        size: Size,
        libc_name: bool,
    },
    /// Of null: a new block.
    ReallocNull(Size),
    /// To zero: the block is freed.
    ReallocZero(u8),
    Memalign {
        boundary: Boundary,
        size: Size,
        name: u8,
    },
    PosixMemalign {
        boundary: Boundary,
        size: Size,
    },
    Valloc(Size),
    Pvalloc(Size),
    Free {
        pick: u8,
        name: u8,
    },
    /// So many, from the newest on.
    FreeMany(u8),
    /// So many blocks of one size.
    Many(Size, u8),
    Check(u8),
    InVain {
        size: Absurd,
        boundary: Boundary,
    },
    ReallocInVain {
        pick: u8,
        size: Absurd,
    },
    Overflow {
        pick: u8,
        count: u64,
        size: u64,
    },
    Trim(u32),
    Figures,
    Info(u8),
    Options(i16, i16),
}

/// An alignment as C programs pass it: no power of two, perhaps, or an absurd one.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Boundary {
    Good(Align),
    Any(u16),
    Power(u8),
    Huge(Absurd),
}

impl Boundary {
    fn bytes(self) -> usize {
        match self {
            Self::Good(align) => align.bytes(),
            Self::Any(boundary) => boundary.into(),
            Self::Power(shift) => 1 << (shift % 64),
            Self::Huge(boundary) => boundary.bytes(),
        }
    }
}

fuzz_target!(init: { library::library(); }, |sections: Vec<Section>| program::run(&sections));
