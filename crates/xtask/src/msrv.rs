//! `cargo xtask msrv`: builds and tests with the oldest compiler that the workspace promises.
//!
//! The version is `rust-version` in the root `Cargo.toml`. The compiler is, in this order:
//! 1. the one of an earlier run, unpacked in the target directory;
//! 2. a rustup toolchain of that version, if there is one;
//! 3. Debian's `rustc-web` of that version, downloaded and unpacked in the target directory. It is
//!    not installed, so that a newer `rustc-web` (which `cargo xtask aarch64` needs) stays.
//!
//! cargo itself is the one at hand: only what compiles our code is old.

use std::path::{Path, PathBuf};

use crate::shell::{Cmd, Result, cargo, cmd, which};
use crate::{packages, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Only check that the code compiles
    #[arg(long)]
    check: bool,
}

pub fn run(args: &Args) -> Result {
    let compiler = Compiler::find()?;
    check(&compiler)?;
    if !args.check {
        compiler.cargo()?.args(["test", "--workspace"]).run()?;
    }
    Ok(())
}

/// The step of `ci`: a machine on which no such compiler can be had gets a note, not a failure.
pub fn check_if_at_hand() -> Result {
    match Compiler::find() {
        Ok(compiler) => check(&compiler),
        Err(reason) => {
            println!("skipped: {reason}");
            Ok(())
        }
    }
}

fn check(compiler: &Compiler) -> Result {
    compiler.cargo()?.args(["check", "--workspace", "--all-targets"]).run()
}

/// The oldest promised compiler.
struct Compiler {
    rustc: PathBuf,
    rustdoc: PathBuf,
}

impl Compiler {
    fn find() -> Result<Self> {
        let version = promised()?;
        let dir = workspace::target_dir()?.join("msrv").join(&version);
        let compiler = if dir.join("rustc").is_file() {
            Self { rustc: dir.join("rustc"), rustdoc: dir.join("rustdoc") }
        } else if let Some(compiler) = Self::of_rustup(&version) {
            compiler
        } else {
            Self::of_debian(&version, &dir).map_err(|error| {
                format!("no rustc {version}: {error}; or `rustup toolchain install {version}`")
            })?
        };
        println!("{}", cmd(&compiler.rustc).quiet().arg("--version").read()?.trim());
        Ok(compiler)
    }

    fn of_rustup(version: &str) -> Option<Self> {
        let rustup = |program: &str| {
            let args = ["which", program, "--toolchain", version];
            let path = cmd("rustup").quiet().args(args).read().ok()?;
            Some(PathBuf::from(path.trim()))
        };
        let names = cmd("rustup").quiet().args(["toolchain", "list"]).read().ok()?;
        // `rustup which` would install a toolchain that is not there.
        names.lines().find(|name| name.starts_with(version))?;
        Some(Self { rustc: rustup("rustc")?, rustdoc: rustup("rustdoc")? })
    }

    fn of_debian(version: &str, dir: &Path) -> Result<Self> {
        if which("apt-get").is_none() {
            return Err("no rustup toolchain of that version, and no apt-get".into());
        }
        // A fresh container has no lists yet.
        let packages = debian_packages(version).or_else(|error| match packages::update() {
            Ok(()) => debian_packages(version),
            Err(_) => Err(error),
        })?;
        let debs = dir.join("debs");
        let root = dir.join("root");
        workspace::create_dir(&debs)?;
        cmd("apt-get").dir(&debs).args(["download", "-qq"]).args(&packages).run()?;
        let entries = std::fs::read_dir(&debs).map_err(|e| format!("{}: {e}", debs.display()))?;
        for entry in entries.filter_map(|entry| entry.ok()) {
            cmd("dpkg").quiet().arg("--extract").arg(entry.path()).arg(&root).run()?;
        }
        // Unpacked and not installed, the compiler finds its own libraries by no other way.
        let multiarch = cmd("gcc").quiet().arg("-print-multiarch").read()?;
        let libraries = root.join("usr").join("lib").join(multiarch.trim());
        for name in ["rustdoc", "rustc"] {
            let script = format!(
                "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
                libraries.display(),
                root.join("usr").join("bin").join(name).display()
            );
            write_script(&dir.join(name), &script)?;
        }
        std::fs::remove_dir_all(&debs).map_err(|e| format!("{}: {e}", debs.display()))?;
        Ok(Self { rustc: dir.join("rustc"), rustdoc: dir.join("rustdoc") })
    }

    fn cargo(&self) -> Result<Cmd> {
        Ok(cargo()
            .dir(workspace::root()?)
            .env("RUSTC", &self.rustc)
            .env("RUSTDOC", &self.rustdoc)
            // rustup's proxies would put their own compiler's libraries in the way.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("CARGO_TARGET_DIR", workspace::target_dir()?.join("msrv").join("build")))
    }
}

/// `rust-version` of the root `Cargo.toml`.
fn promised() -> Result<String> {
    let manifest = workspace::root()?.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|e| format!("Cargo.toml: {e}"))?;
    let line = text.lines().find(|line| line.trim_start().starts_with("rust-version"));
    match line.and_then(|line| line.split('"').nth(1)) {
        Some(version) => Ok(version.to_owned()),
        None => Err("the root Cargo.toml has no rust-version".into()),
    }
}

/// The packages of Debian's compiler of this version, each with its version.
fn debian_packages(version: &str) -> Result<Vec<String>> {
    let madison = cmd("apt-cache").quiet().args(["madison", "rustc-web"]).read()?;
    let is_it = |full: &&str| full.starts_with(&format!("{version}."));
    let full = madison
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(is_it)
        .ok_or("Debian's archive, as this machine knows it, has no such rustc-web")?;
    let library = format!("libstd-rust-web-{version}={full}");
    let depends = cmd("apt-cache").quiet().args(["depends", &library]).read()?;
    let llvm = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("libllvm"))
        .ok_or("Debian's rustc-web names no LLVM")?;
    Ok(vec![
        format!("rustc-web={full}"),
        format!("libstd-rust-web-dev={full}"),
        library.clone(),
        llvm.to_owned(),
    ])
}

fn write_script(path: &Path, text: &str) -> Result {
    use std::os::unix::fs::PermissionsExt;
    let write = || {
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
    };
    write().map_err(|e: std::io::Error| format!("{}: {e}", path.display()))
}
