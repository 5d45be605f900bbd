//! Configuration files: lines of `key = value`, comments, sections for programs.
//!
//! What is read is TOML as far as it can be plain: a line is a setting, a section or nothing.
//!
//! ```toml
//! # for every program
//! background = false
//! quarantine = "16MiB"        # what has a unit is a text
//! soft_limit = 1_073_741_824  # what has none need not be
//!
//! [redis-server]              # for programs that are started under this name
//! pool = 'central'
//!
//! ["my prog"]
//! stats_file = "/tmp/%p \"stats\""
//! ```
//!
//! Beyond TOML, quotes around values may be left out, a key may be set again, and a section may come again; dots in
//! the name of a section mean dots. Texts of several lines, and escapes but for `\"` and `\\`, are not read.
//!
//! # Invariants
//! - L1: at most [`LONGEST_FILE`] bytes are looked at, in pieces of a buffer on the stack: how long a file takes does
//!   not depend on how long it is.
//! - L2: what a line means does not depend on how the file was cut into pieces.
//! - L3: a line costs one message at most, that nothing more is read another one, and lines of other programs'
//!   sections none.

use super::parse::assign;
use super::{Config, Problem};

/// Bytes of a line, its end not counted.
pub const LONGEST_LINE: usize = 2047;
/// Bytes of a file that are looked at.
pub const LONGEST_FILE: usize = 64 << 10;

/// A place for the longest line and its end.
const BUFFER: usize = LONGEST_LINE + 1;
/// Bytes of a value that had to be rewritten; no longer one is of any use.
const SCRATCH: usize = 256;

/// What a file says in one line, to the program that reads it.
#[derive(Debug)]
pub(super) enum Item<'a> {
    Setting { name: &'a [u8], value: &'a [u8] },
    Wrong(Problem<'a>),
}

/// Applies each setting of the file `text` to `config` that is meant for a program of the name `program`, and
/// tells `report` of each that cannot be, with the number of its line.
pub fn apply_file(
    config: &mut Config,
    mut text: &[u8],
    program: &[u8],
    report: &mut dyn FnMut(u32, &Problem<'_>),
) {
    let mut read = |into: &mut [u8]| {
        let length = text.len().min(into.len());
        into[..length].copy_from_slice(&text[..length]);
        text = &text[length..];
        Ok(length)
    };
    scan(&mut read, program, &mut |line, item| match item {
        Item::Setting { name, value } => {
            if let Err(problem) = assign(config, name, value) {
                report(line, &problem);
            }
        }
        Item::Wrong(problem) => report(line, &problem),
    });
}

/// Reads a file to its end, or as far as it is one, and tells `found` of all that concerns `program`, with
/// the number of its line.
///
/// `read` fills a buffer as far as it likes, and not at all at the end.
pub(super) fn scan(
    read: &mut dyn FnMut(&mut [u8]) -> Result<usize, i32>,
    program: &[u8],
    found: &mut dyn FnMut(u32, Item<'_>),
) {
    let mut buffer = [0; BUFFER];
    let (mut filled, mut total) = (0, 0);
    let scratch = [0; SCRATCH];
    let mut lines = Lines { number: 0, applies: true, skipping: false, program, found, scratch };
    loop {
        let mut more = false;
        let mut length = match read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => length.min(BUFFER - filled),
            Err(error) => return lines.wrong(Problem::Unreadable { error }),
        };
        if total + length > LONGEST_FILE {
            length = LONGEST_FILE - total;
            more = true;
        }
        total += length;
        filled += length;

        let mut start = 0;
        while let Some(end) = find([b'\n', 0], &buffer[start..filled]) {
            if buffer[start + end] == 0 {
                return lines.wrong(Problem::NoText);
            }
            lines.whole(&buffer[start..start + end]);
            start += end + 1;
        }
        if more {
            // The line that is cut off here may mean anything.
            return lines.wrong(Problem::LongFile);
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if lines.skipping {
            filled = 0;
        } else if filled == BUFFER {
            lines.too_long(&buffer);
            filled = 0;
        }
    }
    if filled > 0 {
        lines.whole(&buffer[..filled]);
    }
}

/// Where in a file one is.
struct Lines<'a, 'b> {
    /// Lines that have been read.
    number: u32,
    /// Whether what stands here is meant for the program.
    applies: bool,
    /// In a line of which the beginning has been told.
    skipping: bool,
    program: &'a [u8],
    found: &'b mut dyn FnMut(u32, Item<'_>),
    scratch: [u8; SCRATCH],
}

impl Lines<'_, '_> {
    /// The problem is in the line after those that have been read.
    fn wrong(&mut self, problem: Problem<'_>) {
        (self.found)(self.number + 1, Item::Wrong(problem));
    }

    /// A line, or the rest of one that was too long.
    fn whole(&mut self, line: &[u8]) {
        if !self.skipping {
            self.line(line);
        }
        self.skipping = false;
        self.number += 1;
    }

    /// The beginning of a line that does not end here. What is long is mostly a comment.
    fn too_long(&mut self, start: &[u8]) {
        self.skipping = true;
        match before_comment(start) {
            Some(line) => self.line(line),
            None if self.applies || start.trim_ascii_start().starts_with(b"[") => {
                self.applies &= !start.trim_ascii_start().starts_with(b"[");
                self.wrong(Problem::LongLine { start });
            }
            None => {}
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.number == 0 => rest,
            _ => line,
        };
        let line = line.trim_ascii_start();
        match line.first() {
            None | Some(b'#') => {}
            Some(b'[') => match section(line.trim_ascii_end(), &mut self.scratch) {
                Some(name) => self.applies = name == self.program,
                None => {
                    self.applies = false;
                    self.wrong(Problem::BadSection { line: line.trim_ascii_end() });
                }
            },
            Some(_) if self.applies => {
                let item = match setting(line.trim_ascii_end(), &mut self.scratch) {
                    Ok((name, value)) => Item::Setting { name, value },
                    Err(problem) => Item::Wrong(problem),
                };
                (self.found)(self.number + 1, item);
            }
            Some(_) => {}
        }
    }
}

/// `key = value`, and perhaps a comment.
fn setting<'a>(
    line: &'a [u8],
    scratch: &'a mut [u8; SCRATCH],
) -> Result<(&'a [u8], &'a [u8]), Problem<'a>> {
    let bad = Problem::BadQuotes { setting: line };
    let (name, rest) = match line[0] {
        // No key has anything in it that would be escaped.
        b'"' | b'\'' => string(line, &mut [0; SCRATCH])
            .map(|(_, length)| (&line[1..length - 1], line[length..].trim_ascii_start()))
            .ok_or(bad)?,
        _ => {
            let (name, rest) = line.split_at(find([b'='], line).unwrap_or(line.len()));
            // The comment may have a `=` in it.
            let rest = if find([b'#'], name).is_some() { &[] } else { rest };
            (name.trim_ascii_end(), rest)
        }
    };
    let Some(value) = rest.strip_prefix(b"=") else {
        let setting = before_comment(line).unwrap_or(line).trim_ascii();
        return Err(Problem::NoValue { setting });
    };
    let value = value.trim_ascii_start();
    if let Some(b'"' | b'\'') = value.first() {
        let (length, inner) = match string(value, scratch) {
            Some((inner, length)) => (length, inner),
            None => return Err(bad),
        };
        return if is_comment(&value[length..]) {
            Ok((name, inner.within(&value[1..], scratch)))
        } else {
            Err(bad)
        };
    }
    let end = find([b'#'], value).unwrap_or(value.len());
    Ok((name, number(value[..end].trim_ascii(), scratch)))
}

