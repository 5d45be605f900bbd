//! The tables behind the functions, computed by the compiler.

use crate::{
    BATCH_BYTES, CLASSES, Class, EVEN_MAX, MAX_BATCH, MAX_OBJECTS, MAX_SPAN_PAGES, PAGE_SIZE,
    SLOTS, SMALL_MAX, STAGGER,
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
/// 2^64 / size, rounded up: the upper half of its product with an offset is the quotient, and the lower half less than it exactly if nothing is left
/// over (S5; after Granlund and Montgomery, "Division by invariant integers", 1994, section 9). With `m * size = 2^64 + e`, `e < size`, the product with
/// `q * size + r` is `q * 2^64 + q * e + r * m`, where `q * e` is below 2^19, and `m` above 2^45.
pub(crate) static MAGICS: [u64; SLOTS] = magic_table();
/// 2^24 * 8 / objects per span, rounded up: turns a number of objects into eighths of a span, exactly (for fewer than 2^10 the
/// error stays below 2^-14, and the next whole number is 2^-10 away at least).
pub(crate) static EIGHTHS: [u32; SLOTS] = eighth_table();
/// How many colours the spans have: multiples of [`STAGGER`], from 0 on (S3).
pub(crate) static COLOURS: [u8; SLOTS] = colour_table();
/// Class id of each 8-byte step up to 1024.
pub(crate) static SMALL: [u8; SMALL_SLOTS] = small_table();

const SIZE_TABLE: [u32; SLOTS] = size_table();
const PAGE_TABLE: [u8; SLOTS] = page_table();

/// A span may leave this part of itself uncovered: 1/50;
const WASTE_DIVISOR: usize = 50;
/// 1/16 where objects are staggered, which a power of two never holds without a rest: short spans are worth more. The rest is
/// what their colour is made of.
const STAGGERED_WASTE_DIVISOR: usize = 16;
/// From this size on a staggered object has a span to itself. What it leaves of the last page is room for every colour.
const ALONE: usize = EIGHTHS_ABOVE;
/// The highest colour, in bytes.
const COLOUR_ROOM: usize = 4096 - STAGGER;
/// Objects of a span at least; under the models, which want spans of one page, one,
const FEW: usize = if cfg!(tiermalloc_loom) { 1 } else { 4 };
/// if they have so many bytes at most, or twice as many where they are staggered.
const FEW_UP_TO: usize = 8192;
/// Staggered objects are to begin at so many places of their pages, the colours of spans counted in.
const PLACES: u32 = 16;
/// The first class of those whose steps are eighths, and from how many bytes on they are.
pub(crate) const EIGHTHS_FROM: usize = 177;
pub(crate) const EIGHTHS_ABOVE: usize = 64 * 1024;
/// The first class of those for more alignment than [`STAGGER`].
pub(crate) const PAGED_FROM: usize = 193;
/// The largest of them (bytes).
pub(crate) const PAGED_MAX: usize = 256 * 1024;
/// Which of them serves so many units of 4 KiB, less one.
pub(crate) static PAGED_AT: [u8; 64] = paged_table();
/// Their sizes in units of 4 KiB.
const PAGED: [u32; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 48, 64];

const fn size_table() -> [u32; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        t[id] = if id <= 64 {
            16 * id as u32
        } else if id <= 80 {
            8 + 16 * (id as u32 - 65)
        } else if id < EIGHTHS_FROM {
            let exponent = 10 + (id as u32 - 81) / 16;
            let sixteenth = (id as u32 - 81) % 16;
            let even = (17 + sixteenth) << (exponent - 4);
            if even > EVEN_MAX as u32 { even + STAGGER as u32 } else { even }
        } else if id < PAGED_FROM {
            let at = (id - EIGHTHS_FROM) as u32;
            ((9 + at % 8) << (13 + at / 8)) + STAGGER as u32
        } else {
            PAGED[id - PAGED_FROM] << 12
        };
        id += 1;
    }
    t
}

