//! `tiermalloc stats`: what a program has written, shown, compared and drawn.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Dir, outcome, tiermalloc};

/// A line as the library writes it; `n` scales all of it.
fn line(process: u32, n: u64) -> String {
    format!(
        "{{\"schema\":\"tiermalloc-stats\",\"version\":1,\"program\":\"server\",\"process\":{process},\
         \"uptime_ms\":{},\"pool\":\"tiered\",\"reason\":\"interval\",\"totals\":{{\"live\":{},\
         \"live_objects\":{n},\"free_dirty\":{},\"mapped\":{}}},\"classes\":[{{\"size\":64,\
         \"live_objects\":{n},\"spans\":{n},\"in_spans\":{}}}],\"threads\":[]}}\n",
        n * 1000,
        n * 64,
        n << 13,
        n << 20,
        n << 13
    )
}

fn file(dir: &Dir, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn shown(arguments: &[&Path]) -> String {
    let (text, stderr) = outcome(tiermalloc().arg("stats").args(arguments), 0);
    assert_eq!(stderr, "");
    text
}

#[test]
fn the_last_of_a_file_is_shown() {
    let dir = Dir::new();
    let heap = file(&dir, "heap", &(line(7, 1) + &line(7, 20) + &line(8, 300)));
    let text = shown(&[&heap]);
    assert!(text.starts_with("server, process 8, after 300.0 s, pool tiered, every so often\n"));
    assert!(text.contains("18.8 KiB") && text.contains("300 MiB"), "{text}");
    // What is being written at this moment is passed over.
    let cut = file(&dir, "cut", &(line(7, 1) + line(7, 20).trim_end().trim_end_matches('}')));
    assert!(shown(&[&cut]).starts_with("server, process 7, after 1.0 s"));
}

#[test]
fn many_files_are_shown_one_after_the_other() {
    let dir = Dir::new();
    let files: Vec<PathBuf> =
        (1..4).map(|n| file(&dir, &format!("heap.{n}"), &line(n, 10))).collect();
    let text = shown(&[&files[0], &files[1], &files[2]]);
    for n in 1..4 {
        assert!(text.contains(&format!("server, process {n}, after")), "{text}");
    }
    let (_, stderr) =
        outcome(tiermalloc().arg("stats").args(&files).arg("--svg").arg(dir.join("x.svg")), 2);
    assert!(stderr.contains("--svg draws"), "{stderr}");
}

#[test]
fn moments_of_one_process_or_of_two_files_are_compared() {
    let dir = Dir::new();
    let heap = file(&dir, "heap", &(line(6, 9) + &line(7, 1) + &line(7, 20)));
    let text = shown(&[Path::new("--compare"), &heap]);
    assert!(text.contains("before: server, process 7, after 1.0 s"), "{text}");
    assert!(text.contains("after:  server, process 7, after 20.0 s"), "{text}");
    assert!(text.contains("+19.0 MiB") && text.contains("+19\n"), "{text}");
    let other = file(&dir, "other", &line(9, 10));
    let text = shown(&[&heap, &other]);
    assert!(text.contains("before: server, process 7, after 20.0 s"), "{text}");
    assert!(text.contains("-10.0 MiB"), "{text}");
}

#[test]
fn a_drawing_is_one_of_svg() {
    let dir = Dir::new();
    let heap = file(&dir, "heap", &(line(7, 1) + &line(7, 20)));
    let svg = dir.join("heap.svg");
    shown(&[Path::new("--compare"), Path::new("--svg"), &svg, &heap]);
    let text = fs::read_to_string(svg).unwrap();
    assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"), "{text}");
    for word in ["Bytes per tier", "Bytes per size class", "in use", "red marks", "KiB"] {
        assert!(text.contains(word), "{word}");
    }
    let (_, stderr) = outcome(tiermalloc().args(["stats", "--svg", "/no/such/x"]).arg(&heap), 1);
    assert!(stderr.contains("/no/such/x: No such file"), "{stderr}");
}

#[test]
fn standard_input_is_a_file_too() {
    let mut child = tiermalloc()
        .args(["stats", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(line(3, 3).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"server, process 3"));
}

#[test]
fn what_is_no_statistics_is_refused_with_its_line() {
    let dir = Dir::new();
    for (name, text, word) in [
        ("empty", String::new(), "no statistics in it"),
        ("text", "tiermalloc: the heap of ls\n".to_owned(), "no statistics in it"),
        (
            "later",
            line(7, 1) + "{\"schema\":\"tiermalloc-stats\",\n",
            "line 2: not what tiermalloc writes",
        ),
        ("other", "{\"schema\":\"x\"}\n".to_owned(), "no statistics in it"),
        ("cut", "{\"schema\":\"tiermalloc-st".to_owned(), "no statistics in it"),
        ("newer", line(7, 1).replace("\"version\":1", "\"version\":2"), "version 2"),
    ] {
        let path = file(&dir, name, &text);
        let (stdout, stderr) = outcome(tiermalloc().arg("stats").arg(&path), 1);
        assert_eq!(stdout, "");
        assert!(stderr.starts_with("tiermalloc: ") && stderr.contains(word), "{stderr}");
    }
    let (_, stderr) = outcome(tiermalloc().args(["stats", "/no/such"]), 1);
    assert!(stderr.contains("/no/such: No such file"), "{stderr}");
    outcome(tiermalloc().arg("stats"), 2);
}
