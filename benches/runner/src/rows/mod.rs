//! What is run: the rows of the tables.
//!
//! | module | its rows |
//! |---|---|
//! | [`workloads`] | programs in C and C++ from `benches/workloads/` |
//! | [`programs`] | real programs, started by scripts in `benches/programs/` |
//! | [`global`] | workloads in Rust from `benches/global/`, one executable an allocator |

pub mod global;
pub mod programs;
pub mod workloads;

use std::path::PathBuf;

use crate::launch::Job;
use crate::peers::Peer;
use crate::record::Section;

/// A row of a table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The table.
    pub section: Section,
    /// Its name.
    pub name: String,
    /// What it does, in a line.
    pub about: String,
    /// How it is run.
    pub work: Work,
    /// Seconds after which a run counts as hung.
    pub limit_s: u32,
}

/// How a row is run.
#[derive(Clone, Debug)]
pub enum Work {
    /// `program threads scale extra...`
    Workload {
        /// The compiled workload.
        program: PathBuf,
        /// How many threads it is to use.
        threads: u32,
        /// What else it is told.
        extra: Vec<String>,
    },
    /// `bash script run scale`, in a directory that `bash script prepare scale` has filled.
    Script {
        /// The script.
        script: PathBuf,
        /// Where it runs.
        dir: PathBuf,
        /// For a program that brings an allocator of its own: what gives it the system's back.
        libc: Option<PathBuf>,
    },
    /// `executable name --scale F`, the executable that of the allocator.
    Linked,
}

/// A table's worth of rows, and the allocators that run them.
pub struct Table {
    /// Which table.
    pub section: Section,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Its columns.
    pub peers: Vec<Peer>,
}

impl Row {
    /// The job that runs this row on an allocator, with this share of its full work.
    pub fn job(&self, peer: &Peer, scale: f64, scratch: &std::path::Path) -> Job {
        let scale = scale.to_string();
        let job = |program: PathBuf, args: Vec<String>| Job {
            program,
            args,
            preload: peer.library.clone(),
            environment: peer.environment(),
            dir: scratch.to_owned(),
            limit_s: self.limit_s,
        };
        match &self.work {
            Work::Workload { program, threads, extra } => {
                let mut args = vec![threads.to_string(), scale];
                args.extend(extra.iter().cloned());
                job(program.clone(), args)
            }
            Work::Script { script, dir, libc } => {
                let script = script.to_string_lossy().into_owned();
                let job = job("bash".into(), vec![script, "run".into(), scale]);
                let preload = job.preload.clone().or_else(|| libc.clone());
                Job { dir: dir.clone(), preload, ..job }
            }
            Work::Linked => {
                let program = peer.executable.clone().unwrap_or_default();
                job(program, vec![self.name.clone(), "--scale".into(), scale])
            }
        }
    }
}

/// Whether a name is asked for: it is if it contains one of the patterns, or if there are none.
pub fn is_wanted(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| name.contains(pattern.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_row_has_its_command_line() {
        let peer = |library: Option<&str>| Peer {
            name: "p".into(),
            library: library.map(PathBuf::from),
            executable: Some("/x/global-p".into()),
            version: String::new(),
        };
        let row = |work| Row {
            section: Section::Preload,
            name: "n".into(),
            about: String::new(),
            work,
            limit_s: 9,
        };
        let here = std::path::Path::new("/here");
        let workload =
            row(Work::Workload { program: "/w".into(), threads: 2, extra: vec!["x".into()] });
        let job = workload.job(&peer(Some("/p.so")), 0.5, here);
        assert_eq!(
            (job.args, job.preload),
            (vec!["2".into(), "0.5".into(), "x".into()], Some("/p.so".into()))
        );

        let script = |libc: Option<&str>| {
            row(Work::Script {
                script: "/s.sh".into(),
                dir: "/d".into(),
                libc: libc.map(PathBuf::from),
            })
        };
        let job = script(Some("/libc.so.6")).job(&peer(None), 1.0, here);
        assert_eq!(
            (job.args, job.dir),
            (vec!["/s.sh".into(), "run".into(), "1".into()], "/d".into())
        );
        assert_eq!(job.preload, Some("/libc.so.6".into()));
        assert_eq!(
            script(Some("/libc")).job(&peer(Some("/p.so")), 1.0, here).preload,
            Some("/p.so".into())
        );
        assert_eq!(script(None).job(&peer(None), 1.0, here).preload, None);

        let job = row(Work::Linked).job(&peer(None), 1.0, here);
        assert_eq!(
            (job.program, job.args),
            ("/x/global-p".into(), vec!["n".into(), "--scale".into(), "1".into()])
        );
    }

    #[test]
    fn patterns_are_parts_of_names() {
        let patterns = ["larson".to_owned(), "cache".to_owned()];
        assert!(is_wanted("larson-n", &patterns) && is_wanted("lru-cache", &patterns));
        assert!(!is_wanted("cfrac", &patterns) && is_wanted("cfrac", &[]));
    }
}
