//! `tiermalloc config`, and the options of `tiermalloc run` that configure: what is shown is what a program gets.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Dir, outcome, run, skip, text, tiermalloc};

/// `tiermalloc` in an environment that says nothing about configuration.
fn bare() -> Command {
    let mut command = tiermalloc();
    command.env_remove("TIERMALLOC_CONF").env_remove("TIERMALLOC_CONF_FILE");
    command
}

/// Value and source of a key in a configuration that was printed.
#[track_caller]
fn value<'a>(printed: &'a str, key: &str) -> (&'a str, &'a str) {
    let line = printed.lines().find(|line| line.split(' ').next() == Some(key));
    let line = line.unwrap_or_else(|| panic!("no {key} in: {printed}"));
    let (setting, source) = line.rsplit_once("  # ").expect("a source");
    (setting.split_once(" = ").expect("a value").1.trim(), source)
}

/// Whether this machine has a configuration of its own, which tests here would meet.
fn machine_is_configured() -> bool {
    let configured = Path::new("/etc/tiermalloc.conf").exists();
    if configured {
        skip::<()>("there is an /etc/tiermalloc.conf");
    }
    configured
}

#[test]
fn every_source_is_shown_and_the_later_one_wins() {
    if machine_is_configured() {
        return;
    }
    let dir = Dir::new();
    let file = dir.join("a.conf");
    fs::write(
        &file,
        "pool = central\nthp = never\n[true]\nzero_on_free = true\nquarantine = 1MiB\n",
    )
    .unwrap();
    let mut command = bare();
    command.args([
        "config",
        "--conf",
        "quarantine=2MiB",
        "--conf=stats=exit,thp=advise",
        "true",
        "-x",
    ]);
    command
        .env("TIERMALLOC_CONF_FILE", &file)
        .env("TIERMALLOC_CONF", "thp=system,background=off,quarantine=3MiB");
    let (printed, stderr) = outcome(&mut command, 0);
    assert_eq!(stderr, "");
    let file = file.to_str().unwrap();
    for (key, shown, source) in [
        ("pool", "\"central\"", &*format!("{file}:1")),
        ("thp", "\"advise\"", "command line"),
        ("zero_on_free", "true", &*format!("{file}:4")),
        ("quarantine", "\"2MiB\"", "command line"),
        ("stats", "\"exit\"", "command line"),
        ("background", "\"off\"", "TIERMALLOC_CONF"),
        ("release_delay", "\"500ms\"", "built in"),
    ] {
        assert_eq!(value(&printed, key), (shown, source), "{key}");
    }
    // Without the program its section is another's.
    let (printed, _) = outcome(bare().args(["config", "--conf-file", file]), 0);
    assert_eq!(value(&printed, "zero_on_free"), ("false", "built in"));
    // What is printed is a configuration file.
    let again = dir.join("again.conf");
    fs::write(&again, &printed).unwrap();
    let (from_file, stderr) = outcome(bare().args(["config", "--conf-file"]).arg(&again), 0);
    assert_eq!(stderr, "");
    for line in printed.lines() {
        let key = line.split(' ').next().unwrap();
        assert_eq!(value(&from_file, key).0, value(&printed, key).0);
    }
}

#[test]
fn json_says_the_same() {
    let mut command = bare();
    command.args([
        "config",
        "--format",
        "json",
        "--pool",
        "central",
        "--conf",
        "stats_file=/tmp/\"a\"\\b",
    ]);
    let (json, _) = outcome(&mut command, 0);
    for part in [
        "\"program\": \"\"",
        "{\"key\": \"pool\", \"value\": \"central\", \"source\": \"command line\"}",
        "{\"key\": \"stats_file\", \"value\": \"/tmp/\\\"a\\\"\\\\b\", \"source\": \"command line\"}",
        "{\"key\": \"zero_on_free\", \"value\": false,",
    ] {
        assert!(json.contains(part), "no {part} in: {json}");
    }
    let (list, _) = outcome(bare().args(["config", "--list", "--format", "json"]), 0);
    for json in [json, list] {
        let dir = Dir::new();
        fs::write(dir.join("x.json"), json).unwrap();
        let parsed =
            Command::new("python3").args(["-m", "json.tool"]).arg(dir.join("x.json")).output();
        let Ok(parsed) = parsed else { return skip::<()>("no python3").unwrap_or_default() };
        assert!(parsed.status.success(), "{}", text(&parsed.stderr));
    }
}

