//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::classes::Format;
use crate::config::ConfigOptions;
use crate::failure::{FAILED, say};
use crate::manual;
use crate::settings::Settings;
use crate::stats::StatsOptions;

/// Runs any program on the tiermalloc memory allocator
///
/// tiermalloc is a memory allocator in tiers: a cache for each thread, a central
/// cache for all of them, and a heap of pages. `tiermalloc run` starts a program
/// with libtiermalloc.so in place of the C library's malloc and C++'s operator
/// new; the program need not be rebuilt, and need not know.
#[derive(Debug, Parser)]
#[command(
    name = "tiermalloc",
    version,
    verbatim_doc_comment,
    disable_help_subcommand = true,
    after_long_help = manual::help(manual::PROGRAM),
)]
struct CommandLine {
    #[command(subcommand)]
    action: Action,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Runs a program on the allocator
    ///
    /// Puts libtiermalloc.so at the head of LD_PRELOAD and becomes the program: same
    /// process, so exit status, signals, terminal and process group are the program's
    /// own. Programs that it starts are run on the allocator as well.
    ///
    /// Says so, and runs nothing, when the program would not use the allocator: see
    /// Refusals below.
    #[command(
        verbatim_doc_comment,
        override_usage = "tiermalloc run [OPTIONS] [--] PROGRAM [ARGS]...",
        after_long_help = manual::help(manual::RUN)
    )]
    Run(RunOptions),

    /// Shows what a program would be run with, or all that can be set
    ///
    /// Reads /etc/tiermalloc.conf, the file that TIERMALLOC_CONF_FILE names and
    /// TIERMALLOC_CONF as the allocator does when PROGRAM starts, and prints each value
    /// with where it came from: a configuration file that says the same. What PROGRAM
    /// itself brings is not seen; config=print in the configuration has it printed by
    /// PROGRAM. Mistakes are told on standard error, and the exit status is 1 then.
    #[command(
        verbatim_doc_comment,
        override_usage = "tiermalloc config [OPTIONS] [--] [PROGRAM [ARGS]...]\n       \
                          tiermalloc config --list [--format FORMAT]",
        after_long_help = manual::help(manual::CONFIG)
    )]
    Config(ConfigOptions),

    /// Prints the 208 size classes in order of size
    ///
    /// A request for memory of at most 256 KiB is served by an object of the smallest
    /// class for its alignment that it fits into; objects of a class are cut from spans
    /// of pages.
    #[command(verbatim_doc_comment)]
    Classes {
        /// How they are printed
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },

    /// Shows, compares or draws the statistics that a program has written
    ///
    /// Reads what the library writes with stats_format=json: at the program's end
    /// (stats=exit), at a signal (stats=SIGUSR2) or every so often
    /// (stats_interval=10s), to standard error or to the file that stats_file names.
    #[command(verbatim_doc_comment, after_long_help = manual::help(manual::STATS))]
    Stats(StatsOptions),

    /// Prints the manual page, for man(1)
    Man,
}

/// What `tiermalloc run` takes.
#[derive(Args, Debug)]
pub struct RunOptions {
    /// The library, instead of searching for it
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,

    /// Run the program even where it will not use the allocator
    #[arg(long)]
    pub force: bool,

    /// Say on standard error what is run, and how
    #[arg(long, short)]
    pub verbose: bool,

    #[command(flatten)]
    pub settings: Settings,

    /// The program, looked up in PATH, and its arguments. Everything after
    /// PROGRAM is the program's, options included
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true)]
    #[arg(verbatim_doc_comment)]
    pub command: Vec<OsString>,
}

/// The definition of the command line, for the manual page.
pub fn command() -> clap::Command {
    let mut command = CommandLine::command();
    command.build();
    command
}

/// Reads the command line. Where there is nothing more to do (help, an error), prints what there is
/// to say and returns the exit status.
pub fn parse(arguments: Vec<OsString>) -> Result<Action, u8> {
    // env(1) and its kin keep 1 to 124 for the program that they run.
    let misuse = if arguments.get(1).is_some_and(|word| word == "run") { FAILED } else { 2 };
    let error = match CommandLine::try_parse_from(arguments) {
        Ok(line) => return Ok(line.action),
        Err(error) => error,
    };
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidSubcommand {
        say("to run a program: tiermalloc run -- PROGRAM ARGS...");
    }
    Err(if error.use_stderr() { misuse } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> RunOptions {
        let words = ["tiermalloc", "run"].iter().chain(words).map(OsString::from);
        match CommandLine::try_parse_from(words) {
            Ok(CommandLine { action: Action::Run(options) }) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        for (words, program) in [
            (&["ls"][..], &["ls"][..]),
            (&["--", "ls", "-l"], &["ls", "-l"]),
            (&["ls", "-l", "--color"], &["ls", "-l", "--color"]),
            (&["ls", "--verbose", "--help", "-V"], &["ls", "--verbose", "--help", "-V"]),
            (&["ls", "--", "-l"], &["ls", "--", "-l"]),
            (&["--", "ls", "--", "-l"], &["ls", "--", "-l"]),
            (&["--", "--odd-name"], &["--odd-name"]),
            (&["ls", "--library", "x", "--force"], &["ls", "--library", "x", "--force"]),
            (&["ls", ""], &["ls", ""]),
        ] {
            let options = run(words);
            assert_eq!(options.command, program, "{words:?}");
            assert!(!options.verbose && !options.force && options.library.is_none(), "{words:?}");
        }
    }

    #[test]
    fn what_precedes_the_program_is_ours() {
        let options = run(&["--library=a b", "-v", "--force", "ls", "-v"]);
        assert!(options.verbose && options.force);
        assert_eq!(options.library, Some(PathBuf::from("a b")));
        assert_eq!(options.command, ["ls", "-v"]);
    }

    #[test]
    fn an_unknown_option_before_the_program_is_an_error() {
        let words = ["tiermalloc", "run", "--libary", "x", "ls"];
        let error = CommandLine::try_parse_from(words).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownArgument);
    }
}