/// A number without the underscores that may stand between digits; what is none, as it is.
fn number<'a>(value: &'a [u8], scratch: &'a mut [u8; SCRATCH]) -> &'a [u8] {
    let between_digits = |at: usize| {
        let digit = |at: usize| value.get(at).is_some_and(u8::is_ascii_digit);
        at > 0 && digit(at - 1) && digit(at + 1)
    };
    let starts = value.first().is_some_and(u8::is_ascii_digit);
    if !starts || find([b'_'], value).is_none() || value.len() > SCRATCH {
        return value;
    }
    let mut used = 0;
    for (at, &byte) in value.iter().enumerate() {
        if byte == b'_' && between_digits(at) {
            continue;
        }
        scratch[used] = byte;
        used += 1;
    }
    &scratch[..used]
}

/// The name in `[name]`.
fn section<'a>(line: &'a [u8], scratch: &'a mut [u8; SCRATCH]) -> Option<&'a [u8]> {
    let inside = line.strip_prefix(b"[")?.trim_ascii_start();
    if let Some(b'"' | b'\'') = inside.first() {
        let (inner, length) = string(inside, scratch)?;
        let behind = inside[length..].trim_ascii_start().strip_prefix(b"]")?;
        return is_comment(behind).then(|| inner.within(&inside[1..], scratch));
    }
    let end = inside.iter().position(|&byte| byte == b']')?;
    let name = inside[..end].trim_ascii_end();
    let bare = |byte: &u8| !matches!(byte, b'[' | b'"' | b'\'' | b'#');
    (!name.is_empty() && name.iter().all(bare) && is_comment(&inside[end + 1..])).then_some(name)
}

/// What a quoted text holds: so many bytes behind the first quote as they stand, or of the rewritten ones.
enum Inner {
    AsItStands(usize),
    Rewritten(usize),
}

impl Inner {
    fn within<'a>(&self, text: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        match *self {
            Self::AsItStands(length) => &text[..length],
            Self::Rewritten(length) => &scratch[..length],
        }
    }
}

