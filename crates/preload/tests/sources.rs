//! Where configuration comes from, in real programs: each source, which one wins, for whom, and what becomes of
//! files that are none.
mod support;

#[path = "../../tiermalloc/tests/support/malformed.rs"]
mod malformed;

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::places::{open_to_all, with_etc};
use support::{
    Source, bare, compile, plugin, preloaded, run, scratch, shared_object, skipped_on_system,
    static_archive, target_directory, workspace,
};

unsafe extern "C" {
    fn mkfifo(path: *const std::ffi::c_char, mode: u32) -> i32;
    safe fn geteuid() -> u32;
}

/// Somebody who is not the owner of anything here.
const NOBODY: u32 = 65534;

/// A program that allocates and says "done".
fn program() -> PathBuf {
    compile(&Source { name: "own_conf.c", flags: &[], variant: "" })
}

/// What a program says on stderr while it does what it should.
#[track_caller]
fn said(command: &mut Command) -> String {
    let outcome = run(command);
    assert!(
        outcome.status.success() && outcome.stdout == "done\n",
        "{command:?}: {}",
        outcome.report()
    );
    outcome.stderr
}

/// What `config=print` in the configuration of a program makes it say: for each key its value, and where that came
/// from.
#[track_caller]
fn printed(command: &mut Command) -> HashMap<String, (String, String)> {
    let said = said(command);
    let line = |line: &str| {
        let (key, rest) = line.strip_prefix("tiermalloc: ")?.split_once(" = ")?;
        let (value, place) = rest.rsplit_once("  # ")?;
        Some((key.to_owned(), (value.to_owned(), place.to_owned())))
    };
    said.lines().map(|text| line(text).unwrap_or_else(|| panic!("{said}"))).collect()
}

