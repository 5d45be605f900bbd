//! Any sequence of operations, over a source that refuses at random, against the reference model in
//! `support/model.rs`: after each step no two free neighbours are unmerged, pages and records are
//! conserved, spans do not overlap, the page map is exact, what is said to be zero is, and what is live
//! holds what was written to it.
#![cfg(not(tiermalloc_loom))]

mod support;

use proptest::prelude::*;
use support::arena::{Arena, PAGE, Refusals};
use support::model::{SMALL_LEAF, SMALL_ROOT, Step, with_model};
use tiermalloc_page_map::{LEAF_ENTRIES, ROOT_ENTRIES};

/// 48 MiB.
const ARENA_PAGES: usize = 6 * 1024;

fn step() -> impl Strategy<Value = Step> {
    let n = 0..1000usize;
    prop_oneof![
        4 => n.clone().prop_map(Step::AllocObjects),
        2 => (n.clone(), 0..150usize).prop_map(|(n, more)| Step::AllocRun(n, more)),
        2 => (n.clone(), 0..12usize).prop_map(|(n, more)| Step::AllocRun(n, more)),
        4 => (n.clone(), n.clone()).prop_map(|(n, class)| Step::Recarve(n, class)),
        3 => (n.clone(), 1..200usize).prop_map(|(n, count)| Step::TakeObjects(n, count)),
        2 => (n.clone(), 1..200usize).prop_map(|(n, count)| Step::PutObjects(n, count)),
        4 => (1..20usize, 0..2u32).prop_map(|(pages, a)| Step::AllocLarge { pages, align: 1 << a }),
        2 => (1..400usize, 0..9u32).prop_map(|(pages, a)| Step::AllocLarge { pages, align: 1 << a }),
        2 => (PAGE + 1..1 << 22usize, 0..21u32)
            .prop_map(|(bytes, a)| Step::AllocHuge { bytes, align: 1 << a }),
        1 => (1..1usize << 20, 0..18u32)
            .prop_map(|(bytes, a)| Step::AllocGuarded { bytes, align: 1 << a }),
        3 => (n.clone(), 1..300usize).prop_map(|(n, pages)| Step::Resize(n, pages)),
        9 => n.clone().prop_map(Step::Free),
        4 => (n.clone(), 0..20usize).prop_map(|(n, near)| Step::FreeToWait(n, near)),
        2 => (30..80usize, 0..20usize, any::<bool>())
            .prop_map(|(pages, near, elsewhere)| Step::AllocWaiting { pages, near, elsewhere }),
        1 => Just(Step::ReturnIdle),
        1 => (0..600usize).prop_map(Step::ReleasePages),
        1 => (0..600usize).prop_map(Step::ReleaseDownTo),
        1 => (0..600usize).prop_map(Step::ReleaseDownToWorth),
        1 => (0..200usize).prop_map(Step::ReleaseSome),
        1 => Just(Step::UnmapFree),
        1 => (1..400u64).prop_map(Step::PassTime),
        2 => (0..40usize, 0..40usize).prop_map(|(hard, soft)| Step::Limits { hard, soft }),
        1 => (0..usize::MAX / PAGE).prop_map(Step::Misuse),
    ]
}

/// Mostly nothing is refused; else a few of the calls, or all.
fn refusals() -> impl Strategy<Value = Refusals> {
    prop_oneof![
        6 => Just(Refusals::Never),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Refusals::Bits(a & b)),
        2 => (0..6u32).prop_map(|call| Refusals::Bits(1 << call)),
        1 => Just(Refusals::Bits(u64::MAX)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(Step, Refusals)>> {
    prop::collection::vec((step(), refusals()), 1..60)
}

/// So many cases, or as many as `PROPTEST_CASES` says.
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn run<const ROOT: usize, const LEAF: usize>(
    steps: &[(Step, Refusals)],
    os_page: usize,
    seed: u64,
    roomy: bool,
) {
    let arena = Arena::new(ARENA_PAGES, os_page, seed);
    with_model::<ROOT, LEAF>(&arena, roomy, |model| {
        for (step, refusals) in steps {
            arena.refuse(refusals.clone());
            model.step(step);
        }
        model.finish();
    });
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn the_heap_is_the_model(steps in steps(), seed: u64) {
        run::<SMALL_ROOT, SMALL_LEAF>(&steps, 4096, seed, true);
    }

    #[test]
    fn the_heap_is_the_model_when_the_map_may_fail_to_grow(steps in steps(), seed: u64) {
        run::<SMALL_ROOT, SMALL_LEAF>(&steps, 4096, seed, false);
    }

    #[test]
    fn the_heap_is_the_model_with_os_pages_of_64_kib(steps in steps(), seed: u64) {
        run::<SMALL_ROOT, SMALL_LEAF>(&steps, 65536, seed, true);
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn the_heap_is_the_model_in_the_ordinary_map(steps in steps(), seed: u64) {
        run::<ROOT_ENTRIES, LEAF_ENTRIES>(&steps, 16384, seed, true);
    }
}
