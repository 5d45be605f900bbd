//! Arenas: a phase allocates objects of many sizes and alignments, and all of them go at its end.
//!
//! What compilers and renderers do. Alignments go from 8 to 4,096 bytes as SIMD buffers, cache-line
//! aligned structures and pages for devices ask for; an allocator that serves alignments by rounding
//! up, or by a header, pays for it here in memory.

use crate::Workload;
use crate::params::{Params, add};
use crate::rng::Rng;

pub const WORKLOAD: &Workload =
    &Workload { name: "arena", about: "many sizes with alignments of 8 to 4096, freed at once", run };

/// Objects of a phase.
const OBJECTS: usize = 20_000;

/// A type for each alignment and size: that is how Rust asks for an aligned block.
macro_rules! aligned {
    ($($name:ident: $align:literal, $words:literal;)*) => {
        $(
            #[repr(align($align))]
            struct $name([u64; $words]);

            impl Object for $name {
                fn word(&self) -> u64 {
                    // An address that is not aligned would make this wrong.
                    let address = std::ptr::from_ref(self).addr() as u64;
                    self.0[0] ^ self.0[$words - 1] ^ (address % $align)
                }
            }
        )*

        /// One of the types, by `kind`, filled with `value`.
        fn object(kind: usize, value: u64) -> Box<dyn Object> {
            const MAKERS: &[fn(u64) -> Box<dyn Object>] =
                &[$(|value| Box::new($name([value; $words]))),*];
            MAKERS[kind % MAKERS.len()](value)
        }
    };
}

/// Something that was written into and can be read.
trait Object {
    fn word(&self) -> u64;
}

aligned! {
    A8Small: 8, 3; A8Medium: 8, 11; A8Large: 8, 71;
    A16Small: 16, 2; A16Medium: 16, 14; A16Large: 16, 62;
    A32Small: 32, 4; A32Medium: 32, 12; A32Large: 32, 60;
    A64Small: 64, 8; A64Medium: 64, 24; A64Large: 64, 120;
    A128Small: 128, 16; A128Medium: 128, 48;
    A256: 256, 64; A512: 512, 64; A1024: 1024, 128;
}

/// Pages, seldom: one in so many objects.
const PAGES: usize = 64;

#[repr(align(4096))]
struct Page([u64; 512]);

impl Object for Page {
    fn word(&self) -> u64 {
        self.0[511] ^ (std::ptr::from_ref(self).addr() as u64 % 4096)
    }
}

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0xa4e4, 0);
    let mut sum = 0;
    let mut last = Vec::new();
    for _ in 0..params.times(120) {
        let mut phase: Vec<Box<dyn Object>> = Vec::new();
        for _ in 0..OBJECTS {
            let bits = rng.bits();
            let kind = (bits >> 32) as usize;
            phase.push(match kind % PAGES {
                0 => Box::new(Page([bits; 512])),
                _ => object(kind / PAGES, bits),
            });
        }
        sum = phase.iter().map(|object| object.word()).fold(sum, add);
        // One phase overlaps with the next, as a pipeline's do.
        last = phase;
    }
    add(sum, last.len() as u64)
}
