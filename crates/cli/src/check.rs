//! Whether the allocator would be used: the judgement over a program before it is run.
//!
//! The dynamic loader ignores a preloaded library without a word, or with one that scrolls away,
//! where it cannot use it. A user who asked for the allocator must hear of it *before* the program
//! runs. Certain things are refused; what cannot be known is a warning.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::elf::{self, Elf, Kind, Source};
use crate::exec::SHELL;
use crate::failure::{Failure, reason};
use crate::library::Library;
use crate::script::{self, Env, Text};
use crate::{lookup, privilege};

/// Most scripts that the kernel follows from one to the next.
const MAX_SCRIPTS: usize = 5;

/// What was found out about a program that the allocator will be used in.
#[derive(Debug)]
pub struct Program {
    /// The program and, where it is a script, the interpreters up to the one that is no script.
    pub chain: Vec<PathBuf>,
    /// What could not be found out.
    pub warning: Option<String>,
}

/// Judges the program in the file `path`; a refusal is a [`Failure`].
pub fn judge(path: &Path, library: &Library) -> Result<Program, Failure> {
    let mut judge = Judge { chain: vec![path.to_owned()], library };
    let mut shell = false;
    loop {
        let file = judge.current().to_owned();
        let head = match read_head(&file) {
            Ok(head) => head,
            // It may be executed, which was looked at before, but not be read.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Ok(judge.unknown("it may not be read"));
            }
            Err(error) => return Err(Failure::of_system(judge.subject(), &error)),
        };
        if head.starts_with(b"\x7fELF") {
            judge.elf(&file)?;
            return Ok(Program { chain: judge.chain, warning: None });
        }
        let next = match script::classify(&head) {
            Text::Line(line) => match judge.follow(&line)? {
                Some(next) => next,
                None => return Ok(judge.unknown("only env can tell what it runs")),
            },
            Text::Plain if !shell => {
                // The kernel takes none of these files then, and the shell is given the first.
                shell = true;
                PathBuf::from(SHELL)
            }
            _ => {
                return Err(Failure::not_runnable(format!(
                    "{}: it is neither an ELF program nor a script",
                    judge.subject()
                )));
            }
        };
        if judge.chain.len() > MAX_SCRIPTS {
            let subject = judge.subject();
            return Err(Failure::not_runnable(format!(
                "{subject}: more than {MAX_SCRIPTS} scripts run one another"
            )));
        }
        judge.chain.push(next);
    }
}

/// Whether the file is one that only the shell can run; `execvp` gives those to it.
pub fn is_plain_text(path: &Path) -> bool {
    read_head(path)
        .is_ok_and(|head| !head.starts_with(b"\x7fELF") && script::classify(&head) != Text::Binary)
}

/// Whether the kernel does not run the file and the shell is given it, as `execvp` does.
pub fn needs_shell(path: &Path) -> bool {
    read_head(path)
        .is_ok_and(|head| !head.starts_with(b"\x7fELF") && script::classify(&head) == Text::Plain)
}

/// The first bytes of a file.
fn read_head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; script::HEAD];
    let length = Source::read_at(&File::open(path)?, &mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

struct Judge<'a> {
    chain: Vec<PathBuf>,
    library: &'a Library,
}

