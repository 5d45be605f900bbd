//! What a program of this workspace knows about the allocator it runs on, and how it proves it.
//!
//! Each package in `peers/` defines one [`Peer`] beside its `#[global_allocator]`. A comparison whose
//! columns are secretly all the same allocator is worth nothing, so `--allocator` asks the one witness
//! that every peer has in common: glibc counts what its own `malloc` has handed out. Blocks of a
//! program on another allocator must not show up there, and those of the system's allocator must.

/// One allocator: its name in tables, where its version is found, and what to call first.
pub struct Peer {
    /// Name of the column, and the end of the program's name: `global-NAME`.
    pub name: &'static str,
    /// The crate that provides it, as `Cargo.lock` calls it; empty for the system's.
    pub package: &'static str,
    /// What the allocator says of itself at run time, where it says anything; else empty.
    pub version: fn() -> String,
    /// What its documentation asks a program to do at the start of `main`.
    pub start: fn(),
}

/// Blocks that the check allocates.
const BLOCKS: usize = 4096;
/// Bytes of each: small enough that no allocator makes a mapping of its own for it.
const BLOCK: usize = 4096;

impl Peer {
    /// The name, the locked version, and what the allocator says of itself, on one line.
    pub fn describe(&self) -> String {
        let mut line = self.name.to_owned();
        match locked(self.package) {
            Some(version) => line.push_str(&format!("\t{} {version}", self.package)),
            None => line.push('\t'),
        }
        line.push('\t');
        line.push_str(&(self.version)());
        line
    }

    /// An error unless this program's memory comes from where [`Peer::name`] says.
    pub fn check(&self) -> Result<(), String> {
        let total = BLOCKS * BLOCK;
        let before = served_by_glibc();
        let blocks: Vec<Vec<u8>> = (0..BLOCKS).map(|_| Vec::with_capacity(BLOCK)).collect();
        let by_glibc = served_by_glibc().saturating_sub(before);
        drop(std::hint::black_box(blocks));
        let is_system = by_glibc > total / 10 * 9;
        let is_other = by_glibc < total / 10;
        if (self.package.is_empty() && is_system) || (!self.package.is_empty() && is_other) {
            return Ok(());
        }
        Err(format!("{}: glibc's malloc served {by_glibc} of {total} bytes", self.name))
    }
}

/// Bytes that glibc's own `malloc` has handed out and not got back.
fn served_by_glibc() -> usize {
    // SAFETY: takes nothing and returns a plain structure.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// The version of a crate in this workspace's lock file.
pub fn locked(package: &str) -> Option<&'static str> {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let mut lines = LOCK.lines();
    let name = format!("name = \"{package}\"");
    lines.find(|line| *line == name)?;
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// For peers that say nothing of themselves.
pub fn silent() -> String {
    String::new()
}

/// For peers that want nothing done first.
pub fn nothing() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(locked("tiermalloc").is_some());
        assert_eq!(locked("no such crate"), None);
        assert_eq!(locked(""), None);
    }

    #[test]
    fn the_check_tells_the_systems_allocator_from_others() {
        let peer = |package| Peer { name: "x", package, version: silent, start: nothing };
        assert_eq!(peer("").check(), Ok(()));
        assert!(peer("tiermalloc").check().is_err());
    }
}
