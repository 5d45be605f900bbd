//! Workloads in C and C++.
//!
//! Each is one file in `benches/workloads/`, called as `NAME THREADS SCALE [EXTRA...]`. It does a
//! fixed amount of work, prints figures that depend on the work alone (they are compared between
//! allocators), and takes a second or so at scale 1 with the system's allocator.

use std::path::PathBuf;
use std::process::Command;

use super::{Row, Work, is_wanted};
use crate::files::{Places, Result, is_fresh, put_in_place, tool};
use crate::record::Section;

/// How many threads a row has.
#[derive(Clone, Copy)]
enum Threads {
    /// This many, on any machine.
    Fixed(u32),
    /// As many as the machine has processors, within bounds.
    All,
}

struct Workload {
    name: &'static str,
    /// The file in `benches/workloads/`.
    source: &'static str,
    threads: Threads,
    extra: &'static [&'static str],
    about: &'static str,
}

/// A row in the shortest form: its name, its source and what that is told, its threads.
const fn w(
    name: &'static str,
    source: &'static str,
    extra: &'static [&'static str],
    threads: Threads,
    about: &'static str,
) -> Workload {
    Workload { name, source, threads, extra, about }
}

use Threads::{All, Fixed};

#[rustfmt::skip]
const WORKLOADS: &[Workload] = &[
    w("alloc-test", "alloc-test.c", &[], Fixed(1), "random replacement in a large live set"),
    w("alloc-test-n", "alloc-test.c", &[], All, "the same in every thread, each with a set of its own"),
    w("cache-scratch-1", "cache-scratch.c", &[], Fixed(1), "an object handed out, rewritten, and replaced by the thread's own"),
    w("cache-scratch-n", "cache-scratch.c", &[], All, "the same with neighbours in one cache line"),
    w("cache-thrash-1", "cache-thrash.c", &[], Fixed(1), "small objects allocated, rewritten and freed"),
    w("cache-thrash-n", "cache-thrash.c", &[], All, "the same in every thread: false sharing, if there is any"),
    w("cfrac", "cfrac.c", &[], Fixed(1), "factorisation with small bignums, an object for each result"),
    w("espresso", "espresso.c", &[], Fixed(1), "logic minimisation on lists of small cubes"),
    w("glibc-simple", "glibc-bench.c", &["simple"], Fixed(1), "blocks of one size, all allocated and all freed"),
    w("glibc-thread", "glibc-bench.c", &["thread"], All, "random replacement, 4 bytes to 32 KiB"),
    w("larson", "larson.c", &[], Fixed(1), "a server's slots, replaced at random, handed to new threads"),
    w("larson-64", "larson.c", &[], Fixed(64), "the same with 64 servers"),
    w("larson-n", "larson.c", &[], All, "the same with as many servers as processors"),
    w("lru-cache", "lru-cache.cc", &[], Fixed(1), "a bounded cache whose entries drift in size"),
    w("lua-gc", "lua-gc.c", &[], Fixed(1), "an interpreter's heap, marked and swept"),
    w("lua-gc-long", "lua-gc.c", &["long"], Fixed(1), "the same four times as long"),
    w("malloc-large", "malloc-large.c", &[], Fixed(1), "buffers of 4 to 32 MiB that come and go"),
    w("maps", "maps.cc", &[], Fixed(1), "trees and hash tables of records"),
    w("mstress", "mstress.c", &[], All, "objects that change hands between short-lived threads"),
    w("mstress-16", "mstress.c", &[], Fixed(16), "the same with 16 threads at a time"),
    w("realloc-growth", "realloc-growth.c", &[], Fixed(1), "buffers that grow while they are filled"),
    w("rptest-1", "rptest.c", &[], Fixed(1), "blocks of 16 bytes to 64 KiB, every page written"),
    w("rptest-n", "rptest.c", &[], All, "the same, a part of them freed by the neighbour"),
    w("sh6bench", "shbench.c", &[], Fixed(1), "runs of one size, freed in order and in reverse"),
    w("sh6bench-n", "shbench.c", &[], All, "the same in every thread"),
    w("sh8bench-n", "shbench.c", &["foreign"], All, "the same, a part of them freed by the neighbour"),
    w("shuffle", "shuffle.c", &[], Fixed(1), "generations of records, freed at random"),
    w("shuffle-n", "shuffle.c", &[], All, "the same in every thread"),
    w("shuffle-one-n", "shuffle.c", &["one"], All, "the same with records of one size, none of which is left"),
    w("strings", "strings.cc", &[], Fixed(1), "text that is split, changed, joined and sorted"),
    w("thread-churn", "thread-churn.c", &[], All, "very many short threads"),
    w("xmalloc-test-n", "xmalloc-test.c", &[], All, "one side allocates, the other frees"),
];

