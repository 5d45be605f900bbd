//! Statistics: what they say is true, they are written when they should be, and whoever reads the format can read them.
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use facade::{CLASS_FIELDS, TOTAL_FIELDS};
use serde_json::Value;
use support::{bare, compile, passes, plain, preloaded, run, scratch, skipped_on_system, succeeds};

const POOLS: [&str; 4] = ["tiered", "central", "hardened", "guarded"];
const ALL_POOLS: [&str; 5] = ["tiered", "central", "hardened", "guarded", "system"];

/// A program of ours under the library with this configuration beside that of the tests.
fn with_conf(program: impl AsRef<std::ffi::OsStr>, conf: &str) -> Command {
    let mut command = preloaded(program);
    let of_tests = std::env::var("TIERMALLOC_TEST_CONF").unwrap_or_default();
    command.env("TIERMALLOC_CONF", format!("{of_tests},{conf}"));
    command
}

fn in_all_pools(name: &str) {
    if skipped_on_system("figures of our own") {
        return;
    }
    for pool in POOLS {
        succeeds(&mut with_conf(compile(&plain(name)), &format!("pool={pool}")));
    }
}

#[test]
fn every_object_is_counted_once() {
    in_all_pools("stats_exact.c");
}

#[test]
fn what_may_be_resident_is_what_the_kernel_says() {
    in_all_pools("stats_kernel.c");
}

#[test]
fn looking_while_others_allocate_breaks_nothing() {
    in_all_pools("stats_busy.c");
}

#[test]
fn the_document_of_malloc_info_has_it_all() {
    passes("malloc_info.c", &[]);
}

/// Runs stats_when.c; returns what is in the file, one for each process.
fn written(name: &str, conf: &str, how: &str, lines: u32) -> Vec<String> {
    let directory = scratch(&format!("stats/{name}"));
    let file = directory.join("file.%p").display().to_string();
    let program = compile(&plain("stats_when.c"));
    let conf = format!("stats_file={file},{conf}");
    let outcome = run(with_conf(program, &conf).args([&file, how, &lines.to_string()]));
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{}", outcome.report());
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.iter().all(|file| file.extension().is_some_and(|e| e != "tmp")), "{files:?}");
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn at_the_end_to_a_file_in_each_format() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let files = written("text", "stats=exit", "end", 0);
    assert_eq!(files.len(), 1);
    assert!(files[0].starts_with("tiermalloc: the heap of stats_when"), "{}", files[0]);
    let files = written("json", "stats=exit,stats_format=json", "end", 0);
    let object = json(&files[0]);
    assert_eq!((object["reason"].as_str(), files[0].lines().count()), (Some("exit"), 1));
    let class = object["classes"].as_array().unwrap().iter().find(|c| c["size"] == 112).unwrap();
    assert!(class["live_objects"].as_u64().unwrap() >= 1000, "{class}");
    let files = written("metrics", "stats=exit,stats_format=openmetrics", "end", 0);
    open_metrics(&files[0]);
}

#[test]
fn at_a_signal_while_the_program_sleeps() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    for pool in ALL_POOLS {
        let conf = format!("pool={pool},stats=SIGUSR2,stats_format=json");
        let files = written(&format!("signal-{pool}"), &conf, "signal", 3);
        assert_eq!(files.len(), 1);
        for line in files[0].lines() {
            assert_eq!(json(line)["reason"], "signal");
        }
    }
    let files = written("child", "stats=SIGUSR2+exit,stats_format=json", "child", 2);
    assert_eq!(files.len(), 2, "the parent at its end, the child at the signal");
    let metrics = written("signal-metrics", "stats=SIGUSR2,stats_format=openmetrics", "signal", 50);
    open_metrics(&metrics[0]);
}

#[test]
fn at_a_signal_without_a_thread_in_the_background_as_soon_as_something_is_allocated() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let conf = "background=off,stats=SIGUSR2,stats_format=json";
    let files = written("busy", conf, "busy", 2);
    assert_eq!(json(files[0].lines().next().unwrap())["reason"], "signal");
    let conf = "background=off,stats_interval=100ms,stats_format=json";
    let files = written("busy-interval", conf, "alloc", 3);
    assert!(files[0].lines().all(|line| json(line)["reason"] == "interval"));
}

#[test]
fn at_a_signal_to_a_program_that_has_never_allocated() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    for pool in ALL_POOLS {
        let file = scratch(&format!("stats/unasked-{pool}")).join("file");
        let conf = format!("pool={pool},stats=SIGUSR2,stats_file={}", file.display());
        succeeds(with_conf(compile(&plain("stats_unasked.c")), &conf).arg(&file));
        assert!(fs::read_to_string(&file).unwrap().contains("at a signal"), "{pool}");
    }
}

#[test]
fn a_signal_that_the_program_takes_is_the_programs() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    assert!(written("own", "stats=SIGUSR2", "own", 1).is_empty());
}

