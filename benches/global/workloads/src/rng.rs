//! A generator of our own, so that every program does the same work on every machine and for ever.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for each `stream`, a thread for example, of a workload's `seed`.
    pub fn new(seed: u64, stream: usize) -> Self {
        Self(mix(seed ^ mix(stream as u64 + 1)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// A number from `low` to `high` whose octaves are equally likely, as sizes of real programs are:
    /// small ones often, large ones seldom. Both bounds are powers of two.
    pub fn octaves(&mut self, low: usize, high: usize) -> usize {
        let octave = self.within(low.ilog2() as usize, high.ilog2() as usize - 1);
        self.within(1 << octave, 2 << octave)
    }
}

/// SplitMix64's finisher: every bit of the result depends on every bit of `x`.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bounds_and_reach_them() {
        let mut rng = Rng::new(1, 0);
        let drawn: Vec<usize> = (0..10_000).map(|_| rng.within(3, 9)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&9)));
        let drawn: Vec<usize> = (0..100_000).map(|_| rng.octaves(16, 256)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&16), Some(&256)));
        let small = drawn.iter().filter(|size| **size <= 32).count();
        assert!((20_000..30_000).contains(&small), "{small} of 100000 in one octave of four");
    }
}
