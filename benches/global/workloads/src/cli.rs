//! The command line that all programs of this workspace share.

use std::process::ExitCode;

use peer::Peer;

use crate::params::Params;
use crate::{WORKLOADS, Workload};

const USAGE: &str = "usage: global-PEER NAME [--scale F] [--threads N]
       global-PEER --list        names and what they stress, separated by a tab
       global-PEER --allocator   what this program runs on; fails if it is something else";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Asked<'a> {
    List,
    Allocator,
    Run(&'a str),
}

/// Runs what the command line names and prints one line: `checksum` and 16 hexadecimal digits.
pub fn main(peer: &Peer) -> ExitCode {
    (peer.start)();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut params = Params::default();
    let result = match parse(&args, &mut params) {
        Some(Asked::List) => {
            for workload in WORKLOADS {
                println!("{}\t{}", workload.name, workload.about);
            }
            Ok(())
        }
        Some(Asked::Allocator) => {
            println!("{}", peer.describe());
            peer.check()
        }
        Some(Asked::Run(name)) => match find(name) {
            Some(workload) => {
                println!("checksum {:016x}", (workload.run)(&params));
                Ok(())
            }
            None => Err(format!("no workload is called {name}; --list lists them")),
        },
        None => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().copied().find(|workload| workload.name == name)
}

/// `None` if the command line makes no sense.
fn parse<'a>(args: &'a [String], params: &mut Params) -> Option<Asked<'a>> {
    let mut asked = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--scale" => params.scale = args.next()?.parse().ok().filter(|f| *f > 0.0)?,
            "--threads" => params.threads = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--list" if asked.is_none() => asked = Some(Asked::List),
            "--allocator" if asked.is_none() => asked = Some(Asked::Allocator),
            name if asked.is_none() && !name.starts_with('-') => asked = Some(Asked::Run(name)),
            _ => return None,
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_anywhere_and_nonsense_is_refused() {
        let parsed = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let mut params = Params::default();
            parse(&args, &mut params)
                .map(|asked| (asked == Asked::Run("x"), params.scale, params.threads))
        };
        assert_eq!(parsed("x"), Some((true, 1.0, 4)));
        assert_eq!(parsed("--threads 2 x --scale 0.5"), Some((true, 0.5, 2)));
        assert_eq!(parsed("--list"), Some((false, 1.0, 4)));
        for wrong in ["", "x y", "x --scale", "x --scale 0", "x --threads 0", "--what"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
