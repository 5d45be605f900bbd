//! `tiermalloc classes` prints what the allocator uses, all of it, in every format.

mod common;

use std::fmt::Write;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use common::{command, outcome, text, tiermalloc};
use tiermalloc_size_class::{CLASSES, Class, PAGE_SIZE, by_size};

/// Bytes and percent of a span that no object covers, reckoned here anew.
fn waste(class: Class) -> (usize, String) {
    let span = class.pages() * PAGE_SIZE;
    let waste = span - class.objects() * class.size();
    (waste, format!("{:.2}", 100.0 * waste as f64 / span as f64))
}

#[test]
fn csv_is_exact() {
    let mut expected = String::from("id,size,pages,objects,waste_bytes,waste_percent,batch\n");
    for c in by_size() {
        let (bytes, percent) = waste(c);
        let (id, size, pages, objects, batch) =
            (c.id(), c.size(), c.pages(), c.objects(), c.batch());
        writeln!(expected, "{id},{size},{pages},{objects},{bytes},{percent},{batch}").unwrap();
    }
    let (stdout, stderr) = outcome(tiermalloc().args(["classes", "--format", "csv"]), 0);
    assert_eq!((stdout, stderr), (expected, String::new()));
}

#[test]
fn the_table_has_every_class_once_in_order_of_size_and_a_legend() {
    let (stdout, stderr) = outcome(tiermalloc().arg("classes"), 0);
    assert_eq!(stderr, "");
    let (table, legend) = stdout.split_once("\n\n").unwrap();
    let mut rows = table.lines();
    let names: Vec<_> = rows.next().unwrap().split_whitespace().collect();
    assert_eq!(names, ["id", "size", "pages", "objects", "waste", "waste%", "batch"]);
    let mut classes = by_size();
    let mut last = 0;
    for row in rows.by_ref() {
        let class = classes.next().unwrap();
        let (bytes, percent) = waste(class);
        let numbers = [class.id(), class.size(), class.pages(), class.objects(), bytes];
        let mut expected: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        expected.extend([percent, class.batch().to_string()]);
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), expected);
        assert!(class.size() > last);
        last = class.size();
    }
    assert_eq!((classes.next(), table.lines().count()), (None, CLASSES + 1));
    let width = table.lines().map(str::len).max();
    assert!(table.lines().all(|line| Some(line.len()) == width), "columns are not aligned");
    for word in ["208", "8192", "262272", "size", "pages", "objects", "waste", "batch"] {
        assert!(legend.contains(word), "no '{word}' in: {legend}");
    }
    let (same, _) = outcome(tiermalloc().args(["classes", "--format=table"]), 0);
    assert_eq!(same, stdout);
}

#[test]
fn json_has_the_same_numbers() {
    let (csv, _) = outcome(tiermalloc().args(["classes", "--format", "csv"]), 0);
    let (json, _) = outcome(tiermalloc().args(["classes", "--format", "json"]), 0);
    let mut lines = csv.lines();
    let names: Vec<_> = lines.next().unwrap().split(',').collect();
    let objects: Vec<_> = lines
        .map(|line| {
            let members: Vec<_> =
                names.iter().zip(line.split(',')).map(|(n, v)| format!("\"{n}\": {v}")).collect();
            format!("{{{}}}", members.join(", "))
        })
        .collect();
    let expected = format!(
        "{{\n  \"page_bytes\": 8192,\n  \"max_size\": 262272,\n  \"classes\": [\n    {}\n  ]\n}}\n",
        objects.join(",\n    ")
    );
    assert_eq!(json, expected);
}

#[test]
fn json_is_json() {
    let script = "import json, subprocess, sys\n\
                  d = json.loads(subprocess.check_output([sys.argv[1], 'classes', '--format', 'json']))\n\
                  assert len(d['classes']) == 208 and d['classes'][0]['size'] == 8, d";
    let mut python = command("python3");
    python.args(["-c", script, env!("CARGO_BIN_EXE_tiermalloc")]);
    match python.output() {
        Ok(output) => assert!(output.status.success(), "{}", text(&output.stderr)),
        Err(error) => eprintln!("skipped: python3: {error}"),
    }
}

/// A standard output that nobody reads.
fn closed() -> Stdio {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    OwnedFd::from(ours).into()
}

#[test]
fn a_closed_pipe_is_no_reason_to_say_anything() {
    for words in [&["classes"][..], &["classes", "--format", "json"], &["man"], &["--help"]] {
        let output = tiermalloc().args(words).stdout(closed()).output().unwrap();
        assert_eq!(text(&output.stderr), "");
        // Like any other tool: `head` has what it wants, and SIGPIPE ends the rest.
        assert_eq!(output.status.signal(), Some(13), "{words:?}: {}", output.status);

        let mut shell = command("sh");
        shell.args(["-c", "trap '' PIPE; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tiermalloc")]);
        let output = shell.args(words).stdout(closed()).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
}

#[test]
fn a_full_disk_is_told() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else { return };
    let (_, stderr) = outcome(tiermalloc().arg("classes").stdout(full), 1);
    assert!(stderr.contains("cannot write"), "{stderr}");
}