#[test]
fn every_so_often_while_the_program_sleeps() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    for pool in ALL_POOLS {
        let conf = format!("pool={pool},stats_interval=100ms,stats_format=json");
        let files = written(&format!("interval-{pool}"), &conf, "wait", 4);
        let lines: Vec<Value> = files[0].lines().map(json).collect();
        assert!(lines.iter().all(|line| line["reason"] == "interval"));
        let times: Vec<u64> = lines.iter().map(|l| l["uptime_ms"].as_u64().unwrap()).collect();
        assert!(times.is_sorted() && times[0] >= 80, "{times:?}");
    }
}

/// What a program that closes standard error before it ends, as ls does, says there.
#[test]
fn at_the_end_on_a_standard_error_that_was_closed() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let outcome = run(with_conf("ls", "stats=exit").arg("/"));
    assert!(outcome.status.success(), "{}", outcome.report());
    assert!(outcome.stderr.starts_with("tiermalloc: the heap of ls"), "{}", outcome.report());
    // Not in a file that was given its number.
    let other = scratch("stats/closed").join("other");
    let program = compile(&plain("stats_closed.c"));
    let outcome = run(with_conf(program, "stats=exit").arg(&other));
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{}", outcome.report());
    assert_eq!(fs::read_to_string(other).unwrap(), "");
}

#[test]
fn a_file_that_cannot_be_written_costs_one_line() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let directory = scratch("stats/refused");
    for (file, error) in [(directory.join("no/such"), 2), (directory.clone(), 21)] {
        let conf = format!("stats=exit,stats_file={}", file.display());
        let outcome = run(&mut with_conf("true", &conf));
        assert!(outcome.status.success());
        let expected = format!("cannot be written, error {error}\n");
        assert!(outcome.stderr.ends_with(&expected), "{}", outcome.report());
        assert_eq!(outcome.stderr.lines().count(), 1);
    }
    // What is no regular file is written to, and not replaced.
    let conf = "stats=exit,stats_format=openmetrics,stats_file=/dev/null";
    assert!(run(&mut with_conf("true", conf)).stderr.is_empty());
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let outcome = run(&mut with_conf("true", &conf.replace("null", "stderr")));
    open_metrics(&outcome.stderr);
    // A link stays one.
    let (target, link) = (directory.join("target"), directory.join("link"));
    fs::write(&target, "something else".repeat(10_000)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let conf = format!("stats=exit,stats_format=openmetrics,stats_file={}", link.display());
    succeeds(&mut with_conf("true", &conf));
    open_metrics(&fs::read_to_string(target).unwrap());
    assert!(fs::symlink_metadata(link).unwrap().is_symlink());
    // A pipe that nobody reads does not hold the program up.
    let fifo = directory.join("fifo");
    succeeds(bare("mkfifo").arg(&fifo));
    let outcome = run(&mut with_conf("true", &format!("stats=exit,stats_file={}", fifo.display())));
    assert!(outcome.status.success() && outcome.stderr.lines().count() == 1);
}

#[test]
fn the_files_of_many_programs_at_once_do_not_mix() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let file = scratch("stats/many").join("all");
    let conf = format!("stats=exit,stats_format=json,stats_file={}", file.display());
    let script = "for i in 1 2 3 4 5 6 7 8; do (ls / >/dev/null) & done; wait";
    succeeds(with_conf("sh", &conf).args(["-c", script]));
    let text = fs::read_to_string(file).unwrap();
    assert!(text.lines().map(json).count() >= 8);
}

#[test]
fn the_end_in_the_middle_of_an_allocation_is_written_or_not_but_comes() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    for pool in POOLS {
        let conf = format!("pool={pool},stats=exit,stats_file=/dev/null");
        // Without caches the handler nearly always finds a lock held, and writing waits for that for a while.
        let rounds = if matches!(pool, "central" | "hardened") { "40" } else { "200" };
        succeeds(with_conf(compile(&plain("exit_in_handler.c")), &conf).arg(rounds));
    }
}

#[test]
fn the_header_is_c_and_cxx_and_needs_no_library() {
    let directory = scratch("stats/header");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/header.c");
    for (compiler, language, standard) in [("gcc", "c", "-std=c99"), ("g++", "c++", "-std=c++11")] {
        let program = directory.join(language);
        let result = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-pedantic", "-Werror", "-x", language])
            .args([source.as_os_str(), "-o".as_ref(), program.as_os_str()])
            .output()
            .unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        let outcome = run(bare(&program).arg("without"));
        assert!(outcome.status.success(), "{compiler}: {}", outcome.report());
        if !skipped_on_system("the library's own functions") {
            let outcome = run(preloaded(&program).arg("with"));
            assert!(outcome.status.success(), "{compiler}: {}", outcome.report());
            assert_eq!(json(&outcome.stdout)["reason"], "call");
        }
    }
}

/// The members of a structure of the header, in order.
fn members(header: &str, structure: &str) -> Vec<String> {
    let (_, behind) = header.split_once(&format!("struct {structure} {{")).unwrap();
    let (body, _) = behind.split_once("};").unwrap();
    let names = body.lines().filter_map(|line| line.trim().strip_prefix("uint64_t "));
    names.filter_map(|line| Some(line.split_once(';')?.0.to_owned())).collect()
}