#[test]
fn mistakes_are_told_as_the_allocator_tells_them_and_are_status_1() {
    let dir = Dir::new();
    let file = dir.join("a.conf");
    fs::write(&file, "pol = central\n[other]\nnonsense\n").unwrap();
    let mut command = bare();
    command.args(["config", "--conf-file"]).arg(&file).env("TIERMALLOC_CONF", "x");
    let (printed, stderr) = outcome(&mut command, 1);
    assert_eq!(printed.lines().count(), 18);
    let name = file.to_str().unwrap();
    assert_eq!(
        stderr,
        format!(
            "tiermalloc: {name}:1: pol=central: there is no such key; it is ignored; perhaps pool is meant\n\
             tiermalloc: TIERMALLOC_CONF: x: not of the form key=value; it is ignored\n\
             tiermalloc: 2 mistakes in the configuration\n"
        )
    );
    for (words, said) in [
        (
            &["--conf-file", "/nowhere/x"][..],
            "/nowhere/x: cannot be read (no such file); it is ignored",
        ),
        (&["--conf-file", "/dev/zero"], "/dev/zero: not a regular file; it is ignored"),
        (&["--conf", "pol=1"], "pol=1: there is no such key; perhaps pool is meant"),
        (&["--pool", "fast"], "pool=fast: not one of tiered"),
        (&["/nowhere/x"], "cannot run '/nowhere/x'"),
    ] {
        let (_, stderr) = outcome(bare().arg("config").args(words), 1);
        assert!(stderr.contains(said), "{stderr}");
    }
    for words in [
        &["--format", "markdown"][..],
        &["--list", "--pool", "x"],
        &["--list", "true"],
        &["--conf"],
    ] {
        outcome(bare().arg("config").args(words), 2);
    }
}

#[test]
fn a_set_user_id_program_hears_nobody_but_the_machines_owner() {
    if machine_is_configured() {
        return;
    }
    let dir = Dir::new();
    let program = dir.executable("program", fs::read("/bin/true").unwrap());
    if Command::new("chown")
        .arg("65534")
        .arg(&program)
        .status()
        .is_ok_and(|status| !status.success())
    {
        return skip::<()>("only root can give files away").unwrap_or_default();
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let mut command = bare();
    command.arg("config").arg(&program).env("TIERMALLOC_CONF", "pool=central,nonsense");
    let (printed, stderr) = outcome(&mut command, 0);
    if !stderr.contains("set-user-ID") {
        return skip::<()>("set-user-ID does not count here").unwrap_or_default();
    }
    assert_eq!(value(&printed, "pool").1, "built in");
}

#[test]
fn a_script_goes_by_its_own_name_and_a_text_by_the_shells() {
    let dir = Dir::new();
    let file = dir.join("a.conf");
    fs::write(
        &file,
        "[script]\nquarantine = 1MiB\n[sh]\nquarantine = 2MiB\n[text]\nquarantine = 3MiB\n",
    )
    .unwrap();
    for (name, content, quarantine) in
        [("script", "#!/bin/sh\n", "\"1MiB\""), ("text", "exit 0\n", "\"2MiB\"")]
    {
        let program = dir.executable(name, content);
        let (printed, _) =
            outcome(bare().args(["config", "--conf-file"]).arg(&file).arg(program), 0);
        assert_eq!(value(&printed, "quarantine").0, quarantine, "{name}");
    }
}

#[test]
fn run_sets_the_variables_behind_what_is_there() {
    let dir = Dir::new();
    let Some(library) = dir.library("lib.so") else { return };
    let file = dir.join("a.conf");
    fs::write(&file, "pool = central\n").unwrap();
    let shown = |command: &mut Command| {
        let (stdout, _) = outcome(command, 0);
        let line = |name: &str| {
            stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("-").to_owned()
        };
        (line("TIERMALLOC_CONF="), line("TIERMALLOC_CONF_FILE="))
    };
    let command = || {
        let mut command = run(&library);
        command.env_remove("TIERMALLOC_CONF").env_remove("TIERMALLOC_CONF_FILE");
        command
    };
    assert_eq!(shown(command().arg("env")), ("-".to_owned(), "-".to_owned()));
    let mut some = command();
    some.args(["--pool", "central", "--conf", "thp=never", "--conf", "a=1"]).arg("env");
    let (_, stderr) = outcome(&mut some, 125);
    assert_eq!(stderr, "tiermalloc: a=1: there is no such key\n", "nothing is run");
    let mut some = command();
    some.args(["--pool", "central", "--conf", "thp=never", "--conf-file", "a.conf", "env"]);
    let all = shown(some.env("TIERMALLOC_CONF", "pool=hardened").current_dir(dir.path()));
    assert_eq!(
        all,
        ("pool=hardened,pool=central,thp=never".to_owned(), file.to_str().unwrap().to_owned())
    );
    for path in ["missing", "."] {
        let (stdout, stderr) =
            outcome(command().args(["--conf-file", path, "echo"]).current_dir(dir.path()), 125);
        assert!(
            stdout.is_empty() && stderr.contains(&format!("cannot read '{path}': ")),
            "{stderr}"
        );
    }
}

/// What `config` shows is what the library that is built beside this program does.
#[test]
fn what_is_shown_is_what_the_program_itself_prints() {
    let Some(library) = built_library() else { return };
    let dir = Dir::new();
    let file = dir.join("a.conf");
    fs::write(&file, "pool = central\nconfig = print\n[true]\nquarantine = '16MiB'\nnonsense\n")
        .unwrap();
    let settings = ["--conf", "thp=never", "--conf-file"];
    let mut would = bare();
    would.arg("config").args(settings).arg(&file).args(["--", "true"]);
    let (expected, _) = outcome(&mut would, 1);
    let mut runs = run(&library);
    runs.env_remove("TIERMALLOC_CONF").args(settings).arg(&file).args(["--", "true"]);
    let (_, printed) = outcome(&mut runs, 0);
    let printed: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("tiermalloc: "))
        .filter(|line| line.contains(" = "))
        .collect();
    assert_eq!(printed.len(), expected.lines().count(), "{printed:?}");
    for line in printed {
        let (setting, source) = line.rsplit_once("  # ").unwrap();
        let (key, shown) = setting.split_once(" = ").unwrap();
        let (would, from) = value(&expected, key);
        let from = from.replace("command line", "TIERMALLOC_CONF");
        assert_eq!((shown, source), (would, &*from), "{key}");
    }
}

