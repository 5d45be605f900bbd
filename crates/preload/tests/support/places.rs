//! Places that are not ours alone: a directory for everybody, another `/etc`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{bare, run};

/// A directory that everybody can enter; the target directory may be nobody's business.
pub struct Open(pub PathBuf);

impl Drop for Open {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn open_to_all(name: &str) -> Option<Open> {
    let path = std::env::temp_dir().join(format!("tiermalloc-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).ok()?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).ok()?;
    Some(Open(path))
}

/// A command that runs with a directory of ours in place of `/etc`; `None` where that cannot be.
pub fn with_etc(directory: &Path) -> Option<Command> {
    let script = "mount --bind \"$1\" /etc && shift && exec \"$@\"";
    let shell = |program: &str| {
        let mut command = bare("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(directory).arg(program);
        command
    };
    let possible = run(&mut shell("true"));
    if !possible.status.success() {
        println!("skipped: /etc cannot be another one: {}", possible.stderr);
        return None;
    }
    Some(shell("env"))
}
