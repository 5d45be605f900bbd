//! The page heap over a source of pages that refuses by plan, against the model of its property tests
//! (`crates/page-heap/tests/support/model.rs`): after each step no two free neighbours are unmerged,
//! pages and records are conserved, spans do not overlap, the page map is exact at every page, what is
//! said to be zero is, and what is live holds what was written to it.
#![no_main]

#[path = "../../crates/page-heap/tests/support/mod.rs"]
mod support;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use support::arena::{Arena, Refusals};
use support::model::{SMALL_LEAF, SMALL_ROOT, Step, with_model};
use tiermalloc_page_map::{LEAF_ENTRIES, ROOT_ENTRIES};

/// Steps that one input may make: longer ones find nothing that shorter ones do not, later.
const STEPS: usize = 80;

#[derive(Arbitrary, Debug)]
struct Input {
    map: Map,
    os_page: OsPage,
    arena: ArenaSize,
    /// Decides where the source puts its regions.
    seed: u32,
    steps: Vec<(Op, Option<Refuse>)>,
}

#[derive(Arbitrary, Debug)]
enum Map {
    /// Leaves of 256 pages, so that the arena lies across many, all of them there beforehand.
    Small,
    /// The same, made when they are needed: that can fail. OS pages are of 4 KiB then, because one such
    /// leaf is shorter than a larger one.
    SmallWithoutLeaves,
    /// As it ships.
    Ordinary,
}

#[derive(Arbitrary, Debug)]
enum OsPage {
    Of4KiB,
    Of16KiB,
    Of64KiB,
}

#[derive(Arbitrary, Debug)]
enum ArenaSize {
    /// Full after a few allocations.
    Narrow,
    Middle,
    /// Room for some regions and for huge allocations beside them.
    Wide,
}

/// Which calls of the source one step does without.
#[derive(Arbitrary, Debug)]
enum Refuse {
    One(u8),
    Some(u16),
    All,
}

#[derive(Arbitrary, Debug)]
enum Op {
    AllocObjects { class: u8 },
    AllocRun { class: u8, more: u8 },
    Recarve { span: u8, class: u8 },
    TakeObjects { span: u8, count: u8 },
    PutObjects { span: u8, count: u8 },
    AllocSmall { pages: u8, align: u8 },
    AllocLarge { pages: u16, align: u8 },
    AllocHuge { bytes: u32, align: u8 },
    AllocGuarded { bytes: u32, align: u8 },
    Resize { span: u8, pages: u16 },
    Free { span: u8 },
    FreeMany { span: u8, count: u8 },
    FreeToWait { span: u8, near: u8 },
    AllocWaiting { pages: u8, near: u8, elsewhere: bool },
    ReturnIdle,
    ReleasePages(u16),
    ReleaseDownTo(u16),
    ReleaseDownToWorth(u16),
    ReleaseSome(u8),
    UnmapFree,
    PassTime(u16),
    Limits { hard: u8, soft: u8 },
    Misuse(u32),
}

impl Op {
    /// What the model is to do, and how many times.
    fn step(&self) -> (Step, usize) {
        let step = match *self {
            Self::AllocObjects { class } => Step::AllocObjects(class.into()),
            Self::AllocRun { class, more } => Step::AllocRun(class.into(), usize::from(more % 150)),
            Self::Recarve { span, class } => Step::Recarve(span.into(), class.into()),
            Self::TakeObjects { span, count } => Step::TakeObjects(span.into(), count.into()),
            Self::PutObjects { span, count } => Step::PutObjects(span.into(), count.into()),
            Self::AllocSmall { pages, align } => {
                Step::AllocLarge { pages: 1 + usize::from(pages % 20), align: 1 << (align % 3) }
            }
            Self::AllocLarge { pages, align } => {
                Step::AllocLarge { pages: 1 + usize::from(pages % 600), align: 1 << (align % 10) }
            }
            Self::AllocHuge { bytes, align } => {
                Step::AllocHuge { bytes: 1 + bytes as usize % (4 << 20), align: 1 << (align % 22) }
            }
            Self::AllocGuarded { bytes, align } => Step::AllocGuarded {
                bytes: 1 + bytes as usize % (1 << 20),
                align: 1 << (align % 18),
            },
            Self::Resize { span, pages } => Step::Resize(span.into(), 1 + usize::from(pages % 600)),
            Self::Free { span } => Step::Free(span.into()),
            Self::FreeMany { span, count } => {
                return (Step::Free(span.into()), usize::from(count % 16));
            }
            Self::FreeToWait { span, near } => Step::FreeToWait(span.into(), near.into()),
            Self::AllocWaiting { pages, near, elsewhere } => {
                let pages = 1 + usize::from(pages % 80);
                Step::AllocWaiting { pages, near: near.into(), elsewhere }
            }
            Self::ReturnIdle => Step::ReturnIdle,
            Self::ReleasePages(pages) => Step::ReleasePages(pages.into()),
            Self::ReleaseDownTo(pages) => Step::ReleaseDownTo(pages.into()),
            Self::ReleaseDownToWorth(pages) => Step::ReleaseDownToWorth(pages.into()),
            Self::ReleaseSome(pages) => Step::ReleaseSome(pages.into()),
            Self::UnmapFree => Step::UnmapFree,
            Self::PassTime(ms) => Step::PassTime(ms.into()),
            Self::Limits { hard, soft } => {
                Step::Limits { hard: usize::from(hard % 24), soft: usize::from(soft % 24) }
            }
            Self::Misuse(n) => Step::Misuse(n as usize),
        };
        (step, 1)
    }
}

fn run<const ROOT: usize, const LEAF: usize>(input: &Input, roomy: bool) {
    let os_page = match input.os_page {
        _ if !roomy => 4096,
        OsPage::Of4KiB => 4096,
        OsPage::Of16KiB => 16384,
        OsPage::Of64KiB => 65536,
    };
    let pages = match input.arena {
        ArenaSize::Narrow => 320,
        ArenaSize::Middle => 1024,
        ArenaSize::Wide => 2560,
    };
    let arena = Arena::new(pages, os_page, input.seed.into());
    with_model::<ROOT, LEAF>(&arena, roomy, |model| {
        for (op, refuse) in input.steps.iter().take(STEPS) {
            arena.refuse(match *refuse {
                None => Refusals::Never,
                Some(Refuse::One(call)) => Refusals::Bits(1 << (call % 16)),
                Some(Refuse::Some(calls)) => Refusals::Bits(calls.into()),
                Some(Refuse::All) => Refusals::Bits(u64::MAX),
            });
            let (step, times) = op.step();
            (0..times).for_each(|_| model.step(&step));
        }
        model.finish();
    });
}

fuzz_target!(|input: Input| match input.map {
    Map::Small => run::<SMALL_ROOT, SMALL_LEAF>(&input, true),
    Map::SmallWithoutLeaves => run::<SMALL_ROOT, SMALL_LEAF>(&input, false),
    Map::Ordinary => run::<ROOT_ENTRIES, LEAF_ENTRIES>(&input, true),
});
