//! The options that configure the allocator, and what becomes of them: the value of an environment variable.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{self, PathBuf};

use clap::Args;
use tiermalloc::Config;
use tiermalloc::config::{Effective, Sources, apply};

use crate::failure::{Failure, reason};

/// The settings of a program, `key=value,key=value`.
pub const VARIABLE: &str = "TIERMALLOC_CONF";
/// The name of a file with more of them.
pub const FILE_VARIABLE: &str = "TIERMALLOC_CONF_FILE";

/// What `run` and `config` take.
#[derive(Args, Debug, Default)]
pub struct Settings {
    /// Who serves: short for a --conf pool=NAME before all others
    #[arg(long, value_name = "NAME")]
    pub pool: Option<OsString>,

    /// A setting of the allocator; may be given again, and the last one wins. See
    /// `tiermalloc config --list`
    #[arg(long = "conf", value_name = "KEY=VALUE", verbatim_doc_comment)]
    pub conf: Vec<OsString>,

    /// A file with settings, in place of the one that TIERMALLOC_CONF_FILE names
    #[arg(long = "conf-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

impl Settings {
    /// The settings as one text.
    pub fn text(&self) -> Vec<u8> {
        let pool = self.pool.iter().map(|pool| [b"pool=", pool.as_bytes()].concat());
        let conf = self.conf.iter().map(|setting| setting.as_bytes().to_vec());
        pool.chain(conf).collect::<Vec<_>>().join(&b',')
    }

    /// Fails, naming all that the allocator would ignore.
    pub fn check(&self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        apply(&mut Config::new(), &self.text(), &mut |problem| {
            // Here nothing is ignored.
            wrong.push(problem.to_string().replace("; it is ignored", ""));
        });
        if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("\n"))) }
    }

    /// What the options alone make of the default, as if they were the environment's.
    pub fn effective(&self) -> Effective {
        let text = self.text();
        Sources { environment: Some(&text), ..Sources::NONE }.gather(&mut |_, _| ())
    }

    /// The settings behind those that the environment has already: the last one wins.
    pub fn joined(&self) -> Option<OsString> {
        let before = env::var_os(VARIABLE);
        let text = self.text();
        if text.is_empty() {
            return before;
        }
        let mut joined = before.unwrap_or_default().into_vec();
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend(text);
        Some(OsString::from_vec(joined))
    }

    /// The file, if one is named; by its whole path, because what the program starts may stand elsewhere.
    pub fn user_file(&self) -> Result<Option<OsString>, Failure> {
        let Some(file) = &self.file else { return Ok(env::var_os(FILE_VARIABLE)) };
        let whole = path::absolute(file).map_err(|error| {
            Failure::failed(format!("cannot use '{}': {}", file.display(), reason(&error)))
        })?;
        Ok(Some(whole.into_os_string()))
    }

    /// What changes in the environment of the program.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>, Failure> {
        let mut changes = Vec::new();
        if !self.text().is_empty() {
            changes.extend(self.joined().map(|text| (VARIABLE, text)));
        }
        if let Some(file) = &self.file {
            let plain = file.metadata().map_err(|error| {
                Failure::failed(format!("cannot read '{}': {}", file.display(), reason(&error)))
            })?;
            if !plain.is_file() {
                let file = file.display();
                return Err(Failure::failed(format!("cannot read '{file}': not a regular file")));
            }
            changes.extend(self.user_file()?.map(|file| (FILE_VARIABLE, file)));
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pool: Option<&str>, conf: &[&str]) -> Settings {
        let conf = conf.iter().map(OsString::from).collect();
        Settings { pool: pool.map(OsString::from), conf, file: None }
    }

    #[test]
    fn settings_follow_each_other_and_the_pool_comes_first() {
        assert_eq!(of(None, &[]).text(), b"");
        let text = of(Some("central"), &["a=1", "b=2,c=3"]).text();
        assert_eq!(text, b"pool=central,a=1,b=2,c=3");
    }

    #[test]
    fn what_the_allocator_would_ignore_is_refused() {
        assert!(of(Some("central"), &["quarantine=1MiB,zero_on_free=1"]).check().is_ok());
        let failure = of(Some("fast"), &["pol=central", "quarantine"]).check().unwrap_err();
        assert_eq!(failure.status, 125);
        let lines: Vec<&str> = failure.message.lines().collect();
        assert_eq!(
            lines[1..],
            [
                "pol=central: there is no such key; perhaps pool is meant",
                "quarantine: not of the form key=value",
            ]
        );
        assert!(lines[0].starts_with("pool=fast: not one of tiered, central, "), "{failure:?}");
    }
}
