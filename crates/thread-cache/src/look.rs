//! The count of slow steps: after some a cache looks around, after some looks it scavenges.
//!
//! Who looks around sees whether other caches are at work: whoever makes as many slow steps as he does looks as often, and each look takes the next
//! number. While his own follow one another he is alone. Nobody else pays for that, and the count-down is the one that scavenges need anyway.

use tiermalloc_central_cache::{Misuse, RawLock};
use tiermalloc_sync::atomic::Ordering;

use crate::{Budget, ObjectSource, Registry, ThreadCache};

/// Slow steps from one look to the next,
const LOOK: u32 = 241;
/// and looks from one scavenge to the next: 4097 steps.
const LOOKS: u32 = 17;
/// So many looks after the last one of another cache none is at work any more. Threads that do the same work by turns take and free
/// tens of thousands of objects before the other one comes.
const LONELY: u32 = 8;

impl ThreadCache {
    /// Counts slow steps; now and then scavenges, and gives back what others ask for.
    #[inline]
    pub(crate) fn slow_step<R: RawLock>(
        &self,
        source: &impl ObjectSource,
        budget: &Budget,
        registry: &Registry<R>,
    ) -> Result<(), Misuse> {
        // Relaxed: a number.
        if self.wanted_back.load(Ordering::Relaxed) > 0 {
            self.give_limit_back(source, budget)?;
        } else if source.is_tight() && self.claimed() > 0 {
            self.ask_all_back();
            self.give_limit_back(source, budget)?;
        }
        let steps = self.until_look.get();
        if steps > 0 {
            self.until_look.set(steps - 1);
            return Ok(());
        }
        self.look_around(source, budget, registry)
    }

    /// Sees whether other caches are at work: whoever makes as many slow steps as this one looks as often. Now and then scavenges.
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    fn look_around<R: RawLock>(
        &self,
        source: &impl ObjectSource,
        budget: &Budget,
        registry: &Registry<R>,
    ) -> Result<(), Misuse> {
        self.until_look.set(LOOK - 1);
        let look = registry.look();
        let lonely = look == self.last_look.get().wrapping_add(1);
        self.lonely_looks.set(if lonely { self.lonely_looks.get().saturating_add(1) } else { 0 });
        self.last_look.set(look);
        let looks = self.until_scavenge.get();
        if looks > 0 {
            self.until_scavenge.set(looks - 1);
            return Ok(());
        }
        self.until_scavenge.set(LOOKS - 1);
        self.scavenge(source)?;
        self.release_unused(budget);
        Ok(())
    }

    /// Whether no other cache is at work, as far as this one has seen.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.lonely_looks.get() >= LONELY
    }

    /// The next scavenge is as far away as it can be.
    pub(crate) fn put_scavenge_off(&self) {
        self.until_look.set(LOOK - 1);
        self.until_scavenge.set(LOOKS - 1);
    }
}
