//! `cargo xtask bench`: builds the driver in `benches/runner/` and hands everything over to it.
//!
//! The driver is a package of its own, with plots and progress bars, so that this one stays quick to
//! build. What is left here is what every command shares: finding the target directory, and
//! `--install` through apt.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use crate::shell::{Cmd, Result, cargo, cmd};
use crate::{packages, workspace};

/// The package of the driver.
pub const RUNNER: &str = "benches/runner";

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Options of the driver; `cargo xtask bench --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

pub fn run(args: &Args) -> Result {
    let driver = build()?;
    let root = workspace::root()?;
    let target = workspace::target_dir()?;
    let start = || {
        cmd(&driver)
            .quiet()
            .env("TIERMALLOC_BENCH_ROOT", &root)
            .env("TIERMALLOC_BENCH_TARGET", &target)
    };
    if args.options.iter().any(|option| option == "--install") {
        let wanted = start().arg("--packages").read()?;
        install(&wanted.lines().collect::<Vec<_>>());
    }
    // In place of this process: an interrupt or a failure is then the driver's alone to tell.
    let error = start().args(&args.options).start().exec();
    Err(format!("{}: {error}", driver.display()))
}

/// Installs what can be installed. Another release of a distribution may lack one of the packages; the
/// driver then goes without, and says so.
fn install(wanted: &[&str]) {
    if packages::install(wanted).is_ok() {
        return;
    }
    for package in wanted {
        if let Err(reason) = packages::install(&[package]) {
            println!("{package}: {reason}");
        }
    }
}

/// The step of `ci`: the driver's own tests.
pub fn test() -> Result {
    of_driver("test")?.env("TIERMALLOC_BENCH_TARGET", workspace::target_dir()?).run()
}

/// Builds the driver and returns where it lies.
fn build() -> Result<PathBuf> {
    of_driver("build")?.quiet().arg("--quiet").run()?;
    Ok(workspace::target_dir()?.join(RUNNER).join("debug/tiermalloc-bench-runner"))
}

/// A command of cargo for the package of the driver.
fn of_driver(command: &str) -> Result<Cmd> {
    Ok(cargo()
        .dir(workspace::root()?)
        .args([command, "--locked", "--manifest-path"])
        .arg(format!("{RUNNER}/Cargo.toml"))
        .arg("--target-dir")
        .arg(workspace::target_dir()?.join(RUNNER)))
}
