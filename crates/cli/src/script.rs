//! Scripts: the `#!` line as the kernel reads it, and what `env` makes of its argument.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Bytes of a file that the kernel looks at (`BINPRM_BUF_SIZE`).
pub const HEAD: usize = 256;

/// A `#!` line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The interpreter: a path, not looked up in `PATH`.
    pub interpreter: OsString,
    /// Everything after it as one argument, if there is anything.
    pub argument: Option<OsString>,
}

/// What a file that is no ELF file starts with.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// A `#!` line.
    Line(Line),
    /// Text without one: `execvp`, and every shell, has /bin/sh run it.
    Plain,
    /// Bytes that no shell takes for a script.
    Binary,
}

/// Judges the first [`HEAD`] bytes of a file (all of them, if it has fewer).
pub fn classify(head: &[u8]) -> Text {
    let head = &head[..head.len().min(HEAD)];
    if let Some(line) = line(head) {
        return Text::Line(line);
    }
    let first = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if first.contains(&0) { Text::Binary } else { Text::Plain }
}

/// The `#!` line, if the kernel would follow it.
fn line(head: &[u8]) -> Option<Line> {
    let rest = head.strip_prefix(b"#!")?;
    let end = rest.iter().position(|&byte| byte == b'\n' || byte == 0);
    let line = trim(&rest[..end.unwrap_or(rest.len())]);
    let name = line.iter().position(|&byte| blank(byte));
    // A line that goes on beyond what the kernel reads may lose its argument, not its interpreter.
    if name.is_none() && end.is_none() && head.len() == HEAD {
        return None;
    }
    let (interpreter, argument) = line.split_at(name.unwrap_or(line.len()));
    if interpreter.is_empty() {
        return None;
    }
    let argument = trim(argument);
    Some(Line {
        interpreter: OsStr::from_bytes(interpreter).to_owned(),
        argument: (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned()),
    })
}

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes {
        if !blank(*first) {
            break;
        }
        bytes = rest;
    }
    while let [rest @ .., last] = bytes {
        if !blank(*last) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// What `env` runs when it is the interpreter.
#[derive(Debug, PartialEq, Eq)]
pub enum Env {
    /// A program, to be looked up in `PATH`.
    Program(OsString),
    /// A program without the environment that we set.
    Cleared,
    /// Something that only `env` itself can tell.
    Unknown,
}

/// Reads the argument that a `#!` line gives to `env`.
pub fn env(argument: Option<&OsStr>) -> Env {
    let Some(argument) = argument else { return Env::Unknown };
    let bytes = argument.as_bytes();
    let split = [&b"-S"[..], b"-vS", b"--split-string="];
    let Some(words) = split.iter().find_map(|option| bytes.strip_prefix(*option)) else {
        // One word to `env`, blanks included.
        return words([bytes].into_iter());
    };
    if words.iter().any(|byte| b"\"'\\$#".contains(byte)) {
        return Env::Unknown;
    }
    self::words(words.split(|&byte| blank(byte)).filter(|word| !word.is_empty()))
}

/// Reads the words after `env`.
fn words<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Env {
    while let Some(word) = words.next() {
        match word {
            b"-i" | b"-" | b"--ignore-environment" | b"-u" => {
                let cleared = word != b"-u" || words.next() == Some(b"LD_PRELOAD");
                if cleared {
                    return Env::Cleared;
                }
            }
            b"-uLD_PRELOAD" | b"--unset=LD_PRELOAD" => return Env::Cleared,
            b"-v" | b"--debug" => {}
            _ if word.starts_with(b"-") => return Env::Unknown,
            _ if word.starts_with(b"LD_PRELOAD=") => return Env::Cleared,
            // The program is looked up in the new PATH.
            _ if word.starts_with(b"PATH=") => return Env::Unknown,
            _ if word.contains(&b'=') => {}
            _ => return Env::Program(OsStr::from_bytes(word).to_owned()),
        }
    }
    Env::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(head: &[u8]) -> Option<(String, Option<String>)> {
        let string = |s: OsString| s.into_string().unwrap();
        match classify(head) {
            Text::Line(line) => Some((string(line.interpreter), line.argument.map(string))),
            _ => None,
        }
    }

    fn pair(path: &str, argument: Option<&str>) -> Option<(String, Option<String>)> {
        Some((path.to_owned(), argument.map(str::to_owned)))
    }

    #[test]
    fn lines_are_read_as_the_kernel_does() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), pair("/bin/sh", None));
        assert_eq!(interpreter(b"#! \t/bin/sh \t\n"), pair("/bin/sh", None));
        assert_eq!(interpreter(b"#!/bin/sh -e  -x \nx"), pair("/bin/sh", Some("-e  -x")));
        assert_eq!(interpreter(b"#!/bin/sh"), pair("/bin/sh", None));
        assert_eq!(interpreter(b"#!rel/path x"), pair("rel/path", Some("x")));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), pair("/bin/sh\r", None));
    }

    #[test]
    fn a_line_without_an_interpreter_is_text() {
        for head in [&b"#!"[..], b"#!\n", b"#!  \t\n/bin/sh", b"# !/bin/sh\n", b"", b"echo\n"] {
            assert_eq!(classify(head), Text::Plain, "{head:?}");
        }
    }

    #[test]
    fn an_overlong_interpreter_is_no_interpreter_but_an_overlong_argument_is_cut() {
        let mut long = b"#!/".to_vec();
        long.resize(400, b'a');
        assert_eq!(classify(&long), Text::Plain);
        long[10] = b' ';
        let (path, argument) = interpreter(&long).unwrap();
        assert_eq!((path.as_str(), argument.unwrap().len()), ("/aaaaaaa", HEAD - 11));
    }

    #[test]
    fn a_nul_in_the_first_line_makes_it_binary() {
        assert_eq!(classify(b"MZ\x90\0\x03\n"), Text::Binary);
        assert_eq!(classify(b"echo hi\n\0\0"), Text::Plain);
    }

    #[test]
    fn every_head_is_judged_without_panic() {
        let line = b"#! /usr/bin/env -S python3 -u\nx\0y";
        for end in 0..=line.len() {
            for byte in 0..=255 {
                let mut head = line[..end].to_vec();
                head.push(byte);
                classify(&head);
            }
        }
    }

    #[test]
    fn env_is_followed_to_its_program() {
        let program = |name: &str| Env::Program(name.into());
        let of = |argument: &str| env(Some(OsStr::new(argument)));
        assert_eq!(of("python3"), program("python3"));
        assert_eq!(of("python3 -u"), program("python3 -u"));
        assert_eq!(of("-S python3 -u"), program("python3"));
        assert_eq!(of("-SA=1 B=2 perl -w"), program("perl"));
        assert_eq!(of("-vS node"), program("node"));
        assert_eq!(of("--split-string=ruby"), program("ruby"));
        assert_eq!(of("-S -u HOME ruby"), program("ruby"));
    }

    #[test]
    fn env_that_drops_the_environment_is_seen() {
        let of = |argument: &str| env(Some(OsStr::new(argument)));
        for argument in
            ["-S -i ruby", "-S - ruby", "-S -u LD_PRELOAD ruby", "-S LD_PRELOAD= x", "-i"]
        {
            assert_eq!(of(argument), Env::Cleared, "{argument}");
        }
        for argument in ["-S --chdir=/ ruby", "-S 'a b'", "-S", "A=1", "-S PATH=/x ruby"] {
            assert_eq!(of(argument), Env::Unknown, "{argument}");
        }
        assert_eq!(env(None), Env::Unknown);
    }
}
