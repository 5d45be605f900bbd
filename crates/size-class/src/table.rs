//! The tables behind the functions, computed by the compiler.

use crate::{
    BATCH_BYTES, CLASSES, Class, MAX_BATCH, MAX_OBJECTS, MAX_SPAN_PAGES, PAGE_SIZE, SLOTS,
    SMALL_MAX,
};

/// Entries of the table from 8-byte steps to class ids.
pub const SMALL_SLOTS: usize = SMALL_MAX / 8 + 1;

/// Bytes per object.
pub(crate) static SIZES: [u32; SLOTS] = SIZE_TABLE;
/// Pages per span.
pub(crate) static PAGES: [u8; SLOTS] = PAGE_TABLE;
/// Objects per span.
pub(crate) static OBJECTS: [u16; SLOTS] = object_table();
/// Objects per batch.
pub(crate) static BATCHES: [u8; SLOTS] = batch_table();
/// 2^40 / size, rounded up. For an offset below 2^19 and a size up to 2^18 the error stays below
/// one 2^40th of the quotient's distance to the next whole number, so `offset * magic >> 40` is the
/// exact quotient (S5; Granlund and Montgomery, "Division by invariant integers", 1994).
pub(crate) static MAGICS: [u64; SLOTS] = magic_table();
/// 2^16 * 8 / objects per span, rounded down: turns a number of objects into eighths of a span.
pub(crate) static EIGHTHS: [u32; SLOTS] = eighth_table();
/// Class id of each 8-byte step up to 1024.
pub(crate) static SMALL: [u8; SMALL_SLOTS] = small_table();

const SIZE_TABLE: [u32; SLOTS] = size_table();
const PAGE_TABLE: [u8; SLOTS] = page_table();

/// A span may leave this part of itself uncovered: 1/50.
const WASTE_DIVISOR: usize = 50;
/// Objects of a span at least; under the models, which want spans of one page, one,
const FEW: usize = if cfg!(tiermalloc_loom) { 1 } else { 4 };
/// if they have so many bytes at most.
const FEW_UP_TO: usize = 8192;

const fn size_table() -> [u32; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        t[id] = if id <= 64 {
            16 * id as u32
        } else if id <= 80 {
            8 + 16 * (id as u32 - 65)
        } else {
            let exponent = 10 + (id as u32 - 81) / 16;
            let sixteenth = (id as u32 - 81) % 16;
            (17 + sixteenth) << (exponent - 4)
        };
        id += 1;
    }
    t
}

/// The smallest span whose tail wastes at most 1/50 of it, and that holds four objects unless they are large: two
/// would mean a span from the page heap for every second object. Small spans are what keeps the memory of
/// small programs small: a span is the least that a class in use can take.
const fn page_table() -> [u8; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        let size = SIZE_TABLE[id] as usize;
        let mut pages = 1;
        while pages < MAX_SPAN_PAGES {
            let bytes = pages * PAGE_SIZE;
            let few = bytes / size < FEW && size <= FEW_UP_TO;
            if bytes >= size && !few && (bytes % size) * WASTE_DIVISOR <= bytes {
                break;
            }
            pages += 1;
        }
        t[id] = pages as u8;
        id += 1;
    }
    t
}

const fn object_table() -> [u16; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        let n = PAGE_TABLE[id] as usize * PAGE_SIZE / SIZE_TABLE[id] as usize;
        assert!(n >= 1 && n <= MAX_OBJECTS);
        t[id] = n as u16;
        id += 1;
    }
    t
}

const fn batch_table() -> [u8; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        let n = BATCH_BYTES / SIZE_TABLE[id] as usize;
        t[id] = if n < 1 {
            1
        } else if n > MAX_BATCH {
            MAX_BATCH as u8
        } else {
            n as u8
        };
        id += 1;
    }
    t
}

const fn magic_table() -> [u64; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        t[id] = (1u64 << 40).div_ceil(SIZE_TABLE[id] as u64);
        id += 1;
    }
    t
}

const fn eighth_table() -> [u32; SLOTS] {
    let objects = object_table();
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        t[id] = (8 << 16) / objects[id] as u32;
        id += 1;
    }
    t
}

const fn small_table() -> [u8; SMALL_SLOTS] {
    let mut t = [0; SMALL_SLOTS];
    let mut step = 0;
    while step < SMALL_SLOTS {
        let size = if step == 0 { 8 } else { step * 8 };
        t[step] = if size % 16 == 0 {
            (size / 16) as u8
        } else if size <= 256 {
            (65 + (size - 8) / 16) as u8
        } else {
            ((size + 8) / 16) as u8
        };
        step += 1;
    }
    t
}

/// All classes in order of size.
pub fn by_size() -> impl Iterator<Item = Class> {
    // Steps of 8 and of 16 up to 1024, each class once, then the ids in order.
    let small = (1..SMALL_SLOTS).filter_map(|step| {
        let class = Class::from_id(SMALL[step] as usize)?;
        (class.size() == step * 8).then_some(class)
    });
    small.chain((81..SLOTS).filter_map(Class::from_id))
}
