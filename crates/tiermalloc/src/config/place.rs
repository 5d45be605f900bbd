//! Where a value came from, and where a mistake stands.

use core::fmt;

use super::Text;
use crate::line::Line;

/// The file of the machine's owner.
pub const SYSTEM_FILE: &core::ffi::CStr = c"/etc/tiermalloc.conf";
/// Bytes of a file's name that a message shows: its end, where it is longer.
const SHOWN: usize = 80;

/// Who has said something, in the order in which the later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// Nobody: what is built in.
    BuiltIn,
    /// The program, by [`TierMalloc::with_config`](crate::TierMalloc::with_config).
    Program,
    /// The program, by its symbol `tiermalloc_conf`.
    Symbol,
    /// [`SYSTEM_FILE`].
    SystemFile,
    /// The file that `TIERMALLOC_CONF_FILE` names.
    UserFile,
    /// The environment variable `TIERMALLOC_CONF`.
    Environment,
}

impl Source {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Environment as usize + 1;
}

/// Where the value of a key came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Who has said it.
    pub source: Source,
    /// The line of a file, from 1 on; 0 where there are no lines.
    pub line: u32,
}

impl Origin {
    pub(super) const BUILT_IN: Self = Self { source: Source::BuiltIn, line: 0 };
}

/// An [`Origin`] with the name of its file: where something stands, for a person.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Place<'a> {
    /// Who, and in which line; 0 for the source as a whole.
    pub origin: Origin,
    /// The name of the file, if it is one.
    pub file: &'a [u8],
}

impl<'a> Place<'a> {
    pub(super) fn new(source: Source, file: &'a [u8], line: u32) -> Self {
        Self { origin: Origin { source, line }, file }
    }

    /// The place in words, behind `line`.
    pub(crate) fn write(&self, line: Line) -> Line {
        let line = match self.origin.source {
            Source::BuiltIn => line.text("built in"),
            Source::Program => line.text("the program"),
            Source::Symbol => line.text("tiermalloc_conf"),
            Source::UserFile if self.file.is_empty() => line.text("TIERMALLOC_CONF_FILE"),
            Source::SystemFile | Source::UserFile => file_name(line, self.file),
            Source::Environment => line.text("TIERMALLOC_CONF"),
        };
        match self.origin.line {
            0 => line,
            number => line.text(":").digits(number as usize, 10),
        }
    }
}

/// The name, or where it is long its end, which tells more.
fn file_name(line: Line, name: &[u8]) -> Line {
    match name.len().checked_sub(SHOWN) {
        None | Some(0) => line.quoted(name, SHOWN),
        Some(left) => line.text("...").quoted(&name[left + 3..], SHOWN),
    }
}

/// As in `/etc/tiermalloc.conf:3`: printable ASCII.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(Line::empty()).as_str())
    }
}

/// A file's name as it can be kept: nothing where it is too long or cannot be printed.
pub(super) fn kept(name: &[u8]) -> Text {
    Text::new(name).unwrap_or(Text::EMPTY)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn places_are_named_as_a_compiler_names_them() {
        let place =
            |source, file: &str, line| Place::new(source, file.as_bytes(), line).to_string();
        assert_eq!(place(Source::SystemFile, "/etc/tiermalloc.conf", 3), "/etc/tiermalloc.conf:3");
        assert_eq!(place(Source::UserFile, "", 3), "TIERMALLOC_CONF_FILE:3");
        assert_eq!(place(Source::UserFile, "a\nb", 0), "a?b");
        assert_eq!(place(Source::Environment, "", 0), "TIERMALLOC_CONF");
        let long = "/x".repeat(100) + "/the.conf";
        let shown = place(Source::UserFile, &long, 12);
        assert!(shown.starts_with("...") && shown.ends_with("/the.conf:12"), "{shown}");
        assert_eq!(shown.len(), SHOWN + 3);
    }
}
