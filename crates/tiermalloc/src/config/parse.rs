//! `key=value,key=value`: read without allocating, whatever it is; and what can be wrong with it, or a file, in words.

use core::fmt;

use super::value::Refusal;
use super::{Config, KEYS, Key, Kind, LONGEST_FILE, LONGEST_LINE, Text};
use crate::line::Line;

/// Longest key that a misspelt one is compared with, in bytes.
const LONGEST: usize = 32;
/// Bytes of a user's text that a message repeats.
const SHOWN: usize = 48;

/// What is wrong with one setting. The setting is not applied.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Problem<'a> {
    /// There is no `=` in it.
    NoValue {
        /// All of it.
        setting: &'a [u8],
    },
    /// No key is called so.
    UnknownKey {
        /// As it was written.
        key: &'a [u8],
        /// As it was written.
        value: &'a [u8],
        /// The key that was perhaps meant.
        nearest: Option<&'static str>,
    },
    /// The value is none of the key's kind.
    BadValue {
        /// The key.
        key: &'static Key,
        /// As it was written.
        value: &'a [u8],
        /// Whether it could be read at all.
        out_of_range: bool,
    },
    /// In a file: what should be a quoted text is none.
    BadQuotes {
        /// All of the line.
        setting: &'a [u8],
    },
    /// In a file: what should be `[program]` is not. What is below it belongs to nobody.
    BadSection {
        /// All of the line.
        line: &'a [u8],
    },
    /// In a file: the line is longer than [`LONGEST_LINE`].
    LongLine {
        /// Its beginning.
        start: &'a [u8],
    },
    /// The file is longer than [`LONGEST_FILE`].
    LongFile,
    /// There is a NUL byte in the file: it is no text, and is read no further.
    NoText,
    /// The file cannot be opened or read.
    Unreadable {
        /// The system's number for why.
        error: i32,
    },
    /// It is a directory, a pipe, a device.
    NoFile,
}

/// Applies each setting of `text` to `config`, and tells `report` of each that cannot be.
///
/// Settings stand between commas; around them, their keys and their values blanks do not matter.
pub fn apply(config: &mut Config, text: &[u8], report: &mut dyn FnMut(&Problem<'_>)) {
    apply_each(config, text, &mut |outcome| {
        if let Err(problem) = outcome {
            report(&problem);
        }
    });
}

/// [`apply`], telling of each setting the number of its key, or the problem.
pub(super) fn apply_each(
    config: &mut Config,
    text: &[u8],
    told: &mut dyn FnMut(Result<usize, Problem<'_>>),
) {
    for setting in text.split(|&byte| byte == b',') {
        let setting = setting.trim_ascii();
        if !setting.is_empty() {
            told(apply_one(config, setting));
        }
    }
}

/// Applies `key=value`; the number of its key.
fn apply_one<'a>(config: &mut Config, setting: &'a [u8]) -> Result<usize, Problem<'a>> {
    let Some(equals) = setting.iter().position(|&byte| byte == b'=') else {
        return Err(Problem::NoValue { setting });
    };
    assign(config, setting[..equals].trim_ascii(), setting[equals + 1..].trim_ascii())
}

/// Gives the key of that name that value; the number of the key.
pub(super) fn assign<'a>(
    config: &mut Config,
    name: &'a [u8],
    value: &'a [u8],
) -> Result<usize, Problem<'a>> {
    // Most of those that are as long begin with another letter.
    let is_named = |key: &Key| {
        let known = key.name.as_bytes();
        known.len() == name.len() && known.first() == name.first() && known == name
    };
    let Some(number) = KEYS.iter().position(is_named) else {
        return Err(Problem::UnknownKey { key: name, value, nearest: nearest(name) });
    };
    let key = &KEYS[number];
    match key.kind.read(value) {
        Ok(value) => {
            (key.set)(config, &value);
            Ok(number)
        }
        Err(why) => Err(Problem::BadValue { key, value, out_of_range: why == Refusal::OutOfRange }),
    }
}

