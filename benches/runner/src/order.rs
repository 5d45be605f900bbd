//! The order of the runs: every allocator once a round, in an order that each round draws anew.
//!
//! A machine has moods that last longer than a run: another tenant, a warm processor. Runs that are
//! compared therefore stand next to each other in time, and none always comes first.

/// SplitMix64: a small generator whose whole state is the seed.
pub struct Random(u64);

impl Random {
    /// The generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the remainder is below 2^-32 for what is
    /// counted here.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// The numbers from 0 to `count` in an order of this generator's choice.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_everyone_once() {
        let mut random = Random::new(1);
        for count in 0..20 {
            let mut order = random.permutation(count);
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_seed_repeats_its_order_and_another_has_its_own() {
        let order = |seed| Random::new(seed).permutation(12);
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
    }

    #[test]
    fn everybody_comes_first_about_equally_often() {
        let mut random = Random::new(3);
        let mut first = [0; 4];
        for _ in 0..4000 {
            first[random.permutation(4)[0]] += 1;
        }
        assert!(first.iter().all(|&times| (900..1100).contains(&times)), "{first:?}");
    }
}
