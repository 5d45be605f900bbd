//! `tiermalloc run` becomes the program: everything but `LD_PRELOAD` is as without it.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Dir, LOADED, command, outcome, refused, run, text, tiermalloc};

fn setup() -> Option<(Dir, PathBuf)> {
    let dir = Dir::new();
    let library = dir.library("lib.so")?;
    Some((dir, library))
}

#[test]
fn the_library_is_loaded_and_nothing_is_said() {
    let Some((_dir, library)) = setup() else { return };
    let (stdout, stderr) = outcome(run(&library).args(["--", "echo", "hello"]), 0);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("hello\n", LOADED));
}

#[test]
fn programs_that_the_program_starts_have_the_library_too() {
    let Some((_dir, library)) = setup() else { return };
    let (_, stderr) = outcome(run(&library).args(["sh", "-c", "cd /; (/bin/true); /bin/true"]), 0);
    assert_eq!(stderr, LOADED.repeat(3));
}

#[test]
fn every_exit_status_is_passed_on() {
    let Some((_dir, library)) = setup() else { return };
    for status in [0, 1, 2, 77, 124, 125, 126, 127, 128, 255] {
        outcome(run(&library).args(["sh", "-c", &format!("exit {status}")]), status);
    }
}

#[test]
fn death_by_a_signal_is_passed_on() {
    let Some((_dir, library)) = setup() else { return };
    // Not SIGHUP and SIGINT: whoever runs the tests may ignore those, and the program would inherit it.
    for signal in [6, 9, 11, 13, 15] {
        let status = run(&library)
            .args(["sh", "-c", &format!("ulimit -c 0; kill -{signal} $$")])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(signal), "{status}");
    }
}

#[test]
fn the_program_is_the_same_process_in_the_same_group() {
    let Some((_dir, library)) = setup() else { return };
    let child = run(&library).args(["sh", "-c", "echo $$"]).stdout(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), format!("{id}\n"));
}

/// The output of a shell command in which `$T` stands for nothing and for `tiermalloc run`.
fn both(library: &Path, script: &str) -> (String, String) {
    let outputs = ["", "run"].map(|with| {
        let prefix = match with {
            "" => String::new(),
            _ => format!(
                "{} run --library {} --",
                env!("CARGO_BIN_EXE_tiermalloc"),
                library.display()
            ),
        };
        let mut shell = command("bash");
        outcome(shell.arg("-c").arg(script.replace("$T", &prefix)), 0).0
    });
    let [without, with] = outputs;
    (without, with)
}

#[test]
fn signal_dispositions_are_inherited() {
    let Some((_dir, library)) = setup() else { return };
    if !Path::new("/proc/self/status").exists() || !Path::new("/bin/bash").exists() {
        return;
    }
    let mut seen = Vec::new();
    for trap in ["", "trap '' PIPE;", "trap '' HUP INT PIPE USR1;"] {
        let (without, with) = both(&library, &format!("{trap} $T grep ^Sig /proc/self/status"));
        assert_eq!(without, with, "{trap}");
        assert!(!seen.contains(&with), "the test sees no difference: {with}");
        seen.push(with);
    }
}

#[test]
fn descriptors_are_inherited_closed_ones_too() {
    let Some((_dir, library)) = setup() else { return };
    if !Path::new("/proc/self/fd").exists() || !Path::new("/bin/bash").exists() {
        return;
    }
    let mut seen = Vec::new();
    for redirection in ["", "<&-", "2>&-", "<&- 2>&-", "7</dev/null"] {
        // `ls` opens a descriptor for the directory itself, alike in both.
        let (without, with) = both(&library, &format!("$T ls /proc/self/fd {redirection}"));
        assert_eq!(without, with, "{redirection}");
        seen.push(with);
    }
    assert!(seen[0] != seen[4]);
}

#[test]
fn the_environment_is_inherited_but_for_the_list() {
    let Some((_dir, library)) = setup() else { return };
    let environment = |command: &mut Command| {
        command
            .env("PLAIN", "value")
            .env("EMPTY", "")
            .env("LINES", "a\nb=c")
            .env("BYTES", OsStr::from_bytes(b"\xff\xfe"))
            .env("LD_PRELOAD_NOT", "x")
            .arg("-0");
        let output = command.output().unwrap();
        assert!(output.status.success());
        let mut entries: Vec<_> = output.stdout.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        entries.sort();
        entries
    };
    let mut expected = environment(&mut command("/usr/bin/env"));
    expected.push([b"LD_PRELOAD=", library.as_os_str().as_bytes()].concat());
    expected.sort();
    assert_eq!(environment(run(&library).arg("/usr/bin/env")), expected);
}

#[test]
fn the_list_is_added_to_and_never_twice() {
    let Some((dir, library)) = setup() else { return };
    let Some(other) = dir.library("other.so") else { return };
    let (ours, theirs) = (library.display(), other.display());
    let list = |existing: &str| {
        let mut command = run(&library);
        command.env("LD_PRELOAD", existing).args(["sh", "-c", "echo \"$LD_PRELOAD\""]);
        outcome(&mut command, 0).0
    };
    assert_eq!(list(&theirs.to_string()), format!("{ours}:{theirs}\n"));
    assert_eq!(list(&format!("{theirs} {ours}")), format!("{theirs} {ours}\n"));
    assert_eq!(list(""), format!("{ours}\n"));
    let mut twice = run(&library);
    twice.arg(env!("CARGO_BIN_EXE_tiermalloc")).arg("run").arg("--library").arg(&library);
    assert_eq!(outcome(twice.args(["sh", "-c", "echo $LD_PRELOAD"]), 0).0, format!("{ours}\n"));
}