impl Judge<'_> {
    /// The file that is looked at.
    fn current(&self) -> &Path {
        self.chain.last().map_or(Path::new(""), PathBuf::as_path)
    }

    /// The start of a message: what was asked for, and by what it came to the file at hand.
    fn subject(&self) -> String {
        let mut text = String::from("cannot run");
        for (i, path) in self.chain.iter().enumerate() {
            let link = if i == 0 { "" } else { ", which needs" };
            let _ = write!(text, "{link} '{}'", path.display());
        }
        text
    }

    fn unknown(self, why: &str) -> Program {
        let file = self.current().display();
        let warning = format!("cannot tell whether '{file}' will use the allocator: {why}");
        Program { chain: self.chain, warning: Some(warning) }
    }

    /// A refusal: the program would run without the allocator.
    fn refuse(&self, why: &str, remedy: &str) -> Failure {
        Failure::failed(format!(
            "{} on the allocator: {why}\n{remedy}`tiermalloc run --force` runs it all the same, \
             without the allocator.",
            self.subject()
        ))
    }

    /// The file that a `#!` line leads to; none where that cannot be known.
    fn follow(&mut self, line: &script::Line) -> Result<Option<PathBuf>, Failure> {
        let interpreter = PathBuf::from(&line.interpreter);
        lookup::executable(&interpreter).map_err(|failure| Failure {
            status: failure.status,
            message: format!("{}: its interpreter: {}", self.subject(), failure.message),
        })?;
        if interpreter.file_name() != Some(OsStr::new("env")) {
            return Ok(Some(interpreter));
        }
        // What `env` is linked to is no matter: it only hands the environment on.
        match script::env(line.argument.as_deref()) {
            Env::Program(name) => match lookup::find(&name) {
                Ok(path) => Ok(Some(path)),
                Err(failure) => Err(Failure {
                    status: failure.status,
                    message: format!("{} by its first line: {}", self.subject(), failure.message),
                }),
            },
            Env::Cleared => {
                Err(self
                    .refuse("its first line has env take LD_PRELOAD out of the environment", ""))
            }
            Env::Unknown => Ok(None),
        }
    }

    /// Judges a file that starts like an ELF file.
    fn elf(&self, path: &Path) -> Result<(), Failure> {
        let subject = self.subject();
        let broken = |what: String| Failure::not_runnable(format!("{subject}: {what}"));
        let file = File::open(path).map_err(|error| Failure::of_system(&subject, &error))?;
        let elf = Elf::read(&file).map_err(|error| match error {
            elf::Error::Read(error) => broken(reason(&error)),
            error => broken(error.to_string()),
        })?;
        if !matches!(elf.kind, Kind::Executable | Kind::Dynamic) {
            return Err(broken(format!("it is {}, not a program", elf.kind)));
        }
        let library = self.library;
        if elf.target != library.elf.target {
            return Err(self.refuse(
                &format!("it is {}, the library is {}.", elf.target, library.elf.target),
                &format!(
                    "The library is '{}'; `--library FILE` takes one that fits.\n",
                    library.path.display()
                ),
            ));
        }
        match &elf.interpreter {
            Some(loader) => self.loader(Path::new(loader))?,
            None if is_loader(path, elf.dynamic.name.as_deref()) => {}
            None => {
                return Err(self.refuse(
                    "it is statically linked (or is a library): no dynamic loader starts it.",
                    "Link it dynamically, or link libtiermalloc.a into it.\n",
                ));
            }
        }
        if let Ok(Some(gain)) = privilege::gain(path) {
            return Err(self.refuse(
                &format!("{gain}."),
                "The dynamic loader ignores LD_PRELOAD where a program gains rights. Run a copy\n\
                 without them, or run tiermalloc as the user that the program would run as.\n",
            ));
        }
        if elf.dynamic.defines_malloc && elf.interpreter.is_some() {
            return Err(self.refuse(
                "it brings its own malloc.",
                "A program's own functions come before preloaded ones; it has to be built without.\n",
            ));
        }
        Ok(())
    }

    /// Judges the dynamic loader that the program asks for.
    fn loader(&self, loader: &Path) -> Result<(), Failure> {
        if !loader.exists() {
            return Err(Failure::not_found(format!(
                "{}: its dynamic loader '{}' does not exist here",
                self.subject(),
                loader.display()
            )));
        }
        let (program, library) = (Libc::of_loader(loader), Libc::of_needed(&self.library.elf));
        match (program, library) {
            (Some(program), Some(library)) if program != library => Err(self.refuse(
                &format!("it uses {}, the library needs {}.", program.name(), library.name()),
                &format!("Build the library for {}.\n", program.name()),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a file without a loader is one itself: `ld.so PROGRAM` preloads as well.
fn is_loader(path: &Path, name: Option<&OsStr>) -> bool {
    let looks = |name: &OsStr| {
        let prefixes = [&b"ld-linux"[..], b"ld-musl", b"ld64.so", b"ld.so"];
        prefixes.iter().any(|prefix| name.as_bytes().starts_with(prefix))
    };
    name.is_some_and(looks) || path.file_name().is_some_and(looks)
}

/// A C library: one process has one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Libc {
    Glibc,
    Musl,
}

impl Libc {
    fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        }
    }

    /// The C library that a dynamic loader belongs to.
    fn of_loader(loader: &Path) -> Option<Self> {
        let name = loader.file_name()?.as_bytes();
        if name.starts_with(b"ld-musl-") {
            Some(Self::Musl)
        } else if name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so") {
            Some(Self::Glibc)
        } else {
            None
        }
    }

    /// The C library that a library names among those it needs.
    fn of_needed(elf: &Elf) -> Option<Self> {
        elf.dynamic.needed.iter().find_map(|name: &OsString| match name.as_bytes() {
            b"libc.so" => Some(Self::Musl),
            name if name.starts_with(b"libc.musl-") => Some(Self::Musl),
            name if name.starts_with(b"libc.so.6") => Some(Self::Glibc),
            _ => None,
        })
    }
}
