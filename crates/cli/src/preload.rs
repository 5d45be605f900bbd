//! The value of `LD_PRELOAD`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The environment variable that the dynamic loader reads.
pub const VARIABLE: &str = "LD_PRELOAD";

/// The value that preloads `library` before whatever `existing` preloads already. A library that
/// is in the list stays where it is.
///
/// Fails when `library` is a path that `LD_PRELOAD` cannot hold: the loader splits the list at
/// colons and white space, expands `$ORIGIN`, `$LIB` and `$PLATFORM`, and knows no quoting.
pub fn value(library: &Path, existing: Option<&OsStr>) -> Result<OsString, Failure> {
    let path = expressible(library)?;
    let existing = existing.unwrap_or_default();
    if existing
        .as_bytes()
        .split(|&byte| splits(byte))
        .any(|item| item == path.as_os_str().as_bytes())
    {
        return Ok(existing.to_owned());
    }
    let mut list = path.into_os_string();
    if existing.as_bytes().iter().any(|&byte| !splits(byte)) {
        list.push(":");
        list.push(existing);
    }
    Ok(list)
}

/// Whether the loader ends an item of the list at `byte`. (glibc: colons and spaces; musl: colons
/// and all white space.)
fn splits(byte: u8) -> bool {
    byte == b':' || byte.is_ascii_whitespace() || byte == 0x0b
}

/// `library`, or the file it is a symbolic link to, whichever `LD_PRELOAD` can hold.
fn expressible(library: &Path) -> Result<PathBuf, Failure> {
    let bad =
        |path: &Path| path.as_os_str().as_bytes().iter().any(|&byte| splits(byte) || byte == b'$');
    if !bad(library) {
        return Ok(library.to_owned());
    }
    if let Ok(real) = fs::canonicalize(library) {
        if !bad(&real) {
            return Ok(real);
        }
    }
    let path = library.display();
    let quoted = path.to_string().replace('\'', r"'\''");
    Err(Failure::failed(format!(
        "cannot preload '{path}': the list in {VARIABLE} cannot hold a path with a space, a colon or a\n\
         dollar sign. Give the library another name, for instance:\n\
         ln -s '{quoted}' /tmp/libtiermalloc.so\n\
         tiermalloc run --library /tmp/libtiermalloc.so -- ..."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(library: &str, existing: Option<&str>) -> OsString {
        value(Path::new(library), existing.map(OsStr::new)).unwrap()
    }

    #[test]
    fn the_library_comes_first() {
        assert_eq!(of("/a/l.so", None), "/a/l.so");
        assert_eq!(of("/a/l.so", Some("/b.so")), "/a/l.so:/b.so");
        assert_eq!(of("/a/l.so", Some("/b.so /c.so")), "/a/l.so:/b.so /c.so");
    }

    #[test]
    fn nothing_is_added_to_an_empty_list() {
        assert_eq!(of("/a/l.so", Some("")), "/a/l.so");
        assert_eq!(of("/a/l.so", Some(" : ")), "/a/l.so");
    }

    #[test]
    fn a_library_is_named_once() {
        for list in ["/a/l.so", "/b.so:/a/l.so", "/b.so /a/l.so:/c.so"] {
            assert_eq!(of("/a/l.so", Some(list)), list);
        }
        assert_eq!(of("/a/l.so", Some("/a/l.so.1")), "/a/l.so:/a/l.so.1");
    }

    #[test]
    fn paths_that_the_loader_would_split_or_expand_are_refused() {
        for path in ["/a b/l.so", "/a:b/l.so", "/a\tb/l.so", "/$LIB/l.so"] {
            let failure = value(Path::new(path), None).unwrap_err();
            assert_eq!(failure.status, 125);
            assert!(failure.message.contains("ln -s"), "{}", failure.message);
        }
    }
}