/// The rows whose names are asked for, their programs compiled.
pub fn rows(places: &Places, patterns: &[String], processors: u32) -> Result<Vec<Row>> {
    let wanted = WORKLOADS.iter().filter(|workload| is_wanted(workload.name, patterns));
    wanted
        .map(|workload| {
            let threads = match workload.threads {
                Fixed(count) => count,
                All => processors.clamp(2, 16),
            };
            Ok(Row {
                section: Section::Preload,
                name: workload.name.to_owned(),
                about: workload.about.to_owned(),
                work: Work::Workload {
                    program: compile(places, workload.source)?,
                    threads,
                    extra: workload.extra.iter().map(|&text| text.to_owned()).collect(),
                },
                limit_s: 300,
            })
        })
        .collect()
}

/// Names and what they are, for `--list`.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    WORKLOADS.iter().map(|workload| (workload.name, workload.about))
}

/// Compiles a workload, unless that was done since its sources changed.
pub fn compile(places: &Places, source: &str) -> Result<PathBuf> {
    let dir = places.benches().join("workloads");
    let (stem, extension) = source.split_once('.').unwrap_or((source, "c"));
    let program = places.scratch("workloads")?.join(stem);
    let mut sources = vec![dir.join(source)];
    sources.extend(["common.h", "mailbox.h", "resident.h"].map(|header| dir.join(header)));
    if is_fresh(&program, &sources) {
        return Ok(program);
    }
    let (compiler, standard) =
        if extension == "cc" { ("c++", "-std=c++17") } else { ("cc", "-std=gnu11") };
    // A pair of malloc and free that the compiler sees in one place must not vanish.
    let flags = ["-O2", "-g0", "-Wall", "-Wextra", "-Werror", "-pthread", "-fno-builtin-malloc"];
    let more = ["-fno-builtin-calloc", "-fno-builtin-realloc", "-fno-builtin-free"];
    put_in_place(&program, |fresh| {
        tool(
            Command::new(compiler)
                .args(flags)
                .args(more)
                .args([standard, "-o"])
                .arg(fresh)
                .arg(&sources[0])
                .arg("-lm"),
        )
        .map(drop)
    })
    .map_err(|reason| format!("{source}: {reason}"))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_their_sources_are_there() {
        let dir = Places::find().unwrap().benches().join("workloads");
        for pair in WORKLOADS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for workload in WORKLOADS {
            assert!(dir.join(workload.source).is_file(), "{}", workload.source);
        }
    }

    #[test]
    fn every_workload_does_the_same_twice() {
        let places = Places::find().unwrap();
        for row in rows(&places, &[], 2).unwrap() {
            let Work::Workload { program, threads, extra } = &row.work else { unreachable!() };
            let run = || {
                let args = [threads.to_string(), "0.01".to_owned()];
                tool(Command::new(program).args(args).args(extra)).unwrap()
            };
            let first = run();
            assert!(first.contains("checksum "), "{}: {first}", row.name);
            assert_eq!(first, run(), "{}", row.name);
        }
    }
}
