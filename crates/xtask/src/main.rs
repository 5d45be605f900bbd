//! The commands of this repository, `cargo xtask NAME`.
//!
//! One module a command; what several of them need stands beside them:
//!
//! | module | what it gives the commands |
//! |---|---|
//! | [`shell`] | running a program, with an echo of what runs and an error that names it |
//! | [`workspace`] | where things are: the root, the target directory, the crates, what was built |
//! | [`packages`] | Debian's packages, for the commands that take `--install` |
//! | [`table`] | columns of text |
//!
//! A command returns [`shell::Result`]: its error is one message for a person, printed once, here,
//! and the exit status is then 1. Nothing in this crate panics because of what a user did or of
//! what a machine lacks.

mod aarch64;
mod arrows;
mod bench;
mod callgrind;
mod ci;
mod coverage;
mod fuzz;
mod install;
mod instructions;
mod loom;
mod msrv;
mod mutations;
mod packages;
mod real_programs;
mod sanitize;
mod shell;
mod startup;
mod table;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands, beyond cargo's.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// The first line of each is what `cargo xtask --help` shows.
#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change goes in; what `.ci/run` calls
    Ci(ci::Args),
    /// Run the loom models of every crate that has any
    Loom(loom::Args),
    /// Break the code on purpose, one way after another, and see that a model or a test notices
    Mutations(mutations::Args),
    /// Run every fuzz target for a while from the committed corpus
    FuzzSmoke(fuzz::Args),
    /// Measure which lines of each tier its own tests reach
    Coverage(coverage::Args),
    /// Run the tests under ThreadSanitizer or AddressSanitizer
    Sanitize(sanitize::Args),
    /// Count instructions per allocator call with callgrind
    Instructions(instructions::Args),
    /// Run real programs under libtiermalloc.so and compare what they print
    RealPrograms(real_programs::Args),
    /// Time and memory beside other allocators; `bench --help` has its options
    Bench(bench::Args),
    /// Ratio of start-up time, and memory of an empty program under the library
    Startup(startup::Args),
    /// Check that the crates depend on each other downwards only
    Arrows(arrows::Args),
    /// Build and test with the oldest compiler that the workspace promises
    Msrv(msrv::Args),
    /// Build and test for aarch64 under qemu, with pages of 4, 16 and 64 KiB
    Aarch64(aarch64::Args),
    /// Put the program, the libraries and the manual page under a prefix
    Install(install::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Ci(args) => ci::run(&args),
        Command::Loom(args) => loom::run(&args),
        Command::Mutations(args) => mutations::run(&args),
        Command::FuzzSmoke(args) => fuzz::run(&args),
        Command::Coverage(args) => coverage::run(&args),
        Command::Sanitize(args) => sanitize::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::RealPrograms(args) => real_programs::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Startup(args) => startup::run(&args),
        Command::Arrows(args) => arrows::run(&args),
        Command::Msrv(args) => msrv::run(&args),
        Command::Aarch64(args) => aarch64::run(&args),
        Command::Install(args) => install::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed_and_each_command_is_explained() {
        let cli = super::Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no explanation", command.get_name());
        }
    }
}