/// The smallest span of which at most 1/50 is left over, and that holds four objects unless they are large; of staggered
/// objects 1/16, and those begin at [`PLACES`] places of their pages. Two objects would mean a span from the page heap for every second object. Small spans are what keeps the memory of
/// small programs small: a span is the least that a class in use can take.
const fn page_table() -> [u8; SLOTS] {
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        let size = SIZE_TABLE[id] as usize;
        let staggered = is_staggered(id);
        let waste_divisor = if staggered { STAGGERED_WASTE_DIVISOR } else { WASTE_DIVISOR };
        let few_up_to = if staggered { 2 * FEW_UP_TO } else { FEW_UP_TO };
        let mut pages = 1;
        if staggered && size >= ALONE {
            pages = size.div_ceil(PAGE_SIZE);
        } else {
            while pages < MAX_SPAN_PAGES {
                let bytes = pages * PAGE_SIZE;
                let (objects, rest) = (bytes / size, bytes % size);
                let few = objects < FEW && size <= few_up_to;
                let alike = staggered && places(size, objects, rest) < PLACES;
                if bytes >= size && !few && !alike && rest * waste_divisor <= bytes {
                    break;
                }
                pages += 1;
            }
        }
        t[id] = pages as u8;
        id += 1;
    }
    t
}

/// At how many places of a page objects begin, all colours counted in.
const fn places(size: usize, objects: usize, rest: usize) -> u32 {
    let mut places = 0_u32;
    let mut object = 0;
    while object < objects {
        let mut colour = 0;
        while colour <= rest && colour < 4096 {
            places |= 1 << ((object * size + colour) % 4096 / STAGGER);
            colour += STAGGER;
        }
        object += 1;
    }
    places.count_ones()
}

/// Whether objects of a class are longer by [`STAGGER`] than an even number.
const fn is_staggered(id: usize) -> bool {
    SIZE_TABLE[id] as usize > EVEN_MAX && id < PAGED_FROM
}

const fn colour_table() -> [u8; SLOTS] {
    let objects = object_table();
    let mut t = [1; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        if is_staggered(id) {
            let covered = objects[id] as usize * SIZE_TABLE[id] as usize;
            let room = PAGE_TABLE[id] as usize * PAGE_SIZE - covered;
            let room = if room > COLOUR_ROOM { COLOUR_ROOM } else { room };
            t[id] = (room / STAGGER) as u8 + 1;
        }
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
        t[id] = u64::MAX / SIZE_TABLE[id] as u64 + 1;
        id += 1;
    }
    t
}

const fn eighth_table() -> [u32; SLOTS] {
    let objects = object_table();
    let mut t = [0; SLOTS];
    let mut id = 1;
    while id <= CLASSES {
        t[id] = (8u32 << 24).div_ceil(objects[id] as u32);
        id += 1;
    }
    t
}

const fn paged_table() -> [u8; 64] {
    let mut t = [0; 64];
    let (mut unit, mut at) = (0, 0);
    while unit < t.len() {
        if unit >= PAGED[at] as usize {
            at += 1;
        }
        t[unit] = at as u8;
        unit += 1;
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
    // Steps of 8 and of 16 up to 1024, each class once, then the ids in order, with those of whole pages in between.
    let small = (1..SMALL_SLOTS).filter_map(|step| {
        let class = Class::from_id(SMALL[step] as usize)?;
        (class.size() == step * 8).then_some(class)
    });
    let mut paged = (PAGED_FROM..SLOTS).filter_map(Class::from_id).peekable();
    let mut others = (81..PAGED_FROM).filter_map(Class::from_id).peekable();
    let large = core::iter::from_fn(move || match (paged.peek(), others.peek()) {
        (Some(page), Some(other)) if page.size() < other.size() => paged.next(),
        (_, None) => paged.next(),
        _ => others.next(),
    });
    small.chain(large)
}