impl Problem<'_> {
    /// The problem in words, behind where it was found.
    pub(crate) fn line(&self, line: Line) -> Line {
        match *self {
            Self::NoValue { setting } => {
                line.quoted(setting, SHOWN).text(": not of the form key=value; it is ignored")
            }
            Self::UnknownKey { key, value, nearest } => {
                let line = line.quoted(key, SHOWN).text("=").quoted(value, SHOWN);
                let line = line.text(": there is no such key; it is ignored");
                match nearest {
                    Some(name) => line.text("; perhaps ").text(name).text(" is meant"),
                    None => line,
                }
            }
            Self::BadValue { key, value, out_of_range } => {
                let line = line.text(key.name).text("=").quoted(value, SHOWN).text(": ");
                let line = match key.kind {
                    Kind::Choice(words) => words_of(line.text("not one of "), words),
                    Kind::Flags(words) => words_of(line.text("neither off nor any of "), words),
                    Kind::Switch => line.text("neither true nor false"),
                    Kind::Bytes { least, most, .. } if out_of_range => line
                        .text("not from ")
                        .digits(least, 10)
                        .text(" to ")
                        .digits(most, 10)
                        .text(" bytes"),
                    Kind::Bytes { automatic: true, .. } => {
                        line.text("neither automatic nor a number of bytes, as in 64KiB")
                    }
                    Kind::Bytes { .. } => line.text("not a number of bytes, as in 64KiB"),
                    Kind::Duration { least, most, .. } if out_of_range => line
                        .text("not from ")
                        .digits(least.ms() as usize, 10)
                        .text(" to ")
                        .digits(most.ms() as usize, 10)
                        .text(" ms"),
                    Kind::Duration { .. } => line.text("not a time, as in 500ms"),
                    Kind::Text => line
                        .text("not a text of at most ")
                        .digits(Text::MOST, 10)
                        .text(" printable bytes"),
                };
                line.text("; it is ignored")
            }
            Self::BadQuotes { setting } => line
                .quoted(setting, SHOWN)
                .text(": the quotes do not enclose one plain text; it is ignored"),
            Self::BadSection { line: all } => line
                .quoted(all, SHOWN)
                .text(": not of the form [program]; it is ignored with all settings below it"),
            Self::LongLine { start } => line
                .quoted(start, SHOWN)
                .text(": longer than ")
                .digits(LONGEST_LINE, 10)
                .text(" bytes; it is ignored"),
            Self::LongFile => line
                .text("the file is longer than ")
                .digits(LONGEST_FILE >> 10, 10)
                .text(" KiB; it is ignored from here on"),
            Self::NoText => line.text("the file is not text; it is ignored from here on"),
            Self::Unreadable { error } => {
                reason(line.text("cannot be read ("), error).text("); it is ignored")
            }
            Self::NoFile => line.text("not a regular file; it is ignored"),
        }
    }
}

/// The system's reasons, as far as they are likely.
fn reason(line: Line, error: i32) -> Line {
    let words = match error {
        libc::ENOENT | libc::ENOTDIR => "no such file",
        libc::EACCES | libc::EPERM => "permission denied",
        libc::ENAMETOOLONG => "its name is too long",
        libc::ELOOP => "too many symbolic links",
        libc::EMFILE | libc::ENFILE => "too many open files",
        libc::EIO => "its medium is damaged",
        _ => return line.text("error ").digits(error.unsigned_abs() as usize, 10),
    };
    line.text(words)
}

fn words_of(line: Line, words: &[&str]) -> Line {
    words
        .iter()
        .enumerate()
        .fold(line, |line, (n, word)| line.text(if n > 0 { ", " } else { "" }).text(word))
}

/// In words, on one line of printable ASCII.
impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line(Line::empty()).as_str())
    }
}

/// The key that differs from `name` in the fewest letters, if those are few.
fn nearest(name: &[u8]) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    KEYS.iter()
        .map(|key| (distance(name, key.name.as_bytes()), key.name))
        .min()
        .filter(|&(letters, key)| letters <= key.len().div_ceil(3))
        .map(|(_, key)| key)
}

/// Letters to put in, take out or exchange to make one word of another (Wagner and Fischer, 1974: the
/// table row by row).
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: [usize; LONGEST + 1] = core::array::from_fn(|n| n);
    for (i, &letter) in to.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &other) in from.iter().enumerate().take(LONGEST) {
            let exchanged = corner + usize::from(!letter.eq_ignore_ascii_case(&other));
            corner = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(corner + 1);
        }
    }
    row[from.len().min(LONGEST)]
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;

    /// What a text makes of the default, and how many problems it has.
    fn read(text: &str) -> (Config, usize) {
        let mut config = Config::DEFAULT;
        let mut problems = 0;
        apply(&mut config, text.as_bytes(), &mut |_| problems += 1);
        (config, problems)
    }

    #[test]
    fn settings_apply_in_order_and_blanks_do_not_matter() {
        let (config, problems) =
            read(" pool = hardened ,quarantine=1MiB,, zero_on_free=yes,quarantine=2MiB, ");
        assert_eq!(problems, 0);
        assert_eq!((config.pool, config.zero_on_free), (Pool::Hardened, true));
        assert_eq!(config.quarantine, 2 << 20);
    }

    #[test]
    fn what_is_wrong_is_told_and_the_rest_applies() {
        let (config, problems) =
            read("pol=central,pool,pool=fast,quarantine=2GiB,pool=central,=,x=");
        assert_eq!(problems, 6);
        assert_eq!(config, Config { pool: Pool::Central, ..Config::DEFAULT });
    }

    #[test]
    fn a_misspelt_key_is_recognised_and_another_word_is_not() {
        assert_eq!(nearest(b"pol"), Some("pool"));
        assert_eq!(nearest(b"Pool"), Some("pool"));
        assert_eq!(nearest(b"quarentine"), Some("quarantine"));
        assert_eq!(nearest(b"zero-on-free"), Some("zero_on_free"));
        assert_eq!(nearest(b"arena"), None);
        assert_eq!(nearest(b""), None);
        assert_eq!(nearest(&[b'q'; 1000]), None);
    }

    #[test]
    fn distances_are_symmetric_and_count_letters() {
        for (a, b, letters) in
            [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), letters);
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), letters);
        }
    }
}
