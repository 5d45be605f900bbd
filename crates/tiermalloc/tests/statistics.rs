//! Statistics of a Rust program: what it has is what is counted, and its end is written without its help.

use std::path::PathBuf;
use std::process::Command;

use tiermalloc::config::Format;
use tiermalloc::{Pool, Snapshot, Stats, stats};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

/// All tests here: figures are of the whole process, so there is one thread that allocates.
#[test]
fn figures_are_true() {
    // Where every block has pages of its own, or is the C library's, no class and no span serves it.
    let by_class = !matches!(tiermalloc::config().pool, Pool::Guarded | Pool::System);
    sums(by_class);
    if by_class {
        classes();
    }
    formats();
    if std::env::var_os("TIERMALLOC_CONF").is_none() {
        at_the_end();
    }
}

fn parts(s: &Stats) -> usize {
    s.live
        + s.thread_caches
        + s.parked_caches
        + s.transfer_caches
        + s.quarantine
        + s.span_free
        + s.free_dirty
        + s.free_clean
        + s.metadata
        + s.metadata_free
}

fn sums(by_class: bool) {
    let before = stats();
    let blocks: Vec<Box<[u8]>> = (0..1000).map(|n| vec![1; 40 + n].into_boxed_slice()).collect();
    let large = vec![1u8; 1 << 20];
    let after = stats();
    for figures in [before, after] {
        assert_eq!(parts(&figures), figures.mapped);
        assert!(figures.committed <= figures.mapped && figures.live <= figures.committed);
    }
    if !by_class {
        return;
    }
    assert_eq!(after.live_objects - before.live_objects, 1002, "and the vector of all");
    // In the hardened pool it is a mapping of its own.
    assert_eq!(after.large + after.huge - before.large - before.huge, large.len());
    let asked: usize = blocks.iter().map(|block| block.len()).sum();
    let more = after.live - before.live - large.len() - 1000 * size_of::<Box<[u8]>>();
    assert!(more >= asked && more <= asked + (after.slack_most - before.slack_most) + 1024);
    drop((blocks, large));
    assert_eq!(stats().live_objects, before.live_objects);
}

fn classes() {
    let mut snapshot = Box::new(Snapshot::new());
    assert!(snapshot.classes().all(|class| !class.is_used()), "not taken yet");
    snapshot.take();
    let live = |snapshot: &Snapshot, size: usize| {
        snapshot.classes().find(|class| class.size == size).map(|class| class.live_objects)
    };
    let before = live(&snapshot, 24);
    let blocks: [Box<[u64; 3]>; 50] = std::array::from_fn(|n| Box::new([n as u64; 3]));
    snapshot.take();
    assert_eq!(live(&snapshot, 24), before.map(|objects| objects + 50));
    assert_eq!(blocks.iter().map(|block| block[2]).sum::<u64>(), 49 * 25);
    assert_eq!(snapshot.classes().count(), 208);
    assert!(snapshot.classes().is_sorted_by_key(|class| class.size));
    for class in snapshot.classes() {
        let objects =
            class.live_objects + class.cached_objects() + class.free_objects + class.fresh_objects;
        assert_eq!(objects * class.size + class.tail_waste, class.span_bytes, "{class:?}");
        assert_eq!(class.occupancy.iter().sum::<u32>() as usize, class.spans);
    }
    assert_eq!(snapshot.totals.threads, snapshot.threads().len());
    assert_eq!(snapshot.process, std::process::id());
}

fn formats() {
    let mut snapshot = Box::new(Snapshot::new());
    snapshot.take();
    for (format, first, last) in [
        (Format::Text, "tiermalloc: the heap of ", "\n"),
        (Format::Json, "{\"schema\":\"tiermalloc-stats\",\"version\":1,", "]}\n"),
        (Format::OpenMetrics, "# TYPE tiermalloc info\n", "\n# EOF\n"),
    ] {
        let mut text = Vec::with_capacity(1 << 20);
        let before = stats().live_objects;
        snapshot.write(format, &mut |piece| text.extend_from_slice(piece));
        assert_eq!(stats().live_objects, before, "it allocates nothing");
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(first) && text.ends_with(last), "{text}");
    }
    assert!(!tiermalloc::write_stats(-1, Format::Text));
}

/// This very program, started once more to do nothing.
fn at_the_end() {
    let name = format!("tiermalloc-statistics-{}", std::process::id());
    let file: PathBuf = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&file);
    let conf = format!("stats=exit,stats_format=json,stats_file={}", file.display());
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--list")
        .env("TIERMALLOC_CONF", conf)
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(text.contains("\"reason\":\"exit\"") && text.lines().count() == 1, "{text}");
}