/// The quoted text that `text` begins with, and its length with the quotes. `None`: it does not end, has escapes that
/// are not read, or is too long to rewrite.
fn string(text: &[u8], scratch: &mut [u8; SCRATCH]) -> Option<(Inner, usize)> {
    let quote = *text.first()?;
    let (mut at, mut used) = (1, 0);
    // Most have nothing in them that is escaped.
    let plain = find([quote], &text[1..])?;
    if quote == b'\'' || find([b'\\'], &text[1..=plain]).is_none() {
        return Some((Inner::AsItStands(plain), plain + 2));
    }
    loop {
        let mut byte = *text.get(at)?;
        if byte == quote {
            return Some((Inner::Rewritten(used), at + 1));
        }
        if byte == b'\\' {
            at += 1;
            byte = *text.get(at)?;
            if !matches!(byte, b'"' | b'\\') {
                return None;
            }
        }
        *scratch.get_mut(used)? = byte;
        used += 1;
        at += 1;
    }
}

/// Where one of these bytes is first, eight at a time: a start-up reads each byte of a file some times.
#[inline(always)]
fn find<const N: usize>(bytes: [u8; N], text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().position(|other| bytes.contains(other));
    };
    // High bits, the lowest of which stands where one is first in these eight.
    let places = |eight: &[u8; 8]| {
        let eight = u64::from_le_bytes(*eight);
        let zeros = bytes.map(|byte| {
            let differs = eight ^ (ONES * u64::from(byte));
            differs.wrapping_sub(ONES) & !differs
        });
        zeros.iter().fold(0, |all, zeros| all | zeros) & HIGH
    };
    let mut rest = text;
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let found = places(eight);
        if found != 0 {
            return Some(text.len() - rest.len() + found.trailing_zeros() as usize / 8);
        }
        rest = behind;
    }
    // The last eight, of which some have been looked at, and are others.
    let found = if rest.is_empty() { 0 } else { places(last) };
    (found != 0).then(|| text.len() - 8 + found.trailing_zeros() as usize / 8)
}

/// Whether there is nothing more to read.
fn is_comment(rest: &[u8]) -> bool {
    matches!(rest.trim_ascii_start().first(), None | Some(b'#'))
}

/// The line in front of its comment, if it has one; a `#` in quotes begins none.
fn before_comment(line: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b'#' => return Some(&line[..at]),
            b'"' | b'\'' => at += string(&line[at..], &mut [0; SCRATCH])?.1,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// What is found in a text that comes in pieces of that length.
    fn found(text: &[u8], piece: usize) -> Vec<String> {
        let (mut rest, mut all) = (text, Vec::new());
        let mut read = |into: &mut [u8]| {
            let length = piece.min(into.len()).min(rest.len());
            into[..length].copy_from_slice(&rest[..length]);
            rest = &rest[length..];
            Ok(length)
        };
        scan(&mut read, b"prog", &mut |line, item| all.push(format!("{line} {item:?}")));
        all
    }

    #[test]
    fn a_byte_is_found_where_it_is_first() {
        for length in 0..40 {
            let mut text = std::vec![b'a'; length];
            assert_eq!(find([b'b'], &text), None);
            for at in (0..length).rev() {
                // One more than what is looked for is what borrowing could take for it.
                text[at] = b'b';
                assert_eq!(find([b'b'], &text), Some(at));
                let close: Vec<u8> =
                    text.iter().map(|byte| byte + (*byte == b'a') as u8 * 2).collect();
                assert_eq!(find([b'b'], &close), Some(at));
                assert_eq!(find([b'b', 0], &close), Some(at));
                text[length - 1] = 0;
                assert_eq!(find([b'c', 0], &text), Some(length - 1));
                text[length - 1] = b'b';
            }
        }
    }

    #[test]
    fn pieces_do_not_matter() {
        let long = "y".repeat(3000);
        for text in [
            "\u{feff}pool = central\n[x]\na\n[prog]\r\nb = \"c\\\"d\" # e\nf",
            "a\0b",
            &format!("a = {long}\n#{long}\nb = 1 #{long}\n{long}"),
            &"a = 1\n".repeat(LONGEST_FILE / 6 + 3),
            &"y".repeat(LONGEST_FILE),
            &"y".repeat(LONGEST_FILE + 1),
        ] {
            let whole = found(text.as_bytes(), usize::MAX);
            for piece in [1, 2, 7, LONGEST_LINE, BUFFER] {
                assert_eq!(found(text.as_bytes(), piece), whole, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_file_that_breaks_off_says_so_behind_what_was_read() {
        let mut pieces = [Ok(&b"pool = central\nthp"[..]), Err(5)].into_iter();
        let mut read = |into: &mut [u8]| {
            pieces.next().unwrap().map(|piece: &[u8]| {
                into[..piece.len()].copy_from_slice(piece);
                piece.len()
            })
        };
        let mut all = Vec::new();
        scan(&mut read, b"prog", &mut |line, item| all.push((line, format!("{item:?}"))));
        assert_eq!(all.len(), 2);
        assert!(all[1].0 == 2 && all[1].1.contains("Unreadable { error: 5 }"), "{all:?}");
    }
}
