//! Why the program ends without having done its work: an exit status and a message.

use std::fmt::Display;
use std::io::{self, Write};

/// Exit status: tiermalloc itself failed, or refuses because it could not help.
pub const FAILED: u8 = 125;
/// Exit status: the program exists but cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// Exit status: the program was not found.
pub const NOT_FOUND: u8 = 127;

/// A failure that ends tiermalloc. The statuses are those of env(1).
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// What is wrong; further lines say what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure of status [`FAILED`].
    pub fn failed(message: impl Display) -> Self {
        Self { status: FAILED, message: message.to_string() }
    }

    /// A failure of status [`NOT_RUNNABLE`].
    pub fn not_runnable(message: impl Display) -> Self {
        Self { status: NOT_RUNNABLE, message: message.to_string() }
    }

    /// A failure of status [`NOT_FOUND`].
    pub fn not_found(message: impl Display) -> Self {
        Self { status: NOT_FOUND, message: message.to_string() }
    }

    /// The failure of a system call on a file; like env(1), only "no such file" is "not found".
    pub fn of_system(subject: impl Display, error: &io::Error) -> Self {
        let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        Self { status, message: format!("{subject}: {}", reason(error)) }
    }

    /// Prints the message to standard error.
    pub fn report(&self) {
        say(&self.message);
    }
}

/// Prints lines for the user to standard error, the first one with the program's name. A standard
/// error that takes nothing is not worth failing for.
pub fn say(message: &str) {
    let text = format!("tiermalloc: {}\n", message.replace('\n', "\n  "));
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The system's words for an error, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