/// The library in the same target directory, if it has been built.
fn built_library() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_BIN_EXE_tiermalloc"));
    let target = program.parent()?.parent()?;
    let library = target.join("release/libtiermalloc.so");
    if library.exists() {
        Some(library)
    } else {
        skip("the library is not built (cargo build --release)")
    }
}

/// Other people's readers of TOML take what is printed, and what the document shows.
#[test]
fn what_is_printed_and_what_the_document_shows_is_toml() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let document = fs::read_to_string(document).unwrap();
    let example = document.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```"));
    let (example, _) = example.expect("an example of a file");
    let mut command = bare();
    command.args(["config", "--conf", "stats_file=/tmp/\"a\"\\b,stats=exit+SIGUSR2"]);
    let (printed, _) = outcome(&mut command, 0);
    let dir = Dir::new();
    for file in [example, &printed] {
        fs::write(dir.join("x.toml"), file).unwrap();
        let program = "import sys, tomllib; print(tomllib.load(open(sys.argv[1], 'rb')))";
        let read = Command::new("python3").args(["-c", program]).arg(dir.join("x.toml")).output();
        let Ok(read) = read else { return skip::<()>("no python3").unwrap_or_default() };
        let said = text(&read.stderr);
        if said.contains("ModuleNotFoundError") {
            return skip::<()>("this python3 reads no TOML").unwrap_or_default();
        }
        assert!(read.status.success(), "{said}\n{file}");
        // And we read it as well.
        let (_, stderr) =
            outcome(bare().args(["config", "--conf-file"]).arg(dir.join("x.toml")), 0);
        assert_eq!(stderr, "");
    }
}

/// The manual's table is made from the one that drives the parser.
#[test]
fn the_documents_table_is_the_programs() {
    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the mark before the table");
    let (table, behind) = rest.split_once(END).expect("the mark behind it");
    let (current, _) = outcome(bare().args(["config", "--list", "--format", "markdown"]), 0);
    if table == current {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, [before, BEGIN, &current, END, behind].concat()).unwrap();
        return;
    }
    panic!(
        "docs/configuration.md is behind; UPDATE=1 cargo test -p tiermalloc-cli --test config renews it"
    );
}

#[test]
fn the_list_has_all_that_there_is_to_know() {
    let (list, stderr) = outcome(bare().args(["config", "--list"]), 0);
    assert_eq!(stderr, "");
    for part in [
        "\nquarantine\n",
        "size in B, KiB",
        "default 4MiB",
        "0B to 1GiB",
        "tiered, central",
        "10ms to 1h",
    ] {
        assert!(list.contains(part), "no {part} in: {list}");
    }
    assert!(list.lines().all(|line| line.len() <= 79), "{list}");
}