#[test]
fn the_headers_structures_are_the_table_of_figures() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/tiermalloc.h");
    let header = fs::read_to_string(header).unwrap();
    let names: Vec<_> = TOTAL_FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(members(&header, "tiermalloc_stats"), names);
    let mut names = vec!["size", "objects_per_span", "pages_per_span", "batch"];
    names.extend(CLASS_FIELDS.iter().map(|field| field.name));
    assert_eq!(members(&header, "tiermalloc_class_stats"), names);
    for field in
        TOTAL_FIELDS.iter().map(|f| f.meaning).chain(CLASS_FIELDS.iter().map(|f| f.meaning))
    {
        assert!(header.contains(field), "{field}");
    }
}

#[test]
fn the_documentation_has_every_figure() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/statistics.md");
    let page = fs::read_to_string(page).unwrap();
    let totals = TOTAL_FIELDS.iter().map(|f| (f.name, f.meaning));
    for (name, meaning) in totals.chain(CLASS_FIELDS.iter().map(|f| (f.name, f.meaning))) {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
        assert!(page.contains(meaning), "{meaning}");
    }
}

/// What the exit of a program with no time to lose leaves on a pipe that nobody reads any more.
#[test]
fn a_reader_that_is_gone_is_no_reason_to_fail() {
    if skipped_on_system("statistics of our own") {
        return;
    }
    let mut command = with_conf("true", "stats=exit");
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(child.stderr.take());
    // The signal of the broken pipe, or success: it depends on who is first.
    let status = child.wait().unwrap();
    assert!(status.code() == Some(0) || status.code().is_none(), "{status}");
}

/// An object of the documented schema.
#[track_caller]
fn json(line: &str) -> Value {
    let object: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {} bytes", line.len()));
    assert_eq!(
        (object["schema"].as_str(), object["version"].as_u64()),
        (Some("tiermalloc-stats"), Some(1))
    );
    let keys = |object: &Value| -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    };
    let top = ["schema", "version", "library", "program", "process", "unix_ms", "uptime_ms"];
    let top = top.into_iter().chain(["pool", "reason", "totals", "classes", "threads"]);
    assert_eq!(keys(&object), top.map(String::from).collect());
    let names: BTreeSet<String> = TOTAL_FIELDS.iter().map(|field| field.name.to_owned()).collect();
    assert_eq!(keys(&object["totals"]), names);
    let totals = |name: &str| object["totals"][name].as_u64().unwrap();
    assert!(totals("live") <= totals("mapped"));
    assert_eq!(totals("mapped") == 0, object["pool"] == "system");
    for class in object["classes"].as_array().unwrap() {
        let own = ["size", "objects_per_span", "pages_per_span", "batch", "occupancy"];
        let names = CLASS_FIELDS.iter().map(|field| field.name).chain(own);
        assert_eq!(keys(class), names.map(String::from).collect());
        let spans: u64 =
            class["occupancy"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(spans, class["spans"].as_u64().unwrap());
    }
    object
}

/// Checks a text as strictly as the specification is written: families are whole and in one place, with their
/// metadata before their samples, names end as type and unit ask, values are numbers, the end is marked. Returns
/// the samples.
#[track_caller]
fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("\n# EOF\n"), "the end is marked: {}", text.len());
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind, mut unit, mut sampled) = (String::new(), "", "", false);
    let is_name = |name: &str| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let lines: Vec<_> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        if *line == "# EOF" {
            assert_eq!(n + 1, lines.len(), "nothing behind the end");
        } else if let Some(metadata) = line.strip_prefix("# ") {
            let mut words = metadata.splitn(3, ' ');
            let (what, name, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(is_name(name), "{line}");
            if what == "TYPE" {
                assert!(families.insert(name.to_owned()), "{name} comes twice");
                assert!(["counter", "gauge", "info"].contains(&rest), "{line}");
                (family, kind, unit, sampled) = (name.to_owned(), rest, "", false);
                continue;
            }
            assert!(name == family && !sampled, "metadata before samples: {line}");
            match what {
                "UNIT" => {
                    assert!(unit.is_empty() && name.ends_with(&format!("_{rest}")), "{line}");
                    unit = rest;
                }
                "HELP" => assert!(!rest.is_empty() && !rest.contains(['"', '\\'])),
                _ => panic!("{line}"),
            }
        } else {
            sampled = true;
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match sample.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                None => (sample, ""),
            };
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert_eq!(name, format!("{family}{suffix}"), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once('=').unwrap();
                assert!(
                    is_name(key)
                        && value.len() >= 2
                        && value.starts_with('"')
                        && value.ends_with('"')
                );
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0);
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} comes twice");
        }
    }
    for field in &TOTAL_FIELDS {
        assert!(samples.keys().any(|name| name.starts_with(&format!("tiermalloc_{}", field.name))));
    }
    samples
}
