//! Which lane of a transfer cache somebody has.

/// Lists of batches that the transfer cache of a class consists of; a power of two.
pub(crate) const LANES: usize = 4;
/// Where a number has the lane: above all that says which shard.
const SHIFT: u32 = 8;
const _: () = assert!(crate::SHARDS <= 1 << SHIFT && LANES.is_power_of_two());
/// The bits of a number that are the lane.
pub(crate) const BITS: usize = (LANES - 1) << SHIFT;

/// The number by which the `number`-th of those who share a cache goes [near](crate::CentralCache::near) to it: each
/// [`SHARDS`](crate::SHARDS) in a row are near to all shards there may be, and of those who are near to the same one each four, from the first on, have all lanes.
#[inline]
pub const fn spread(number: usize) -> usize {
    // The two bits above those that say which shard, of which there are none to four, are these two, each once.
    let lane = (number ^ number >> 2 ^ number >> 4) % LANES;
    (number % (1 << SHIFT)) | (lane << SHIFT)
}

/// The lane of a number that goes near to a cache, of whose higher bits nothing is left.
#[inline(always)]
pub(crate) const fn of(number: usize) -> usize {
    number >> SHIFT
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;
    use crate::SHARDS;

    #[test]
    fn who_shares_a_shard_shares_no_lane_while_there_are_lanes() {
        for log in 0..=SHARDS.ilog2() {
            for shard in (0..1 << log)
                .flat_map(|shard| (0..20).map(move |four| shard + ((four * LANES) << log)))
            {
                let near: Vec<usize> = (0..LANES).map(|n| spread(shard + (n << log))).collect();
                let shards = near.iter().map(|number| number % (1 << log));
                assert_eq!(shards.collect::<BTreeSet<_>>(), [shard % (1 << log)].into());
                let lanes: BTreeSet<_> = near.iter().map(|&number| of(number)).collect();
                assert_eq!(lanes, (0..LANES).collect(), "{log} {shard}");
            }
        }
    }

    #[test]
    fn however_many_there_are_a_number_is_a_shard_and_a_lane() {
        for number in (0..5000).chain([usize::MAX]) {
            assert_eq!(spread(number) & !BITS, number & 0xff);
            assert!(of(spread(number)) < LANES);
        }
    }
}
