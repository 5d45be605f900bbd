//! `cargo xtask ci`: everything that must hold before a change goes in.
//!
//! Steps run in the order of what fails fastest; the first that fails ends the run. Each prints a
//! header and its time, and the last lines say it all again. A step is a function of another module
//! or a line of cargo: what CI does, a person can do by hand, one step at a time
//! (`cargo xtask ci STEP`).

use std::time::{Duration, Instant};

use crate::shell::{Result, cargo};
use crate::table::Table;
use crate::{arrows, bench, instructions, loom, msrv, real_programs, workspace};

/// Packages outside the workspace that are held to the same formatting, lints and tests.
const OUTSIDE: &[&str] = &["benches/global", bench::RUNNER];
/// And one that only a nightly compiler builds, held to the formatting.
const NIGHTLY: &str = "fuzz";

#[derive(clap::Args)]
pub struct Args {
    /// Only these steps, in the order of the list
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result,
}

const STEPS: &[Step] = &[
    Step { name: "format", about: "rustfmt has nothing to change", run: format },
    Step { name: "arrows", about: "crates depend downwards only", run: arrows },
    Step { name: "clippy", about: "no warning in any target", run: clippy },
    Step { name: "test", about: "cargo test --workspace", run: test },
    Step { name: "bench", about: "the bench's own tests, each workload among them", run: bench },
    Step { name: "doc", about: "the documentation builds without a warning", run: doc },
    Step { name: "loom", about: "every model holds", run: models },
    Step { name: "build", about: "cargo build --release", run: build },
    Step { name: "library", about: "libtiermalloc.so needs nothing but libc", run: library },
    Step { name: "instructions", about: "instruction counts within their bars", run: count },
    Step { name: "real-programs", about: "the quick ones of the real programs", run: programs },
    Step { name: "pools", about: "the tests with more shards, and in the other pools", run: pools },
    Step { name: "msrv", about: "the oldest promised compiler takes the code", run: oldest },
];

pub fn run(args: &Args) -> Result {
    if args.list {
        for step in STEPS {
            println!("{:<14} {}", step.name, step.about);
        }
        return Ok(());
    }
    if let Some(unknown) = args.steps.iter().find(|name| STEPS.iter().all(|s| s.name != **name)) {
        return Err(format!("no step is called {unknown}; `cargo xtask ci --list` lists them"));
    }
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| args.steps.is_empty() || args.steps.iter().any(|name| name == step.name))
        .collect();

    let began = Instant::now();
    let mut table = Table::new(["step", "result", "time"]);
    let mut failure = None;
    for (number, step) in chosen.iter().enumerate() {
        if failure.is_some() {
            table.row([step.name, "not run", ""]);
            continue;
        }
        println!("\n=== {}/{} {}: {}", number + 1, chosen.len(), step.name, step.about);
        let step_began = Instant::now();
        let result = (step.run)();
        let elapsed = shown(step_began.elapsed());
        println!("=== {}: {} in {elapsed}", step.name, outcome(&result));
        table.row([step.name, outcome(&result), elapsed.as_str()]);
        if let Err(message) = result {
            failure = Some(format!("{} failed: {message}", step.name));
        }
    }

    println!();
    table.print();
    println!("in all {}", shown(began.elapsed()));
    match failure {
        None => Ok(()),
        Some(message) => Err(message),
    }
}

fn outcome(result: &Result) -> &'static str {
    if result.is_ok() { "ok" } else { "FAILED" }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
}

fn format() -> Result {
    let root = workspace::root()?;
    cargo().dir(&root).args(["fmt", "--all", "--check"]).run()?;
    for package in OUTSIDE.iter().chain([&NIGHTLY]) {
        let manifest = format!("{package}/Cargo.toml");
        cargo().dir(&root).args(["fmt", "--all", "--check", "--manifest-path", &manifest]).run()?;
    }
    Ok(())
}

fn arrows() -> Result {
    arrows::check_crates()
}

fn clippy() -> Result {
    let root = workspace::root()?;
    let deny = ["--", "-D", "warnings"];
    cargo().dir(&root).args(["clippy", "--workspace", "--all-targets"]).args(deny).run()?;
    for package in OUTSIDE {
        let manifest = format!("{package}/Cargo.toml");
        cargo()
            .dir(&root)
            .args(["clippy", "--all-targets", "--manifest-path", &manifest, "--target-dir"])
            .arg(workspace::target_dir()?.join(package))
            .args(deny)
            .run()?;
    }
    Ok(())
}

fn test() -> Result {
    let root = workspace::root()?;
    cargo().dir(&root).args(["test", "--workspace"]).run()?;
    // A program that listens to nobody: what it brings with it holds.
    cargo()
        .dir(&root)
        .args(["test", "--package", "tiermalloc", "--features", "fixed-config"])
        .args(["--test", "with_config", "--test", "configuration", "--test", "first_use"])
        .run()
}

/// The driver's tests compile every workload and run it for a moment, those of the Rust workloads run each
/// on tiermalloc and on the system's allocator; no other allocator takes part.
fn bench() -> Result {
    bench::test()?;
    cargo()
        .dir(workspace::root()?)
        .args(["test", "--manifest-path", "benches/global/Cargo.toml", "--target-dir"])
        .arg(workspace::target_dir()?.join("benches/global"))
        .run()
}

fn doc() -> Result {
    cargo()
        .dir(workspace::root()?)
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(["doc", "--workspace", "--no-deps"])
        .run()
}

fn models() -> Result {
    loom::run_all()
}

fn build() -> Result {
    cargo().dir(workspace::root()?).args(["build", "--release"]).run()
}

fn library() -> Result {
    arrows::check_library()
}

fn count() -> Result {
    instructions::check()
}

fn programs() -> Result {
    real_programs::run_quick(None)
}

/// More shards than few processors have.
const SHARDS: &str = "shards=8";

/// The facade, and what of the surface threads have to do with, once more with shards; both in the other pools, and the
/// real programs in the pools that ask the most of them.
fn pools() -> Result {
    let tests = |package: &str| {
        Ok::<_, String>(cargo().dir(workspace::root()?).args(["test", "--package", package]))
    };
    tests("tiermalloc")?.env("TIERMALLOC_CONF", SHARDS).arg("--tests").run()?;
    let some =
        ["fork", "limits", "real_programs_quick", "semantics", "signals", "statistics", "threads"];
    tests("tiermalloc-preload")?
        .env("TIERMALLOC_TEST_CONF", SHARDS)
        .args(some.iter().flat_map(|name| ["--test", name]))
        .run()?;
    for conf in ["pool=central", "pool=hardened", "pool=guarded", "pool=system"] {
        // The facade's tests are programs with the allocator in them, those of the surface start such.
        // In the slow pools `tests/pools.rs` of the latter has to do, which runs anyway.
        let whole = matches!(conf, "pool=central" | "pool=hardened");
        let packages =
            [("tiermalloc", "TIERMALLOC_CONF"), ("tiermalloc-preload", "TIERMALLOC_TEST_CONF")];
        for (package, variable) in packages.into_iter().take(1 + usize::from(whole)) {
            tests(package)?.env(variable, conf).arg("--tests").run()?;
        }
    }
    real_programs::run_quick(Some("pool=hardened"))?;
    real_programs::run_quick(Some("pool=system"))
}

fn oldest() -> Result {
    msrv::check_if_at_hand()
}
