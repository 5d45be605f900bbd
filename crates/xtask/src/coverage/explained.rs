//! The entries of `docs/coverage.md`.
//!
//! A heading names a file, and the items below it what in this file is not covered, and why:
//!
//! ```text
//! ### `crates/sync/src/sys.rs`
//!
//! - `function` at `text of the first line` (3 lines): why
//! - `function` past `text that opens a block` (1 line): why the way out of it is not taken
//! - `function` (whole function): why
//! - `one`, `another` (compile time): why
//! - `function` at `text` (2 lines, by chance): why only some runs come here
//! ```

use std::fs;

use super::holes::{Hole, Place, Source};
use crate::shell::Result;
use crate::workspace;

const PAGE: &str = "docs/coverage.md";

/// All entries.
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
}

/// One item of the page.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// Where on the page.
    pub(super) line: usize,
    file: String,
    functions: Vec<String>,
    pub(super) kind: Kind,
    pub(super) reason: String,
}

#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// Constant functions that only the compiler runs. They do not count as lines.
    CompileTime,
    /// A hole that is there in every run, or by chance.
    Hole { place: Place, lines: Option<usize>, by_chance: bool },
}

impl Page {
    pub(super) fn read() -> Result<Self> {
        let path = workspace::root()?.join(PAGE);
        let text = fs::read_to_string(&path).map_err(|e| format!("{PAGE}: {e}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut entries = Vec::new();
        let mut file = None;
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            if line.starts_with('#') {
                let name = line.trim_start_matches('#').trim().trim_matches('`');
                file = name.starts_with("crates/").then(|| name.to_owned());
            }
            let (Some(file), true) = (&file, line.starts_with("- ")) else { continue };
            let mut item = line[2..].to_owned();
            while let Some((_, more)) = lines.next_if(|(_, line)| line.starts_with("  ")) {
                item.push(' ');
                item.push_str(more.trim());
            }
            let entry = Entry::parse(index + 1, file, &item)
                .ok_or_else(|| format!("{PAGE}:{}: not an entry: {item}", index + 1))?;
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// An error if an entry is about a crate that is not among these.
    pub(super) fn only_about(&self, crates: &[&str]) -> Result {
        let known = |entry: &&Entry| entry.crate_name().is_some_and(|name| crates.contains(&name));
        match self.entries.iter().find(|entry| !known(entry)) {
            Some(entry) => Err(format!("{PAGE}:{}: {} is not in a tier", entry.line, entry.file)),
            None => Ok(()),
        }
    }

    /// The entry by which the compiler runs `function`.
    pub(super) fn find_compiled(&self, file: &str, function: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.kind == Kind::CompileTime && entry.is_about(file, function))
    }

    /// The entry that explains a hole.
    pub(super) fn find(&self, hole: &Hole) -> Option<usize> {
        self.entries.iter().position(|entry| match &entry.kind {
            Kind::CompileTime => false,
            Kind::Hole { place, lines, .. } => {
                entry.is_about(&hole.file, &hole.function)
                    && *place == hole.place
                    && lines.is_none_or(|lines| lines == hole.lines)
            }
        })
    }
}

impl Entry {
    fn parse(line: usize, file: &str, item: &str) -> Option<Self> {
        let mut rest = item;
        let mut functions = vec![code(&mut rest)?.to_owned()];
        while let Some(more) = rest.strip_prefix(", ") {
            rest = more;
            functions.push(code(&mut rest)?.to_owned());
        }
        let place = if let Some(more) = rest.strip_prefix(" at ") {
            rest = more;
            Place::At(code(&mut rest)?.to_owned())
        } else if let Some(more) = rest.strip_prefix(" past ") {
            rest = more;
            Place::Past(code(&mut rest)?.to_owned())
        } else {
            Place::Whole
        };
        let (what, reason) = rest.strip_prefix(" (")?.split_once("): ")?;
        let (what, by_chance) = match what.strip_suffix(", by chance") {
            Some(what) => (what, true),
            None => (what, false),
        };
        let lines = what.strip_suffix(" line").or_else(|| what.strip_suffix(" lines"));
        let kind = match (what, &place, lines) {
            ("compile time", Place::Whole, _) if !by_chance => Kind::CompileTime,
            ("whole function", Place::Whole, _) => Kind::Hole { place, lines: None, by_chance },
            (_, Place::At(_) | Place::Past(_), Some(lines)) => {
                Kind::Hole { place, lines: Some(lines.parse().ok()?), by_chance }
            }
            _ => return None,
        };
        let reason = reason.trim().to_owned();
        (!reason.is_empty()).then(|| Self { line, file: file.to_owned(), functions, kind, reason })
    }

    fn is_about(&self, file: &str, function: &str) -> bool {
        self.file == file && self.functions.iter().any(|name| name == function)
    }

    /// How many functions it is about.
    pub(super) fn functions(&self) -> usize {
        self.functions.len()
    }

    /// The directory name below `crates/`.
    pub(super) fn crate_name(&self) -> Option<&str> {
        self.file.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether it is right that nothing has needed this entry: it is about chance, and about something
    /// that is still there.
    pub(super) fn may_be_covered(&self, sources: &[Source]) -> bool {
        let Kind::Hole { place, by_chance: true, .. } = &self.kind else { return false };
        let source = sources.iter().find(|source| source.path == self.file);
        source.is_some_and(|s| self.functions.iter().all(|function| s.has(function, place)))
    }
}

/// The text between backticks at the start of `rest`, which goes on behind it.
fn code<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (code, more) = rest.strip_prefix('`')?.split_once('`')?;
    *rest = more;
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Coverage

- not an entry, before any file

### `crates/sync/src/sys.rs`

- `map` at `Some(got) => {` (3 lines): a kernel
  that is older.
- `a`, `b` (compile time): tables.
- `c` past `for x in y {` (1 line, by chance): luck.
- `d` (whole function): why not.

## The rest

- not an entry either
";

    #[test]
    fn the_page_of_the_repository_is_about_files_that_are_there() {
        let root = workspace::root().unwrap();
        for entry in Page::read().unwrap().entries {
            assert!(root.join(&entry.file).is_file(), "line {}: {}", entry.line, entry.file);
        }
    }

    #[test]
    fn the_page_is_read() {
        let page = Page::parse(TEXT).unwrap();
        assert_eq!(page.entries.len(), 4);
        let first = &page.entries[0];
        assert_eq!((first.line, first.crate_name()), (7, Some("sync")));
        assert_eq!(first.reason, "a kernel that is older.");
        let hole = |function: &str, place, lines| Hole {
            file: "crates/sync/src/sys.rs".to_owned(),
            line: 1,
            function: function.to_owned(),
            place,
            lines,
        };
        let at = |text: &str| Place::At(text.to_owned());
        assert_eq!(page.find(&hole("map", at("Some(got) => {"), 3)), Some(0));
        assert_eq!(page.find(&hole("map", at("Some(got) => {"), 4)), None, "longer");
        assert_eq!(page.find(&hole("map", at("None => {"), 3)), None, "elsewhere");
        assert_eq!(page.find(&hole("c", Place::Past("for x in y {".to_owned()), 1)), Some(2));
        assert_eq!(page.find(&hole("d", Place::Whole, 9)), Some(3));
        assert_eq!(page.find_compiled("crates/sync/src/sys.rs", "b"), Some(1));
        assert_eq!(page.find_compiled("crates/sync/src/sys.rs", "d"), None);
    }

    #[test]
    fn what_has_no_reason_or_no_length_is_no_entry() {
        for item in ["`f` (1 line): why", "`f` at `x` (some lines): why", "`f` (compile time): "] {
            let page = format!("## `crates/a/src/b.rs`\n- {item}\n");
            assert!(Page::parse(&page).is_err(), "{item}");
        }
    }

    #[test]
    fn entries_are_about_tiers() {
        let page = Page::parse(TEXT).unwrap();
        assert!(page.only_about(&["sync"]).is_ok());
        assert!(page.only_about(&["cli"]).is_err());
    }
}
