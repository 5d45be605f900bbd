//! `tiermalloc run`: becoming another program, on the allocator.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use crate::args::RunOptions;
use crate::exec::{exec, exec_shell};
use crate::failure::{FAILED, Failure, reason, say};
use crate::{check, library, lookup, preload};

/// Runs what `options` ask for. Returns only when that failed.
pub fn run(options: &RunOptions) -> Failure {
    match prepare(options) {
        Ok(plan) => plan.execute(&options.command),
        Err(failure) => failure,
    }
}

/// Everything that is decided before the process becomes the program.
struct Plan<'a> {
    /// The file to execute.
    program: std::path::PathBuf,
    /// What changes in the environment.
    settings: Vec<(&'a str, OsString)>,
}

fn prepare(options: &RunOptions) -> Result<Plan<'static>, Failure> {
    options.settings.check()?;
    let mut settings = options.settings.environment()?;
    let name = options.command.first().map_or(Default::default(), OsString::as_os_str);
    let program = lookup::find(name)?;
    let library = library::find(options.library.as_deref())?;
    let list = preload::value(&library.path, env::var_os(preload::VARIABLE).as_deref())?;
    let note = |text: &str| {
        if options.verbose {
            say(text);
        }
    };
    match check::judge(&program, &library) {
        Ok(judged) => {
            let chain: Vec<_> = judged.chain.iter().map(|p| p.display().to_string()).collect();
            note(&format!("program {}", chain.join(", run by ")));
            if let Some(warning) = judged.warning.filter(|_| !options.force) {
                say(&format!("warning: {warning}"));
            }
        }
        Err(failure) if options.force => note(&format!("forced; else: {}", failure.message)),
        Err(failure) => return Err(failure),
    }
    settings.push((preload::VARIABLE, list));
    for (variable, value) in &settings {
        note(&format!("{variable}={}", Path::new(value).display()));
    }
    Ok(Plan { program, settings })
}

impl Plan<'_> {
    /// Becomes the program; returns why it could not.
    fn execute(&self, command: &[OsString]) -> Failure {
        let error = exec(&self.program, command, &self.settings);
        let error = match error.raw_os_error() {
            Some(libc::ENOEXEC) if check::is_plain_text(&self.program) => {
                exec_shell(&self.program, command, &self.settings)
            }
            _ => error,
        };
        let subject = format!("cannot run '{}'", self.program.display());
        match error.raw_os_error() {
            // The argument list held a NUL, which no argument list can.
            None => Failure { status: FAILED, message: format!("{subject}: {}", reason(&error)) },
            Some(_) => Failure::of_system(subject, &error),
        }
    }
}
