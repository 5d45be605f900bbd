//! Writing results to standard output.

use std::io::{self, ErrorKind, Write};

use crate::failure::{Failure, reason};

/// Writes all of `text`. A reader that has gone away (`| head`, where SIGPIPE is ignored) has seen
/// what it wanted and is not an error; a full disk is.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure {
            status: 1,
            message: format!("cannot write to standard output: {}", reason(&error)),
        }),
        _ => Ok(()),
    }
}
