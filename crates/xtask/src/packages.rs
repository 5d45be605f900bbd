//! Debian's packages, for commands that run on what a distribution has.
//!
//! Nothing is installed unless the user said `--install`. Without it a command says what is missing
//! and how to get it.

use crate::shell::{Result, cmd, which};

/// Installs these packages with apt-get; those already there cost nothing.
pub fn install(names: &[&str]) -> Result {
    if names.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    update()?;
    apt_get().args(["install", "--yes", "-qq", "--no-install-recommends"]).args(&missing).run()
}

/// Brings apt's lists of what there is up to date.
pub fn update() -> Result {
    require_apt()?;
    apt_get().args(["update", "-qq"]).run()
}

/// Lets this machine have packages of another architecture beside its own.
pub fn add_architecture(name: &str) -> Result {
    let have = cmd("dpkg").quiet().arg("--print-foreign-architectures").read()?;
    if have.lines().any(|line| line == name) {
        return Ok(());
    }
    require_apt()?;
    as_root("dpkg").args(["--add-architecture", name]).run()
}

/// Whether dpkg has this package, `name` or `name:architecture`, unpacked and configured.
pub fn is_installed(name: &str) -> bool {
    cmd("dpkg-query")
        .quiet()
        .args(["--show", "--showformat=${db:Status-Abbrev}\n", name])
        .read()
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("ii")))
}

fn require_apt() -> Result {
    if which("apt-get").is_none() {
        return Err(
            "--install needs apt-get (Debian, Ubuntu); install by hand and try again".into()
        );
    }
    if !is_root() && which("sudo").is_none() {
        return Err("--install needs root or sudo".into());
    }
    Ok(())
}

fn is_root() -> bool {
    cmd("id").quiet().arg("-u").read().is_ok_and(|id| id.trim() == "0")
}

fn as_root(program: &str) -> crate::shell::Cmd {
    if is_root() { cmd(program) } else { cmd("sudo").arg(program) }
}

fn apt_get() -> crate::shell::Cmd {
    if is_root() {
        cmd("apt-get").env("DEBIAN_FRONTEND", "noninteractive")
    } else {
        cmd("sudo").args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
    }
}