#[test]
fn the_library_keeps_its_place_when_the_program_changes_directory() {
    let Some((dir, _)) = setup() else { return };
    let mut command = run(Path::new("./lib.so"));
    command.current_dir(dir.path()).args(["sh", "-c", "cd /; /bin/true"]);
    assert_eq!(outcome(&mut command, 0).1, LOADED.repeat(2));
}

#[test]
fn arguments_are_passed_on_as_they_are() {
    let Some((_dir, library)) = setup() else { return };
    let odd = OsStr::from_bytes(b"\xff--");
    let mut command = run(&library);
    command.args(["printf", "<%s>", "", "--", "-v", "--library", "a b", "--help"]).arg(odd);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"<><--><-v><--library><a b><--help><\xff-->");
}

#[test]
fn the_program_is_called_by_the_name_that_was_given() {
    let Some((dir, library)) = setup() else { return };
    let source = "#include <stdio.h>\nint main(int c, char **v) { puts(v[0]); return 0; }\n";
    let Some(program) = dir.compile("name", source, &[]) else { return };
    std::os::unix::fs::symlink(&program, dir.join("link")).unwrap();
    for name in ["name", "link"] {
        let mut command = run(&library);
        assert_eq!(outcome(command.arg(name).env("PATH", dir.path()), 0).0, format!("{name}\n"));
    }
}

#[test]
fn standard_input_is_the_programs() {
    let Some((dir, library)) = setup() else { return };
    fs::write(dir.join("input"), "through and through").unwrap();
    let input = fs::File::open(dir.join("input")).unwrap();
    assert_eq!(outcome(run(&library).arg("cat").stdin(input), 0).0, "through and through");
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let Some((dir, library)) = setup() else { return };
    let script = dir.executable("plain", "echo \"$0 $1\"\n");
    let (stdout, stderr) = outcome(run(&library).arg(&script).arg("x y"), 0);
    assert_eq!((stdout, stderr), (format!("{} x y\n", script.display()), LOADED.to_owned()));
    let empty = dir.executable("empty", "");
    outcome(run(&library).arg(&empty), 0);
}

#[test]
fn a_program_that_is_not_there_is_127() {
    let Some((dir, library)) = setup() else { return };
    refused(run(&library).arg("no-such-program"), 127, &["'no-such-program'", "PATH"]);
    refused(run(&library).arg("./no-such"), 127, &["'./no-such'", "No such file"]);
    refused(run(&library).arg(""), 127, &["no program is named"]);
    std::os::unix::fs::symlink("nowhere", dir.join("dangling")).unwrap();
    refused(run(&library).arg(dir.join("dangling")), 127, &["No such file"]);
}

#[test]
fn a_program_that_cannot_be_run_is_126() {
    let Some((dir, library)) = setup() else { return };
    refused(run(&library).arg(dir.path()), 126, &["it is a directory"]);
    refused(run(&library).arg("/dev/null"), 126, &["not a regular file"]);
    refused(run(&library).arg("/etc/passwd/x"), 126, &["Not a directory"]);
    fs::write(dir.join("data"), "#!/bin/sh\n").unwrap();
    refused(run(&library).arg(dir.join("data")), 126, &["not executable", "chmod +x"]);
    refused(run(&library).arg("data").env("PATH", dir.path()), 126, &["not executable"]);
    let looped = dir.join("loop");
    std::os::unix::fs::symlink(&looped, &looped).unwrap();
    refused(run(&library).arg(looped), 126, &["symbolic links"]);
}

#[test]
fn path_is_searched_as_execvp_does() {
    let Some((dir, library)) = setup() else { return };
    for name in ["first", "second", "third"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    // A directory and a file that may not be executed are passed over.
    fs::create_dir(dir.join("first/tool")).unwrap();
    fs::write(dir.join("second/tool"), "#!/bin/sh\necho second\n").unwrap();
    dir.executable("third/tool", "#!/bin/sh\necho third\n");
    let path = ["first", "missing", "second", "third"].map(|name| dir.join(name));
    let path = std::env::join_paths(path).unwrap();
    assert_eq!(outcome(run(&library).arg("tool").env("PATH", &path), 0).0, "third\n");
    let second = dir.join("second/tool");
    fs::set_permissions(second, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(outcome(run(&library).arg("tool").env("PATH", &path), 0).0, "second\n");
    // An empty element is the current directory, and no PATH at all is the system's.
    let mut command = run(&library);
    command.arg("tool").env("PATH", "/nonexistent:").current_dir(dir.join("third"));
    assert_eq!(outcome(&mut command, 0).0, "third\n");
    outcome(run(&library).arg("true").env_remove("PATH"), 0);
}

#[test]
fn verbose_says_what_is_done() {
    let Some((_dir, library)) = setup() else { return };
    let (stdout, stderr) = outcome(run(&library).args(["-v", "echo", "x"]), 0);
    assert_eq!(stdout, "x\n");
    assert!(stderr.contains("/echo"), "{stderr}");
    assert!(stderr.contains(&format!("LD_PRELOAD={}", library.display())), "{stderr}");
}

#[test]
fn bad_usage_of_run_is_125() {
    for words in [&["run"][..], &["run", "--"], &["run", "--libary", "x", "true"]] {
        let (_, stderr) = outcome(tiermalloc().args(words), 125);
        assert!(stderr.contains("Usage: tiermalloc run"), "{stderr}");
    }
}
