//! How fast idle pages go back: how long somebody waits between two looks, and how many bytes a second may go.
//!
//! The rate is kept by a bucket of bytes (Turner, "New directions in communications", 1986): it fills with time,
//! holds what one look's time brings, a second's at most, and what goes back is taken out. So in any stretch
//! of time no more goes back than the rate allows for it and one second more. What somebody asks for, and
//! what a limit asks for, does not go by the rate.

use tiermalloc_size_class::PAGE_SIZE;

use crate::heap::PageHeap;
use crate::lock::RawLock;
use crate::release::WORTH_A_CALL;
use crate::source::PageSource;

/// Least time between two looks of the heap's own, where nobody has set another.
const PERIOD_MS: u64 = 100;

/// What one step has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// So many pages.
    Pages(usize),
    /// None: the rate does not allow any yet.
    NotNow,
    /// None: there is nothing that is worth a call, or the source will not have it.
    Nothing,
}

/// Under the heap's lock.
pub(crate) struct Pace {
    pub(crate) period_ms: u64,
    /// Bytes a second; 0 for as many as there are.
    rate: usize,
    /// Bytes in the bucket, as they were at that time.
    bytes: usize,
    at_ms: u64,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { period_ms: PERIOD_MS, rate: 0, bytes: 0, at_ms: 0 }
    }

    /// Takes up to `wanted` pages out of the bucket, or none if there are not `least` in it.
    fn take(&mut self, now_ms: u64, wanted: usize, least: usize) -> usize {
        if self.rate == 0 {
            return wanted;
        }
        let per_ms = |ms: u64| (self.rate as u128 * u128::from(ms) / 1000) as usize;
        let most = per_ms(self.period_ms.min(1000)).max(WORTH_A_CALL * PAGE_SIZE);
        let since = now_ms.saturating_sub(self.at_ms).min(1000);
        self.bytes = self.bytes.saturating_add(per_ms(since)).min(most);
        self.at_ms = now_ms;
        let pages = wanted.min(self.bytes / PAGE_SIZE);
        if pages < least {
            return 0;
        }
        self.bytes -= pages * PAGE_SIZE;
        pages
    }

    /// Of `taken` pages only so many have gone, or more.
    fn settle(&mut self, taken: usize, gone: usize) {
        let bytes = self.bytes + taken * PAGE_SIZE;
        self.bytes = bytes.saturating_sub(gone * PAGE_SIZE);
    }
}

impl<R: RawLock, S: PageSource, const ROOT: usize, const LEAF: usize>
    PageHeap<'_, R, S, ROOT, LEAF>
{
    /// Sets the least time between two looks of the heap's own, and how many bytes a second of what is idle
    /// may go back at most; 0 for no such bound.
    pub fn set_pace(&self, period_ms: u64, bytes_per_second: usize) {
        let pace = &mut self.inner.lock().pace;
        pace.period_ms = period_ms;
        pace.rate = bytes_per_second;
        pace.bytes = 0;
        pace.at_ms = 0;
    }

    /// [`release_step`](Self::release_step) as far as the rate allows.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub fn release_idle_step(&self, wanted: usize, any: bool) -> Gone {
        let least = if any { 1 } else { WORTH_A_CALL };
        let now = self.source.now_ms();
        let taken = self.inner.lock().pace.take(now, wanted.max(least), least);
        if taken == 0 {
            return Gone::NotNow;
        }
        let released = self.release_one(taken, least);
        let mut inner = self.inner.lock();
        if inner.pace.rate > 0 {
            inner.pace.settle(taken, released.unwrap_or(0));
        }
        released.map_or(Gone::Nothing, Gone::Pages)
    }

    /// [`release_some`](Self::release_some) as far as the rate allows.
    pub fn release_idle(&self, wanted: usize) -> usize {
        self.release_by(wanted, |wanted| match self.release_idle_step(wanted, false) {
            Gone::Pages(pages) => Some(pages),
            _ => None,
        })
    }

    /// Whether there is a rate.
    pub fn is_paced(&self) -> bool {
        self.inner.lock().pace.rate > 0
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use super::*;

    /// A bucket from which as much as possible is taken every `step` ms, for ten seconds: the pages taken.
    fn taken_in_ten_seconds(rate: usize, period_ms: u64, step: u64) -> usize {
        let mut pace = Pace { period_ms, rate, bytes: 0, at_ms: 0 };
        (5000..=15_000).step_by(step as usize).map(|now| pace.take(now, usize::MAX, 1)).sum()
    }

    #[test]
    fn no_more_is_taken_than_the_rate_allows_and_not_much_less() {
        const MIB: usize = 1 << 20;
        for (rate, period, step) in [
            (MIB, 500, 500),
            (MIB, 10, 10),
            (64 << 10, 10, 10),
            (100 * MIB, 1000, 700),
            (MIB, 3_600_000, 999),
        ] {
            let taken = taken_in_ten_seconds(rate, period, step) * PAGE_SIZE;
            assert!(taken <= 11 * rate, "{rate} {period} {step}: {taken}");
            assert!(taken >= 9 * rate, "{rate} {period} {step}: {taken}");
        }
    }

    #[test]
    fn a_long_silence_is_worth_a_second_at_most() {
        let mut pace = Pace { period_ms: 3_600_000, rate: 1 << 20, bytes: 0, at_ms: 1 };
        assert_eq!(pace.take(3_600_000, usize::MAX, 1), 128);
        assert_eq!(pace.take(3_600_000, usize::MAX, 1), 0);
        // What has not gone is there again; what has gone beyond is missing.
        pace.settle(128, 100);
        assert_eq!(pace.take(3_600_000, usize::MAX, 29), 0);
        assert_eq!(pace.take(3_600_000, usize::MAX, 28), 28);
        pace.settle(28, 100);
        assert_eq!(pace.bytes, 0);
    }

    #[test]
    fn without_a_rate_all_is_allowed() {
        assert_eq!(Pace::new().take(0, usize::MAX, 8), usize::MAX);
    }
}
