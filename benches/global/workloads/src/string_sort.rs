//! Very many small strings, allocated in a row, sorted, and freed in another order than they came.
//!
//! What a program that reads a word list does. Sorting walks the strings at random, so it shows how
//! close together the allocator has put them; freeing in sorted order is random order to it.

use crate::Workload;
use crate::params::Params;
use crate::rng::{Rng, mix};

pub const WORKLOAD: &Workload =
    &Workload { name: "string-sort", about: "many small strings, sorted and freed", run };

fn run(params: &Params) -> u64 {
    let mut rng = Rng::new(0x5027, 0);
    let mut sum = 0;
    for _ in 0..10 {
        let mut words: Vec<Box<str>> = (0..params.times(300_000)).map(|_| word(&mut rng)).collect();
        words.sort_unstable();
        let mut digest = 0;
        for pair in words.windows(2) {
            digest = mix(digest ^ pair[0].len() as u64 ^ u64::from(pair[0] == pair[1]));
        }
        sum ^= digest;
        for word in words {
            sum = sum.wrapping_add(word.len() as u64);
        }
    }
    sum
}

/// Four to forty letters, short ones more often.
fn word(rng: &mut Rng) -> Box<str> {
    let length = rng.within(4, 8) + rng.below(1 + rng.clone().below(32));
    let mut word = String::with_capacity(length);
    let mut bits = rng.bits();
    for _ in 0..length {
        word.push(char::from(b'a' + (bits % 26) as u8));
        bits = mix(bits);
    }
    word.into_boxed_str()
}