#[track_caller]
fn expect(printed: &HashMap<String, (String, String)>, expected: &[(&str, &str, &str)]) {
    for (key, value, place) in expected {
        let (got, from) = printed.get(*key).unwrap_or_else(|| panic!("{key}: {printed:?}"));
        assert_eq!((got.as_str(), from.as_str()), (*value, *place), "{key}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The program with a file of that text.
fn with_file(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> Command {
    let file = directory.join(name);
    fs::write(&file, content).expect("a file");
    let mut command = preloaded(program());
    command.env_remove("TIERMALLOC_CONF").env("TIERMALLOC_CONF_FILE", file);
    command
}

#[test]
fn every_key_is_printed_with_its_source() {
    if skipped_on_system("a configuration") {
        return;
    }
    let directory = scratch("sources-printed");
    let mut command = with_file(
        &directory,
        "a.conf",
        "# both\npool = \"central\"\nquarantine = 1MiB\nthp = never\n[own_conf_c]\nconfig = print\nquarantine = 2MiB\n",
    );
    let file = text(&directory.join("a.conf")).to_owned();
    let printed = printed(command.env("TIERMALLOC_CONF", "thp=advise"));
    assert_eq!(printed.len(), tiermalloc_keys());
    let at = |line: u32| {
        let name =
            if file.len() > 80 { format!("...{}", &file[file.len() - 77..]) } else { file.clone() };
        format!("{name}:{line}")
    };
    expect(
        &printed,
        &[
            ("pool", "\"central\"", &at(2)),
            ("quarantine", "\"2MiB\"", &at(7)),
            ("config", "\"print\"", &at(6)),
            ("thp", "\"advise\"", "TIERMALLOC_CONF"),
            ("zero_on_free", "false", "built in"),
        ],
    );
}

/// How many keys there are: this crate's tests do not link the facade.
fn tiermalloc_keys() -> usize {
    let table = workspace().join("crates/tiermalloc/src/config/table.rs");
    let table = fs::read_to_string(table).expect("the table");
    let behind = table.split_once("KEYS: [Key; ").expect("its length").1;
    behind.split(']').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn sections_go_by_the_name_that_a_program_is_started_under() {
    if skipped_on_system("a configuration") {
        return;
    }
    let directory = scratch("sources-sections");
    let content = "config = print\npool = tiered\n[own_conf_c]\npool = central\n[\"a link\"]\npool = hardened\n\
                   [script.sh]\nquarantine = 5MiB\n[sh]\nquarantine = 6MiB\n[env]\nquarantine = 6MiB\n";
    fs::write(directory.join("c"), content).expect("a file");
    let pool = |path: &Path, key: &str| {
        let mut command = preloaded(path);
        command.env_remove("TIERMALLOC_CONF").env("TIERMALLOC_CONF_FILE", directory.join("c"));
        command.arg0("something else");
        let outcome = run(&mut command);
        assert!(outcome.status.success(), "{}", outcome.report());
        let start = format!("tiermalloc: {key} = ");
        let line =
            outcome.stderr.lines().find_map(|line| line.strip_prefix(&*start)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}", outcome.report()))
            .split("  #")
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(pool(&program(), "pool"), "\"central\"");
    let link = directory.join("a link");
    symlink(program(), &link).expect("a link");
    assert_eq!(pool(&link, "pool"), "\"hardened\"");
    let script = directory.join("script.sh");
    fs::write(&script, "#!/bin/sh\nexit 0\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert_eq!(pool(&script, "quarantine"), "\"5MiB\"");
}

#[test]
fn a_program_in_c_brings_its_own() {
    if skipped_on_system("a configuration") {
        return;
    }
    let conf = r#"-DCONF="config=print,pool=central,quarantine=1MiB,x""#;
    let check = |command: &mut Command| {
        let said = said(command.env("TIERMALLOC_CONF", "quarantine=2MiB"));
        let (first, rest) = said.split_once('\n').expect("a line");
        assert_eq!(
            first,
            "tiermalloc: tiermalloc_conf: x: not of the form key=value; it is ignored"
        );
        assert!(rest.contains("pool = \"central\"  # tiermalloc_conf\n"), "{rest}");
        assert!(rest.contains("quarantine = \"2MiB\"  # TIERMALLOC_CONF\n"), "{rest}");
    };
    let exported =
        compile(&Source { name: "own_conf.c", flags: &[conf, "-rdynamic"], variant: ".rdynamic" });
    check(&mut preloaded(exported));
    // A program that is linked with the library exports what the library refers to.
    let library = text(shared_object().expect("the library"));
    let linked =
        compile(&Source { name: "own_conf.c", flags: &[conf, library], variant: ".linked" });
    check(&mut bare(linked));
    // A program that has the text itself, and not its address.
    let flags = [conf, "-DARRAY", "-rdynamic"];
    check(&mut preloaded(compile(&Source {
        name: "own_conf.c",
        flags: &flags,
        variant: ".array",
    })));
    // Without either nobody sees the symbol.
    let hidden = compile(&Source { name: "own_conf.c", flags: &[conf], variant: ".hidden" });
    assert_eq!(said(preloaded(hidden).env_remove("TIERMALLOC_CONF")), "");

    let Some(archive) = static_archive() else { return };
    for (variant, how) in [
        (".archive", &[][..]),
        (".archive-static", &["-static"]),
        (".archive-static-pie", &["-static-pie", "-fPIE"]),
        (".archive-fixed", &["-no-pie", "-fno-pie"]),
    ] {
        let flags: Vec<&str> = how.iter().copied().chain([conf, text(&archive)]).collect();
        check(&mut bare(compile(&Source { name: "own_conf.c", flags: &flags, variant })));
    }
}

/// Whoever allocates before the program is in place decides without it, and does not read what is no address yet.
#[test]
fn an_early_allocation_does_not_trip_over_a_program_that_is_not_relocated() {
    if skipped_on_system("a configuration") {
        return;
    }
    let early = compile(&plugin("early_lib.c"));
    let packed = "-Wl,-z,pack-relative-relocs";
    for (variant, extra) in [("", "-g"), (".packed", packed), (".fixed", "-no-pie")] {
        let flags = [text(&early), "-rdynamic", extra];
        let outcome =
            run(&mut preloaded(compile(&Source { name: "early_conf.c", flags: &flags, variant })));
        let heard = outcome.stderr.contains("nonsense=1: there is no such key");
        assert!(outcome.status.success(), "{variant}: {}", outcome.report());
        assert!(heard || outcome.stderr.is_empty(), "{variant}: {}", outcome.report());
    }
}

#[test]
fn files_that_are_none_cost_one_line_and_no_time() {
    if skipped_on_system("messages of our own") {
        return;
    }
    let directory = scratch("sources-none");
    let path = |name: &str| directory.join(name);
    let fifo = CString::new(path("fifo").as_os_str().as_bytes()).expect("no NUL");
    // SAFETY: the path ends with NUL.
    assert_eq!(unsafe { mkfifo(fifo.as_ptr(), 0o644) }, 0, "a pipe");
    fs::write(path("sparse"), "pool = central\n").expect("a file");
    fs::File::options()
        .write(true)
        .open(path("sparse"))
        .and_then(|file| file.set_len(1 << 30))
        .expect("it grows");
    fs::write(path("long"), "pool = central # and so on\n".repeat(100_000)).expect("a file");
    symlink("loop", path("loop")).expect("a link");
    fs::write(path("cut"), "pool = central\nquarantine = \"4Mi").expect("a file");
    fs::write(path("empty"), "").expect("a file");
    let library = shared_object().expect("the library").to_owned();
    for (file, expected) in [
        (directory.clone(), ": not a regular file; it is ignored"),
        (path("fifo"), ": not a regular file; it is ignored"),
        (PathBuf::from("/dev/zero"), ": not a regular file; it is ignored"),
        (PathBuf::from("/dev/tty"), "; it is ignored"),
        (path("missing"), ": cannot be read (no such file); it is ignored"),
        (path("loop"), ": cannot be read (too many symbolic links); it is ignored"),
        (path("sparse"), ":2: the file is not text; it is ignored from here on"),
        (path("long"), ":2428: the file is longer than 64 KiB; it is ignored from here on"),
        (library, ":1: the file is not text; it is ignored from here on"),
        (
            path("cut"),
            ":2: quarantine = \"4Mi: the quotes do not enclose one plain text; it is ignored",
        ),
        (path("empty"), ""),
        (PathBuf::new(), ""),
    ] {
        let said = said(
            preloaded(program()).env_remove("TIERMALLOC_CONF").env("TIERMALLOC_CONF_FILE", &file),
        );
        if expected.is_empty() {
            assert_eq!(said, "", "{}", file.display());
        } else {
            assert!(
                said.starts_with("tiermalloc: ") && said.ends_with(&format!("{expected}\n")),
                "{said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_file_that_its_user_may_not_read_is_said_to_be_so() {
    if skipped_on_system("messages of our own") || geteuid() != 0 {
        println!("skipped: only root can be somebody else");
        return;
    }
    let directory = open_to_all("sources-unreadable");
    let Some(directory) = directory else { return };
    let (file, copy) = (directory.0.join("secret"), directory.0.join("program"));
    fs::write(&file, "pool = central\n").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::copy(program(), &copy).expect("a copy");
    let library = directory.0.join("libtiermalloc.so");
    fs::copy(shared_object().expect("the library"), &library).expect("a copy");
    let mut command = bare(copy);
    command.env("LD_PRELOAD", library).env("TIERMALLOC_CONF_FILE", &file).uid(NOBODY).gid(NOBODY);
    let said = said(&mut command);
    assert!(
        said.ends_with("/secret: cannot be read (permission denied); it is ignored\n"),
        "{said}"
    );
}

#[test]
fn malformed_files_cost_clear_lines_and_nothing_else() {
    let directory = scratch("sources-malformed");
    for number in 0..100 {
        let content = malformed::file(number);
        let said = said(&mut with_file(&directory, "bad.conf", &content));
        assert!(said.lines().count() <= 17 + tiermalloc_keys(), "{number}: {said}");
        for line in said.lines() {
            assert!(line.starts_with("tiermalloc: ") && line.len() < 256, "{number}: {said}");
            assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{number}: {said}");
            let clear = line.contains("bad.conf")
                && (line.contains("ignored") || line.contains("and more"));
            assert!(clear, "{number}: {line}");
        }
    }
    if skipped_on_system("messages of our own") {
        return;
    }
    let said = said(&mut with_file(&directory, "many.conf", "x = 1\n".repeat(1000)));
    assert_eq!(said.lines().count(), 17, "{said}");
    assert!(said.ends_with("/many.conf:17: and more of the kind\n"), "{said}");
}

#[test]
fn closed_standard_error_does_no_harm() {
    let directory = scratch("sources-closed");
    fs::write(directory.join("c"), "config = print\nnonsense\n").expect("a file");
    let mut shell = preloaded("/bin/sh");
    shell.args(["-c", "exec 2>&- && exec \"$0\""]).arg(program());
    shell.env("TIERMALLOC_CONF_FILE", directory.join("c"));
    let outcome = run(&mut shell);
    assert!(outcome.status.success() && outcome.stdout == "done\n", "{}", outcome.report());
}

#[test]
fn etc_is_read_and_the_user_comes_later() {
    if skipped_on_system("a configuration") {
        return;
    }
    let etc = scratch("sources-etc");
    fs::write(
        etc.join("tiermalloc.conf"),
        "pool = hardened\nconfig = print\n[own_conf_c]\nthp = never\nquarantine = 1MiB\n",
    )
    .expect("a file");
    let user = etc.join("user.conf");
    fs::write(&user, "quarantine = 2MiB\n").expect("a file");
    let Some(mut command) = with_etc(&etc) else { return };
    let mut setting = std::ffi::OsString::from("LD_PRELOAD=");
    setting.push(shared_object().expect("the library"));
    command.arg(&setting).arg("TIERMALLOC_CONF=pool=central").arg(program());
    expect(
        &printed(&mut command),
        &[
            ("pool", "\"central\"", "TIERMALLOC_CONF"),
            ("thp", "\"never\"", "/etc/tiermalloc.conf:4"),
            ("quarantine", "\"1MiB\"", "/etc/tiermalloc.conf:5"),
        ],
    );
    let mut command = with_etc(&etc).expect("as before");
    command.arg(&setting).arg("TIERMALLOC_CONF_FILE=/etc/user.conf").arg(program());
    expect(
        &printed(&mut command),
        &[
            ("quarantine", "\"2MiB\"", "/etc/user.conf:1"),
            ("pool", "\"hardened\"", "/etc/tiermalloc.conf:1"),
        ],
    );
}

/// A library that was built not to listen hears the program alone.
#[test]
fn the_feature_fixed_config_reads_neither_variables_nor_files() {
    if skipped_on_system("a configuration") || std::env::var_os("TIERMALLOC_LIB").is_some() {
        return;
    }
    let target = target_directory().join("tmp/surface/fixed-config");
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--package",
            "tiermalloc-preload",
            "--features",
            "fixed-config",
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let library = target.join("release/libtiermalloc.so");
    let directory = scratch("sources-fixed");
    fs::write(directory.join("c"), "nonsense\npool = hardened\n").expect("a file");
    let conf = r#"-DCONF="config=print,pool=central""#;
    let program =
        compile(&Source { name: "own_conf.c", flags: &[conf, "-rdynamic"], variant: ".fixed" });
    let mut command = bare(program);
    command.env("LD_PRELOAD", library).env("TIERMALLOC_CONF_FILE", directory.join("c"));
    command.env("TIERMALLOC_CONF", OsStr::new("pool=nonsense,thp=never"));
    expect(
        &printed(&mut command),
        &[("pool", "\"central\"", "tiermalloc_conf"), ("thp", "\"demand\"", "built in")],
    );
}
