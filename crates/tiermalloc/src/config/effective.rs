//! All sources put together, with the source of each value.

use core::ffi::CStr;

use tiermalloc_sync::sys::files::{File, NoFile};

use super::file::{Item, scan};
use super::parse::{apply_each, assign};
use super::place::{Origin, Place, Source, kept};
use super::{Config, KEYS, Key, Problem, Text, Value};

/// A configuration, and where each of its values came from.
#[derive(Clone, Copy, Debug)]
pub struct Effective {
    config: Config,
    origins: [Origin; KEYS.len()],
    /// The name of the file that a user has named.
    file: Text,
}

/// Told of each problem, and where it is.
pub(super) type Report<'a> = dyn FnMut(&Place<'_>, &Problem<'_>) + 'a;

/// What there is to put together.
///
/// ```
/// use tiermalloc::config::{Config, Pool, Source, Sources};
///
/// let program = Config::new().pool(Pool::Central).quarantine(1 << 20);
/// let mut sources = Sources::NONE;
/// sources.program = Some(&program);
/// sources.environment = Some(b"pool=hardened,pol=central");
/// let mut said = Vec::new();
/// let effective = sources.gather(&mut |place, problem| said.push(format!("{place}: {problem}")));
/// assert_eq!(effective.config().pool, Pool::Hardened);
/// assert_eq!(effective.origin("pool").unwrap().source, Source::Environment);
/// assert_eq!(effective.origin("quarantine").unwrap().source, Source::Program);
/// assert!(said[0].starts_with("TIERMALLOC_CONF: pol=central: there is no such key"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// What the program has been built with. A value that is the default is taken for one that nobody has set.
    pub program: Option<&'a Config>,
    /// What its symbol `tiermalloc_conf` holds.
    pub symbol: Option<&'a [u8]>,
    /// The file of the machine's owner, normally [`SYSTEM_FILE`](super::SYSTEM_FILE); that there is none is no problem.
    pub system_file: Option<&'a CStr>,
    /// The file that the user has named.
    pub user_file: Option<&'a CStr>,
    /// What the environment says.
    pub environment: Option<&'a [u8]>,
    /// The name under which the program is started, for the sections of files.
    pub name: &'a [u8],
}

impl Sources<'_> {
    /// Nothing.
    pub const NONE: Self = Self {
        program: None,
        symbol: None,
        system_file: None,
        user_file: None,
        environment: None,
        name: &[],
    };

    /// Puts all of them together, and tells `report` of all that cannot be applied.
    pub fn gather(&self, report: &mut dyn FnMut(&Place<'_>, &Problem<'_>)) -> Effective {
        let mut effective = Effective::BUILT_IN;
        self.apply_to(&mut effective, report);
        effective
    }

    /// Applies all of them to what is built in.
    #[unsafe(link_section = ".text.hot.tiermalloc")]
    pub(super) fn apply_to(&self, effective: &mut Effective, report: &mut Report<'_>) {
        if let Some(config) = self.program {
            effective.program(config, report);
        }
        if let Some(text) = self.symbol {
            effective.text(Source::Symbol, text, report);
        }
        if let Some(path) = self.system_file {
            effective.file(Source::SystemFile, path, self.name, report);
        }
        if let Some(path) = self.user_file {
            effective.file = kept(path.to_bytes());
            effective.file(Source::UserFile, path, self.name, report);
        }
        if let Some(text) = self.environment {
            effective.text(Source::Environment, text, report);
        }
    }
}

impl Effective {
    /// The default.
    pub const BUILT_IN: Self = Self {
        config: Config::DEFAULT,
        origins: [Origin::BUILT_IN; KEYS.len()],
        file: Text::EMPTY,
    };

    /// What is in force.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The same, for who finds that something cannot be had.
    pub(crate) const fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Where the value of a key came from; `None` without such a key.
    pub fn origin(&self, name: &str) -> Option<Origin> {
        self.values().find(|(key, _, _)| key.name == name).map(|(_, _, place)| place.origin)
    }

    /// Every key with its value and where that came from, in the order of [`KEYS`].
    pub fn values(&self) -> impl Iterator<Item = (&'static Key, Value, Place<'_>)> {
        KEYS.iter().zip(&self.origins).map(|(key, &origin)| {
            let file = match origin.source {
                Source::SystemFile => super::SYSTEM_FILE.to_bytes(),
                Source::UserFile => self.file.as_bytes(),
                _ => &[],
            };
            (key, (key.get)(&self.config), Place::new(origin.source, file, origin.line))
        })
    }

    fn program(&mut self, program: &Config, report: &mut Report<'_>) {
        for (key, origin) in KEYS.iter().zip(&mut self.origins) {
            let value = (key.get)(program);
            if value == (key.get)(&Config::DEFAULT) {
                continue;
            }
            if key.kind.holds(&value) {
                (key.set)(&mut self.config, &value);
                *origin = Origin { source: Source::Program, line: 0 };
            } else {
                let line = key.show(value).bare().write(crate::line::Line::empty());
                let value = line.as_str().as_bytes();
                let problem = Problem::BadValue { key, value, out_of_range: true };
                report(&Place::new(Source::Program, &[], 0), &problem);
            }
        }
    }

    fn text(&mut self, source: Source, text: &[u8], report: &mut Report<'_>) {
        let place = Place::new(source, &[], 0);
        apply_each(&mut self.config, text, &mut |outcome| match outcome {
            Ok(key) => self.origins[key] = place.origin,
            Err(problem) => report(&place, &problem),
        });
    }

    #[unsafe(link_section = ".text.hot.tiermalloc")]
    fn file(&mut self, source: Source, path: &CStr, name: &[u8], report: &mut Report<'_>) {
        let place = |line| Place::new(source, path.to_bytes(), line);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(NoFile::Error(libc::ENOENT | libc::ENOTDIR)) if source == Source::SystemFile => {
                return;
            }
            Err(NoFile::Error(error)) => return report(&place(0), &Problem::Unreadable { error }),
            Err(NoFile::NotRegular) => return report(&place(0), &Problem::NoFile),
        };
        // A regular file gives less than it was asked for at its end alone.
        let mut ended = false;
        let mut read = |into: &mut [u8]| {
            let length = if ended { 0 } else { file.read(into)? };
            ended = length < into.len();
            Ok(length)
        };
        scan(&mut read, name, &mut |line, item| match item {
            Item::Setting { name, value } => match assign(&mut self.config, name, value) {
                Ok(key) => self.origins[key] = place(line).origin,
                Err(problem) => report(&place(line), &problem),
            },
            Item::Wrong(problem) => report(&place(line), &problem),
        });
    }
}
