//! `cargo xtask install --prefix DIR`: puts what a user needs where the parts find each other.
//!
//! ```text
//! DIR/bin/tiermalloc                     looks for ../lib/libtiermalloc.so
//! DIR/lib/libtiermalloc.so
//! DIR/lib/libtiermalloc.a
//! DIR/include/tiermalloc.h
//! DIR/share/man/man1/tiermalloc.1        what `tiermalloc man` prints
//! DIR/share/doc/tiermalloc/LICENSE-*
//! ```

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::shell::{Result, cargo, cmd};
use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// The directory that gets bin/, lib/, include/ and share/
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
}

pub fn run(args: &Args) -> Result {
    let root = workspace::root()?;
    cargo()
        .dir(&root)
        .args(["build", "--release", "--package", "tiermalloc-preload"])
        .args(["--package", "tiermalloc-archive"])
        .args(["--package", "tiermalloc-cli"])
        .run()?;
    let built = workspace::target_dir()?.join("release");
    let prefix = &args.prefix;

    put(&built.join("tiermalloc"), &prefix.join("bin"), 0o755)?;
    put(&built.join("libtiermalloc.so"), &prefix.join("lib"), 0o755)?;
    put(&built.join("libtiermalloc.a"), &prefix.join("lib"), 0o644)?;
    put(&root.join("crates/preload/include/tiermalloc.h"), &prefix.join("include"), 0o644)?;
    match cmd(built.join("tiermalloc")).quiet().arg("man").read() {
        Ok(page) if !page.is_empty() => {
            write(&prefix.join("share/man/man1/tiermalloc.1"), page.as_bytes(), 0o644)?;
        }
        _ => println!("no manual page: this `tiermalloc` does not print one"),
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let file = root.join(licence);
        if file.is_file() {
            put(&file, &prefix.join("share/doc/tiermalloc"), 0o644)?;
        }
    }
    Ok(())
}

/// Copies a file into a directory.
fn put(file: &Path, dir: &Path, mode: u32) -> Result {
    let name = file.file_name().unwrap_or_default();
    let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    write(&dir.join(name), &bytes, mode)
}

/// Writes beside the old file and renames: a program that runs on an older library keeps the file
/// that it has mapped.
fn write(to: &Path, bytes: &[u8], mode: u32) -> Result {
    let cannot = |e: std::io::Error| format!("cannot write {}: {e}", to.display());
    if let Some(dir) = to.parent() {
        workspace::create_dir(dir)?;
    }
    let mut fresh = to.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, bytes).map_err(cannot)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).map_err(cannot)?;
    std::fs::rename(&fresh, to).map_err(cannot)?;
    println!("{}", to.display());
    Ok(())
}
