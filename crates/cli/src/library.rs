//! Finding `libtiermalloc.so`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{self, Path, PathBuf};

use crate::elf::{self, Elf, Kind};
use crate::failure::{Failure, reason};

/// The file name of the library.
pub const NAME: &str = "libtiermalloc.so";
/// The environment variable that names the library.
pub const VARIABLE: &str = "TIERMALLOC_LIBRARY";

/// The directory that Debian and its kin keep this architecture's libraries in, below `lib`.
const MULTIARCH: &str = if cfg!(all(target_arch = "x86_64", target_env = "musl")) {
    "x86_64-linux-musl"
} else if cfg!(target_arch = "x86_64") {
    "x86_64-linux-gnu"
} else if cfg!(all(target_arch = "aarch64", target_env = "musl")) {
    "aarch64-linux-musl"
} else if cfg!(target_arch = "aarch64") {
    "aarch64-linux-gnu"
} else if cfg!(target_arch = "riscv64") {
    "riscv64-linux-gnu"
} else if cfg!(target_arch = "x86") {
    "i386-linux-gnu"
} else {
    "lib"
};

/// A library that can be preloaded, as far as its header tells.
pub struct Library {
    /// Absolute path: the program may change its directory before it starts others.
    pub path: PathBuf,
    /// Its header.
    pub elf: Elf,
}

/// The library: what `--library` says, else what the environment says, else the first one in the
/// [`places`].
pub fn find(option: Option<&Path>) -> Result<Library, Failure> {
    let variable = || env::var_os(VARIABLE).filter(|value| !value.is_empty());
    if let Some(path) = option {
        return open(path, "--library");
    }
    if let Some(path) = variable() {
        return open(Path::new(&path), VARIABLE);
    }
    let places = places(own_directory().as_deref());
    match places.iter().find(|place| place.is_file()) {
        Some(path) => open(path, "the search"),
        None => Err(nowhere(&places)),
    }
}

/// Where this program really is: symbolic links to it do not move the library.
fn own_directory() -> Option<PathBuf> {
    let exe = fs::canonicalize("/proc/self/exe").or_else(|_| env::current_exe()).ok()?;
    exe.parent().map(Path::to_owned)
}

/// Where the library may be, the first one first: beside the program (a build), in the `lib` beside
/// the program's directory (an installation), and where the system keeps libraries.
fn places(own: Option<&Path>) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(own) = own {
        directories.push(own.to_owned());
        if let Some(prefix) = own.parent() {
            let lib = prefix.join("lib");
            directories.extend([lib.clone(), lib.join(MULTIARCH), prefix.join("lib64")]);
        }
    }
    for system in ["/usr/local/lib", "/usr/lib"] {
        directories.extend([PathBuf::from(system), Path::new(system).join(MULTIARCH)]);
    }
    directories.extend([PathBuf::from("/usr/local/lib64"), PathBuf::from("/usr/lib64")]);
    let mut places: Vec<PathBuf> = Vec::new();
    for directory in directories {
        let place = directory.join(NAME);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Opens a library that `source` named and looks whether it can be one.
fn open(path: &Path, source: &str) -> Result<Library, Failure> {
    let shown = path.display();
    let bad = |what: String| Failure::failed(format!("'{shown}' ({source}) {what}"));
    let unreadable = |error| bad(format!("cannot be read: {}", reason(&error)));
    let path = path::absolute(path).map_err(unreadable)?;
    let file = File::open(&path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(bad(format!("is a directory: name the file, {shown}/{NAME}")));
    }
    let elf = Elf::read(&file).map_err(|error| match error {
        elf::Error::Read(error) => unreadable(error),
        error => bad(format!("is not a shared library: {error}")),
    })?;
    if elf.kind != Kind::Dynamic {
        return Err(bad(format!("is not a shared library but {}", elf.kind)));
    }
    Ok(Library { path, elf })
}

/// The message for those who have no library.
fn nowhere(places: &[PathBuf]) -> Failure {
    let mut message = OsString::from(format!("found no {NAME}; looked for\n"));
    for place in places {
        message.push("  ");
        message.push(place);
        message.push("\n");
    }
    message.push(format!(
        "`cargo build --release` in tiermalloc's sources leaves program and library side by side in\n\
         target/release; `cargo xtask install --prefix DIR` installs both. To use a library that is\n\
         elsewhere: `tiermalloc run --library FILE ...`, or {VARIABLE}=FILE in the environment."
    ));
    Failure::failed(message.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_program_comes_first_and_the_system_last() {
        let places = places(Some(Path::new("/opt/t/bin")));
        let at = |place: &str| places.iter().position(|p| p == Path::new(place));
        assert_eq!(at("/opt/t/bin/libtiermalloc.so"), Some(0));
        assert_eq!(at("/opt/t/lib/libtiermalloc.so"), Some(1));
        assert!(at("/opt/t/lib64/libtiermalloc.so") < at("/usr/local/lib/libtiermalloc.so"));
        assert!(at("/usr/lib/libtiermalloc.so").is_some());
    }

    #[test]
    fn a_place_is_named_once() {
        let mut places = places(Some(Path::new("/usr/local/bin")));
        let all = places.len();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), all);
    }
}
