//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;

use crate::files::Result;
use crate::measure::Effort;
use crate::memory::Length;
use crate::peers::SYSTEM;
use crate::record::Section;

/// Time, processor time and peak memory beside other allocators, interleaved
///
/// Programs run on one allocator after the other, round after round; tables are relative to a
/// reference. Less is better in all of them.
#[derive(Parser, Clone, Debug)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub struct Options {
    /// A first impression in about two minutes: a tenth of the work, two rounds
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Full work, seven rounds, and the sections about memory and scaling too
    #[arg(long)]
    pub full: bool,
    /// Only rows whose name contains this (may be given again)
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Only these allocators, by name, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Another library to preload (may be given again)
    #[arg(long = "peer", value_name = "NAME=PATH.so", value_parser = parse_peer)]
    pub brought: Vec<(String, PathBuf)>,
    /// Only these sections, separated by commas
    #[arg(long = "section", value_name = "LIST", value_delimiter = ',')]
    pub sections: Vec<Section>,
    /// What the figures of preloaded allocators are relative to
    #[arg(long, value_name = "NAME", default_value = SYSTEM)]
    pub reference: String,
    /// Run tiermalloc with this configuration, as in `pool=central`
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub conf: Option<String>,
    /// Rounds that count
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Share of its full work that each program does
    #[arg(long, value_name = "SHARE", value_parser = parse_scale)]
    pub scale: Option<f64>,
    /// Length of the producer/consumer experiment of the section `memory`
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(3..))]
    pub seconds: Option<u32>,
    /// Seed of the order of the runs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Where tables, plots and raw data go; `docs/benchmarks` for a whole series, else below `target`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Make tables and plots of raw data measured earlier, without measuring
    #[arg(long, value_name = "FILE")]
    pub render: Option<PathBuf>,
    /// Build the allocators from their sources again, and end
    #[arg(long)]
    pub build_peers: bool,
    /// Install what is missing, with apt-get
    #[arg(long)]
    pub install: bool,
    /// List rows and allocators
    #[arg(long)]
    pub list: bool,
    /// List the packages that `--install` is to install, one a line
    #[arg(long, hide = true)]
    pub packages: bool,
}

impl Options {
    /// The sections that are asked for.
    pub fn sections(&self) -> Vec<Section> {
        use Section::{Global, Memory, Preload, Real, Scaling};
        match () {
            () if !self.sections.is_empty() => self.sections.clone(),
            () if self.full => vec![Preload, Real, Global, Memory, Scaling],
            () => vec![Preload, Real, Global],
        }
    }

    /// How much is measured.
    pub fn effort(&self) -> Effort {
        let (scale, rounds) = match () {
            () if self.quick => (0.1, 2),
            () if self.full => (1.0, 7),
            () => (0.5, 3),
        };
        let scale = self.scale.unwrap_or(scale);
        Effort {
            scale,
            warm_scale: scale.min(0.02),
            rounds: self.rounds.unwrap_or(rounds),
            seed: self.seed,
        }
    }

    /// How long the experiments about memory are.
    pub fn length(&self) -> Length {
        let (idle_s, soak_s, times) = if self.quick { (5, 5, 1) } else { (10, 60, 3) };
        Length { idle_s, soak_s: self.seconds.unwrap_or(soak_s), times }
    }

    /// Whether this is a series that is worth keeping in the repository.
    pub fn is_whole(&self) -> bool {
        !self.quick
            && self.only.is_empty()
            && self.peers.is_empty()
            && self.brought.is_empty()
            && self.conf.is_none()
            && self.sections.is_empty()
    }
}

fn parse_peer(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH.so")?;
    let path = Path::new(path);
    if name.is_empty() || !path.is_file() {
        return Err(format!("there is no {}", path.display()));
    }
    Ok((name.to_owned(), path.to_owned()))
}

fn parse_scale(text: &str) -> Result<f64> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("expected a number above 0, 1 for the full work".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Options {
        Options::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
        let options = parse("bench --quick --only larson --only cfrac --peers glibc,tiermalloc");
        assert_eq!(options.only, ["larson", "cfrac"]);
        assert_eq!(options.peers, ["glibc", "tiermalloc"]);
        assert!(!options.is_whole() && parse("bench").is_whole());
        assert!(Options::try_parse_from(["bench", "--quick", "--full"]).is_err());
        assert!(Options::try_parse_from(["bench", "--scale", "0"]).is_err());
        assert!(Options::try_parse_from(["bench", "--peer", "x=/no/such.so"]).is_err());
    }

    #[test]
    fn the_effort_grows_and_can_be_set() {
        let (quick, normal, full) = (parse("b --quick"), parse("b"), parse("b --full"));
        assert!(quick.effort().scale < normal.effort().scale);
        assert!(normal.effort().rounds < full.effort().rounds);
        assert!(full.sections().len() > normal.sections().len());
        let set = parse("b --full --rounds 2 --scale 0.01").effort();
        assert_eq!((set.rounds, set.scale, set.warm_scale), (2, 0.01, 0.01));
    }
}
