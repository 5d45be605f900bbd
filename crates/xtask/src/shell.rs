//! Running other programs: what runs is shown, and an error names what failed.
//!
//! A thin layer over [`std::process::Command`]. It adds three things: the line `+ program args`
//! before a program starts (so that a reader of a CI log can repeat it by hand), errors as sentences,
//! and a way to ask for a program that may not be there.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command of this crate returns: an error is one message for a person.
pub type Result<T = ()> = std::result::Result<T, String>;

/// A program to run, with its arguments, environment and directory.
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    echo: bool,
}

/// A program to run: a path, or a name that is looked up in `PATH`.
pub fn cmd(program: impl AsRef<OsStr>) -> Cmd {
    Cmd {
        program: program.as_ref().to_owned(),
        args: Vec::new(),
        envs: Vec::new(),
        dir: None,
        echo: true,
    }
}

/// The cargo that runs us, or else the one in `PATH`.
pub fn cargo() -> Cmd {
    cmd(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

impl Cmd {
    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), None));
        self
    }

    /// Sets the directory that the program starts in.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// The same command as the last arguments of another program, which runs it.
    pub fn under<S: AsRef<OsStr>>(
        mut self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let ours = std::mem::take(&mut self.args);
        let inner = std::mem::replace(&mut self.program, program.as_ref().to_owned());
        self.args(args).arg(inner).args(ours)
    }

    /// Runs without the `+` line: for programs that are asked something in passing.
    pub fn quiet(mut self) -> Self {
        self.echo = false;
        self
    }

    /// Runs the program with our own input and output; an exit status other than 0 is an error.
    pub fn run(self) -> Result {
        let mut command = self.start();
        let status = command.status().map_err(|e| self.cannot_start(&e))?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.name())) }
    }

    /// Runs the program and returns what it wrote to standard output. What it wrote to standard
    /// error becomes part of the message if it fails.
    pub fn read(self) -> Result<String> {
        self.read_both().map(|(stdout, _)| stdout)
    }

    /// As [`Cmd::read`], and returns what it wrote to standard error too.
    pub fn read_both(self) -> Result<(String, String)> {
        let mut command = self.start();
        let output = command.stdin(Stdio::null()).output().map_err(|e| self.cannot_start(&e))?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            let tail = last_lines(&stderr, 12);
            return Err(format!("{}: {}\n{tail}", self.name(), output.status));
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), stderr))
    }

    /// The [`Command`] itself, for callers that need what is not here.
    pub fn start(&self) -> Command {
        if self.echo {
            println!("+ {}", self.shown());
        }
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn name(&self) -> String {
        short(&self.program)
    }

    fn cannot_start(&self, error: &std::io::Error) -> String {
        match error.kind() {
            std::io::ErrorKind::NotFound => format!("{} is not installed", self.name()),
            _ => format!("cannot run {}: {error}", self.name()),
        }
    }

    fn shown(&self) -> String {
        let mut line = String::new();
        for (name, value) in &self.envs {
            if let Some(value) = value {
                let _ = write!(line, "{}={} ", name.to_string_lossy(), quoted(value));
            }
        }
        line.push_str(&short(&self.program));
        for arg in &self.args {
            line.push(' ');
            line.push_str(&quoted(arg));
        }
        line
    }
}

/// A program as a person names it: without the directories that only this machine has.
fn short(program: &OsStr) -> String {
    match Path::new(program).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => program.to_string_lossy().into_owned(),
    }
}

fn quoted(arg: &OsStr) -> String {
    let text = arg.to_string_lossy();
    if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "'\"$&|;<>()*".contains(c))
    {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The last `count` lines of a text, for messages.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Where a program of this name lies in `PATH`, if it does.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// `Ok` if every one of these programs is in `PATH`, or else which are not and how to get them.
pub fn require(names: &[&str], how: &str) -> Result {
    let missing: Vec<&str> = names.iter().copied().filter(|name| which(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("not installed: {}; {how}", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_can_be_pasted_into_a_shell() {
        let shown = cmd("a/b/cc").env("X", "1 2").arg("it's").arg("-O2").arg("").shown();
        assert_eq!(shown, r"X='1 2' cc 'it'\''s' -O2 ''");
    }

    #[test]
    fn a_command_may_be_run_by_another() {
        let shown = cmd("a").arg("b").env("X", "1").under("timeout", ["-v", "3"]).arg("c").shown();
        assert_eq!(shown, "X=1 timeout -v 3 a b c");
    }

    #[test]
    fn a_failure_names_the_program_and_quotes_its_last_words() {
        let error = cmd("sh").quiet().args(["-c", "echo why >&2; exit 3"]).read().unwrap_err();
        assert!(error.starts_with("sh: exit status: 3") && error.ends_with("why"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_said_to_be_missing() {
        let error = cmd("no-such-program-here").quiet().run().unwrap_err();
        assert_eq!(error, "no-such-program-here is not installed");
    }
}
