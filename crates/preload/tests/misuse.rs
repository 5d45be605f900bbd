//! Misuse: each bug of a program ends in what `docs/misuse.md` says, in each pool. The table there is what these
//! tests read: a row for each bug, a column for each pool.
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;

use support::{Outcome, compile, passes, plain, preloaded, run, skipped_on_system};

const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

const TABLE: &str = include_str!("../../../docs/misuse.md");
/// The columns behind that of the bug and that of its description.
const POOLS: &[&str] = &["tiered", "central", "hardened", "guarded"];

struct Row {
    bug: &'static str,
    about: &'static str,
    ends: Vec<&'static str>,
}

/// The rows of the section headed by the name of a program.
fn rows(program: &str) -> Vec<Row> {
    let heading = format!("## `{program}`");
    let section =
        TABLE.split_once(&heading).unwrap_or_else(|| panic!("no {heading} in docs/misuse.md")).1;
    let section = section.split("\n## ").next().unwrap_or(section);
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
            assert_eq!(cells.len(), 2 + POOLS.len(), "docs/misuse.md: {line}");
            let mut ends = cells[2..].to_vec();
            for column in 1..ends.len() {
                if ends[column] == "the same" {
                    ends[column] = ends[column - 1];
                }
            }
            Row { bug: cells[0].trim_end_matches('`'), about: cells[1], ends }
        })
        .collect()
}

/// What became of a run, in the words of the table.
fn end_of(outcome: &Outcome) -> String {
    let mut said = outcome.stdout.lines();
    let pointer = said.next().unwrap_or_default();
    let when = match (said.next(), said.next()) {
        (None, _) => "at once",
        (Some("past"), None) => "later",
        (Some("past"), Some("survived")) => "at the end",
        _ => return format!("a mess: {}", outcome.report()),
    };
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    match (outcome.status.signal(), lines.as_slice()) {
        (None, []) if outcome.status.success() && when == "at the end" => "not seen".into(),
        (Some(SIGSEGV), []) => format!("{when}: SIGSEGV"),
        // One whole line, which says who speaks and what about which pointer.
        (Some(SIGABRT), [line])
            if outcome.stderr.ends_with('\n') && line.starts_with("tiermalloc: ") =>
        {
            format!("{when}: `{}`", line["tiermalloc: ".len()..].replace(pointer, "P"))
        }
        _ => format!("a mess: {}", outcome.report()),
    }
}

/// Whether an end is that of the table, in which `?` stands for any address.
fn agree(table: &str, end: &str) -> bool {
    match table.split_once('?') {
        None => table == end,
        Some((before, behind)) => end
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(behind))
            .is_some_and(|address| address.starts_with("0x")),
    }
}

fn as_in_the_table(program: &str) {
    if skipped_on_system("messages of our own") {
        return;
    }
    let binary = compile(&plain(program));
    let rows = rows(program);
    let listed = run(preloaded(&binary).arg("--list")).stdout;
    let bugs: BTreeSet<&str> = listed.lines().collect();
    let described: BTreeSet<&str> = rows.iter().map(|row| row.bug).collect();
    let mut wrong = String::new();
    for bug in bugs.symmetric_difference(&described) {
        let _ = writeln!(wrong, "in the table or in the program only: {bug}");
    }
    for row in rows.iter().filter(|row| bugs.contains(row.bug)) {
        let ends: Vec<String> = POOLS
            .iter()
            .map(|pool| {
                let conf = format!("pool={pool}");
                end_of(&run(preloaded(&binary).arg(row.bug).env("TIERMALLOC_CONF", conf)))
            })
            .collect();
        if !ends.iter().zip(&row.ends).all(|(end, table)| agree(table, end)) {
            let _ = writeln!(wrong, "| `{}` | {} | {} |", row.bug, row.about, ends.join(" | "));
        }
    }
    assert!(wrong.is_empty(), "docs/misuse.md, {program}: this happens instead:\n{wrong}");
}

#[test]
fn frees_of_what_is_no_allocation_end_as_the_table_says() {
    as_in_the_table("misuse.c");
}

#[test]
fn mistakes_with_objects_end_as_the_table_says() {
    as_in_the_table("misuse_objects.c");
}

#[test]
fn frees_with_a_wrong_size_end_as_the_table_says() {
    as_in_the_table("misuse_sized.cc");
}

#[test]
fn deletes_of_what_new_never_gave_end_as_the_table_says() {
    as_in_the_table("misuse_new.cc");
}

/// A wrong size may be refused, in one line, or forgiven; blocks that share memory are neither.
fn never_corrupts(how: &str) {
    if skipped_on_system("a sized delete that looks at the size") {
        return passes("wrong_size.cc", &[how]);
    }
    let outcome = run(preloaded(compile(&plain("wrong_size.cc"))).arg(how));
    let forgiven = outcome.status.success() && outcome.stderr.is_empty();
    let refused = outcome.status.signal() == Some(SIGABRT)
        && outcome.stderr.starts_with("tiermalloc: ")
        && outcome.stderr.lines().count() == 1;
    assert!(forgiven || refused, "{how}: {}", outcome.report());
}

#[test]
fn delete_with_half_the_size_never_corrupts() {
    never_corrupts("smaller");
}

#[test]
fn delete_with_twice_the_size_never_corrupts() {
    never_corrupts("bigger");
}

#[test]
fn delete_with_no_size_never_corrupts() {
    never_corrupts("zero");
}

#[test]
fn delete_of_a_small_object_as_a_large_one_never_corrupts() {
    never_corrupts("much-bigger");
}

#[test]
fn delete_with_a_boundary_that_new_did_not_have_never_corrupts() {
    never_corrupts("aligned");
}
