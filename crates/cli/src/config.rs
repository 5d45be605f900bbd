//! `tiermalloc config`: what can be set, and what a program would be run with.

mod list;

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::{Args, ValueEnum};
use tiermalloc::config::{Effective, SYSTEM_FILE, Source, Sources};

use crate::failure::{Failure, say};
use crate::settings::Settings;
use crate::{check, lookup, output, privilege};

/// How settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person; what is in force, as a configuration file
    Text,
    /// One object
    Json,
    /// A table in Markdown; of --list only
    Markdown,
}

/// What `tiermalloc config` takes.
#[derive(Args, Debug)]
pub struct ConfigOptions {
    /// All that can be set: key, type, unit, default, range, meaning
    #[arg(long, conflicts_with_all = ["pool", "conf", "file", "command"])]
    pub list: bool,

    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    #[command(flatten)]
    pub settings: Settings,

    /// The program that would be run, for the sections of configuration files and for
    /// what is ignored in set-user-ID programs; its arguments do not matter
    #[arg(value_name = "PROGRAM", num_args = 0.., trailing_var_arg = true)]
    #[arg(verbatim_doc_comment)]
    pub command: Vec<OsString>,
}

/// Prints what `options` ask for.
pub fn config(options: &ConfigOptions) -> Result<(), Failure> {
    match (options.list, options.format) {
        (true, Format::Text) => output::print(&list::text()),
        (true, Format::Json) => output::print(&list::json()),
        (true, Format::Markdown) => output::print(&list::markdown()),
        (false, Format::Markdown) => Err(usage("--format markdown goes with --list")),
        (false, format) => show(options, format),
    }
}

fn usage(message: &str) -> Failure {
    Failure { status: 2, message: message.to_owned() }
}

/// Prints the configuration of a would-be run. Fails, having printed it, if the allocator would ignore anything.
fn show(options: &ConfigOptions, format: Format) -> Result<(), Failure> {
    let status = |failure: Failure| Failure { status: 1, ..failure };
    options.settings.check().map_err(status)?;
    let program =
        Program::find(options.command.first().map(OsString::as_os_str)).map_err(status)?;
    let ours = options.settings.effective();
    let (environment, file) = match program.trusted {
        true => (options.settings.joined(), options.settings.user_file().map_err(status)?),
        false => (None, None),
    };
    let file = file.filter(|file| !file.is_empty()).map(|file| {
        CString::new(file.as_bytes()).map_err(|_| usage("the name of the file has a NUL in it"))
    });
    let file = file.transpose()?;
    let sources = Sources {
        system_file: Some(SYSTEM_FILE),
        user_file: file.as_deref(),
        environment: environment.as_deref().map(OsStr::as_bytes),
        name: program.name.as_bytes(),
        ..Sources::NONE
    };
    let mut wrong = 0;
    let effective = sources.gather(&mut |place, problem| {
        wrong += 1;
        say(&format!("{place}: {problem}"));
    });
    output::print(&match format {
        Format::Json => as_json(&effective, &ours, &program),
        _ => as_file(&effective, &ours),
    })?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failure { status: 1, message: "a mistake in the configuration".to_owned() }),
        n => Err(Failure { status: 1, message: format!("{n} mistakes in the configuration") }),
    }
}

/// The program that would be run, as far as it matters here.
struct Program {
    /// The name that sections go by.
    name: OsString,
    /// Whether whoever starts it has a say.
    trusted: bool,
}

impl Program {
    fn find(name: Option<&OsStr>) -> Result<Self, Failure> {
        let Some(name) = name else { return Ok(Self { name: OsString::new(), trusted: true }) };
        let path = lookup::find(name)?;
        if check::needs_shell(&path) {
            return Ok(Self { name: OsString::from("sh"), trusted: true });
        }
        let last = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        // The kernel gives scripts no rights, whatever their bits say.
        let gain =
            if check::is_plain_text(&path) { None } else { privilege::gain(&path).ok().flatten() };
        let Some(gain) = gain else { return Ok(Self { name: last(&path), trusted: true }) };
        say(&format!(
            "'{}': {gain}; the environment and its user's file are not read",
            path.display()
        ));
        // It goes by its file there, because its user chooses the name.
        let file = path.canonicalize().unwrap_or(path);
        Ok(Self { name: last(&file), trusted: false })
    }
}

/// Every key with its value and where that came from.
fn values<'a>(
    effective: &'a Effective,
    ours: &'a Effective,
) -> impl Iterator<Item = (&'static str, String, String)> + 'a {
    effective.values().zip(ours.values()).map(|((key, value, place), (_, _, our))| {
        let source = match (place.origin.source, our.origin.source) {
            (Source::Environment, Source::Environment) => "command line".to_owned(),
            _ => place.to_string(),
        };
        (key.name, key.show(value).to_string(), source)
    })
}

// Writing to a String cannot fail; the results of `write!` say nothing.

/// A configuration file that says the same.
fn as_file(effective: &Effective, ours: &Effective) -> String {
    let lines: Vec<_> = values(effective, ours).collect();
    let keys = lines.iter().map(|(key, _, _)| key.len()).max().unwrap_or(0);
    let wide = lines.iter().map(|(_, value, _)| value.len()).filter(|wide| *wide < 24).max();
    let wide = wide.unwrap_or(0);
    let mut text = String::new();
    for (key, value, source) in lines {
        let _ = writeln!(text, "{key:keys$} = {value:wide$}  # {source}");
    }
    text
}

fn as_json(effective: &Effective, ours: &Effective, program: &Program) -> String {
    let name = program.name.to_string_lossy();
    let mut text = format!("{{\n  \"program\": {},\n  \"configuration\": [", quoted(&name));
    for (i, (key, value, source)) in values(effective, ours).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let source = quoted(&source);
        // A value is shown as TOML has it, and these strings are JSON's as well.
        let _ = write!(
            text,
            "{comma}\n    {{\"key\": \"{key}\", \"value\": {value}, \"source\": {source}}}"
        );
    }
    text.push_str("\n  ]\n}\n");
    text
}

/// A text as a string of JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json + "\""
}

#[cfg(test)]
mod tests {
    #[test]
    fn strings_of_json_hold_anything() {
        assert_eq!(super::quoted("a\"b\\c\n\u{e4}"), "\"a\\\"b\\\\c\\u000a\u{e4}\"");
    }
}
