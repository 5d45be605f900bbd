//! `cargo xtask sanitize thread` and `cargo xtask sanitize address`: the tests of the tiers and of the
//! facade under a sanitizer, on a nightly compiler.
//!
//! The standard library is built with the sanitizer as well (`-Zbuild-std`): ThreadSanitizer takes what
//! it has not instrumented for unsynchronised. What these runs can and cannot see of an allocator is in
//! `docs/testing.md`.
//!
//! The allocator's own thread is left out: ThreadSanitizer knows threads of the C library only, takes that one for
//! whoever has brought it, and breaks over it.

use crate::fuzz::{host, need_nightly, nightly};
use crate::shell::Result;
use crate::workspace;

/// What ThreadSanitizer is not to report: words that one thread counts up in its cache, and that others read, whole or a
/// moment old, for statistics and to see who has more than they have. Not atomics, because they are counted up in one
/// instruction as they are.
const KNOWN: &str = "race:ThreadCache>::cached\nrace:ThreadCache>::bounds\n";

/// The crates whose tests run. The preloaded library is not among them: a program that is started
/// under it has a sanitizer's runtime only if it was built with one, and that runtime brings its own
/// malloc.
const CRATES: &[&str] = &[
    "sync",
    "size-class",
    "page-map",
    "object-pool",
    "page-heap",
    "central-cache",
    "thread-cache",
    "tiermalloc",
];

#[derive(clap::Args)]
pub struct Args {
    /// Which one
    sanitizer: Sanitizer,
    /// Install the nightly compiler and its sources if they are missing
    #[arg(long)]
    install: bool,
    /// Only the tests of these crates (directory names below `crates/`)
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sanitizer {
    /// Data races
    Thread,
    /// Accesses outside of what is there
    Address,
}

impl Sanitizer {
    fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Address => "address",
        }
    }
}

pub fn run(args: &Args) -> Result {
    if let Some(unknown) = args.crates.iter().find(|name| !CRATES.contains(&name.as_str())) {
        return Err(format!("{unknown} is not among the crates: {}", CRATES.join(", ")));
    }
    need_nightly(args.install, &["rust-src"])?;
    let name = args.sanitizer.name();
    let known = workspace::scratch("sanitize")?.join("thread.supp");
    std::fs::write(&known, KNOWN).map_err(|e| format!("{}: {e}", known.display()))?;
    let mut command = nightly()
        .dir(workspace::root()?)
        .env("RUSTFLAGS", format!("-Zsanitizer={name}"))
        .env("RUSTDOCFLAGS", format!("-Zsanitizer={name}"))
        // With another strategy than the tests' own the standard library would be built twice, and both be found.
        .env("CARGO_PROFILE_DEV_PANIC", "unwind")
        // The tests are of what is reached and in which order, and are slow enough as they are.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        // A test that provokes a signal wants it for itself, and one that runs out of memory wants null.
        .env(
            "TSAN_OPTIONS",
            format!(
                "halt_on_error=1 die_after_fork=0 allocator_may_return_null=1 handle_segv=0 handle_abort=0 \
                 suppressions={}",
                known.display()
            ),
        )
        .env(
            "ASAN_OPTIONS",
            "allocator_may_return_null=1 handle_segv=0 detect_leaks=0 use_sigaltstack=0",
        )
        .env("TIERMALLOC_TEST_SANITIZER", name)
        .env("TIERMALLOC_CONF", "background=false")
        .args(["test", "-Zbuild-std", "--lib", "--tests", "--no-fail-fast"])
        .args(["--target", &host()?, "--target-dir"])
        .arg(workspace::target_dir()?.join("sanitize").join(name));
    for name in CRATES
        .iter()
        .filter(|name| args.crates.is_empty() || args.crates.iter().any(|wanted| wanted == *name))
    {
        command = command.args(["--package", &workspace::package_name(name)]);
    }
    // One test after the other: what one has unmapped the kernel gives to the next, and ThreadSanitizer, which
    // does not see the system calls, would take both for users of the same memory.
    command.arg("--").args(&args.filter).arg("--test-threads=1").run()
}
