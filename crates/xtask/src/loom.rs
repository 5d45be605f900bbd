//! `cargo xtask loom`, also `cargo loom`: runs the models of every crate that has any.
//!
//! A crate's models are its `tests/loom.rs` (or `tests/loom/main.rs`), which begins with
//! `#![cfg(tiermalloc_loom)]`. The cfg is ours alone; it turns `tiermalloc-sync` into loom, so that
//! the models run the code that ships. The build has a target directory of its own: the cfg is a
//! compiler flag, and in the shared directory each change of flags would build everything again.

use std::path::Path;

use crate::shell::{Cmd, Result, cargo};
use crate::workspace;

/// Bounds on involuntary context switches: loom's own advice is that 2 or 3 find most bugs.
const PREEMPTIONS: u32 = 4;
const PREEMPTIONS_DEEP: u32 = 5;
/// For those who run the models often.
pub const PREEMPTIONS_QUICK: u32 = 2;

#[derive(clap::Args)]
pub struct Args {
    /// Explore with 5 involuntary context switches per execution in place of 4 (much slower)
    #[arg(long)]
    deep: bool,
    /// Explore with this many
    #[arg(long, value_name = "COUNT", conflicts_with = "deep")]
    preemptions: Option<u32>,
    /// Only the models of these crates (directory names below `crates/`)
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Only models whose name contains this
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result {
    let bound = if args.deep { PREEMPTIONS_DEEP } else { PREEMPTIONS };
    explore(args.preemptions.unwrap_or(bound), &args.crates, args.filter.as_deref())
}

/// Every model with the default bounds: the step of `ci`.
pub fn run_all() -> Result {
    explore(PREEMPTIONS, &[], None)
}

fn explore(preemptions: u32, only: &[String], filter: Option<&str>) -> Result {
    let root = workspace::root()?;
    let mut with_models = workspace::crates()?;
    with_models.retain(|name| {
        let tests = root.join("crates").join(name).join("tests");
        tests.join("loom.rs").is_file() || tests.join("loom").join("main.rs").is_file()
    });
    if let Some(unknown) = only.iter().find(|name| !with_models.contains(name)) {
        let known = with_models.join(", ");
        return Err(format!("crates/{unknown} has no tests/loom.rs; those that have: {known}"));
    }
    with_models.retain(|name| only.is_empty() || only.contains(name));
    if with_models.is_empty() {
        println!("no crate has a tests/loom.rs");
        return Ok(());
    }

    let mut command = test_command(&root, &workspace::target_dir()?.join("loom"), preemptions)
        .arg("--no-fail-fast");
    for name in &with_models {
        command = command.args(["--package", &workspace::package_name(name)]);
    }
    if let Some(filter) = filter {
        command = command.args(["--", filter]);
    }
    command.run()
}

/// `cargo test` of the models of the workspace in `root`, built below `target`; which packages, and
/// which models, the caller adds. Whoever runs models builds them this way.
pub fn test_command(root: &Path, target: &Path, preemptions: u32) -> Cmd {
    cargo()
        .dir(root)
        .env("RUSTFLAGS", flags())
        .env("LOOM_MAX_PREEMPTIONS", preemptions.to_string())
        // Optimised, or the exploration takes minutes; with the assertions that a debug build has,
        // for they are what a model would trip over; without LTO, which costs more than it saves.
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .args(["test", "--release", "--test", "loom", "--target-dir"])
        .arg(target)
}

/// Our cfg, after whatever flags the user's environment already has.
fn flags() -> String {
    let ours = "--cfg tiermalloc_loom";
    match std::env::var("RUSTFLAGS") {
        Ok(theirs) if !theirs.is_empty() => format!("{theirs} {ours}"),
        _ => ours.to_owned(),
    }
}
