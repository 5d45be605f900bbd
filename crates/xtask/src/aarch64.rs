//! `cargo xtask aarch64`: the workspace built for aarch64 and tested under qemu, with pages of 4, 16
//! and 64 KiB.
//!
//! What it takes, all from Debian and not from rustup, whose hosts a machine may not reach:
//! - `rustc-web` with `libstd-rust-web-dev:arm64` compiles (cargo itself is the one at hand);
//! - `gcc-aarch64-linux-gnu` links;
//! - `qemu-user-static` runs, against the multiarch `libc6:arm64`. With the cross compiler's libc and
//!   qemu's `-L`, programs hang in `pthread_create`.
//!
//! `qemu-aarch64-static -p` really changes the page size that the program sees.

use std::path::{Path, PathBuf};

use crate::shell::{Cmd, Result, cargo, cmd, require};
use crate::{packages, workspace};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const QEMU: &str = "qemu-aarch64-static";
const CC: &str = "aarch64-linux-gnu-gcc";

const PACKAGES: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev:arm64",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user-static",
    "libc6:arm64",
    "libgcc-s1:arm64",
];

/// Debian's compiler; rustup's comes first in `PATH` and knows no such target.
const RUSTC: &str = "/usr/bin/rustc";
const RUSTDOC: &str = "/usr/bin/rustdoc";

/// Crates whose tests stay on the machine that builds: they run cargo and the machine's own programs.
/// What preload ships is looked at by a C program instead.
const NOT_TESTED: &[&str] = &["preload", "cli", "xtask"];

#[derive(clap::Args)]
pub struct Args {
    /// Bytes in a page of the emulated machine (may be given again) [default: 4096, 16384, 65536]
    #[arg(long = "page-size", value_name = "BYTES", value_parser = parse_page_size)]
    page_sizes: Vec<u32>,
    /// Install what is missing, with apt-get
    #[arg(long)]
    install: bool,
    /// Only the tests of these crates (directory names below `crates/`)
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Only tests whose name contains this
    filter: Option<String>,
}

fn parse_page_size(text: &str) -> std::result::Result<u32, String> {
    match text.parse() {
        Ok(size @ (4096 | 16384 | 65536)) => Ok(size),
        _ => Err("an aarch64 page has 4096, 16384 or 65536 bytes".to_owned()),
    }
}

pub fn run(args: &Args) -> Result {
    if args.install {
        packages::add_architecture("arm64")?;
        packages::install(PACKAGES)?;
    }
    require(&[QEMU, CC], "`cargo xtask aarch64 --install` installs what it takes")?;
    let sysroot = cmd(RUSTC).quiet().args(["--print", "target-libdir", "--target", TARGET]).read();
    if !sysroot.is_ok_and(|dir| Path::new(dir.trim()).is_dir()) {
        return Err(format!("{RUSTC} has no library for {TARGET}; --install gets it"));
    }

    let tested = tested_crates(&args.crates)?;
    let sizes =
        if args.page_sizes.is_empty() { &[4096, 16384, 65536][..] } else { &args.page_sizes };
    for size in sizes {
        println!("\n=== tests with pages of {size} bytes");
        test(&tested, *size, args.filter.as_deref())?;
    }
    if args.crates.is_empty() && args.filter.is_none() {
        println!("\n=== the library under a C program");
        let library = build_library()?;
        let smoke = compile_smoke()?;
        for size in sizes {
            preload(&library, &smoke, *size)?;
        }
    }
    Ok(())
}

fn tested_crates(only: &[String]) -> Result<Vec<String>> {
    let mut crates = workspace::crates()?;
    crates.retain(|name| !NOT_TESTED.contains(&name.as_str()));
    if let Some(unknown) = only.iter().find(|name| !crates.contains(name)) {
        return Err(format!("{unknown} is not among: {}", crates.join(", ")));
    }
    crates.retain(|name| only.is_empty() || only.contains(name));
    Ok(crates)
}

/// cargo with Debian's compiler, in a target directory of its own.
fn cross() -> Result<Cmd> {
    Ok(cargo()
        .dir(workspace::root()?)
        .env("RUSTC", RUSTC)
        .env("RUSTDOC", RUSTDOC)
        .env("CARGO_TARGET_DIR", workspace::target_dir()?.join("aarch64"))
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", CC))
}

fn test(crates: &[String], page_size: u32, filter: Option<&str>) -> Result {
    let runner = format!("{QEMU} -p {page_size}");
    let mut command = cross()?
        // For tests that start themselves again.
        .env("TIERMALLOC_TEST_RUNNER", &runner)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", &runner)
        .args(["test", "--no-fail-fast", "--target", TARGET]);
    for name in crates {
        command = command.args(["--package", &workspace::package_name(name)]);
    }
    if let Some(filter) = filter {
        command = command.args(["--", filter]);
    }
    command.run()
}

fn build_library() -> Result<PathBuf> {
    cross()?
        .args(["build", "--release", "--target", TARGET, "--package", "tiermalloc-preload"])
        .args(["--package", "tiermalloc-archive"])
        .run()?;
    let release = workspace::target_dir()?.join("aarch64").join(TARGET).join("release");
    let library = release.join("libtiermalloc.so");
    workspace::check_library(&library)?;
    Ok(library)
}

fn compile_smoke() -> Result<PathBuf> {
    let program = workspace::scratch("aarch64")?.join("smoke");
    cmd(CC)
        .dir(workspace::root()?)
        .args(["-O1", "-Wall", "-Wextra", "-pthread", "-o"])
        .arg(&program)
        .arg("crates/xtask/c/smoke.c")
        .run()?;
    Ok(program)
}

/// Runs the C program on the library. A hang under the emulator is as likely as a wrong answer, so
/// it has ten minutes, of which it needs seconds.
fn preload(library: &Path, smoke: &Path, page_size: u32) -> Result {
    let size = page_size.to_string();
    let mut variable = std::ffi::OsString::from("LD_PRELOAD=");
    variable.push(library);
    cmd("timeout")
        .args(["--kill-after=5", "600", QEMU, "-p", &size, "-E"])
        .arg(variable)
        .arg(smoke)
        .arg(&size)
        .run()
}
