//! Where the library is found, and what is said when it is not.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Dir, LOADED, command, outcome, refused, run, skip, tiermalloc};

/// Whether a test can be sure that no library is found on this system.
fn nothing_installed() -> bool {
    let directories = ["/usr/local/lib", "/usr/lib", "/usr/local/lib64", "/usr/lib64"];
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let found = directories.iter().any(|directory| {
        let directory = Path::new(directory);
        directory.join("libtiermalloc.so").exists()
            || directory.join(&multiarch).join("libtiermalloc.so").exists()
    });
    !found || skip::<()>("a libtiermalloc.so is installed").is_some()
}

#[test]
fn without_a_library_it_says_where_it_looked_and_how_to_get_one() {
    if !nothing_installed() {
        return;
    }
    let dir = Dir::new();
    let program = dir.copy_of_tiermalloc("bin/tiermalloc");
    let message = refused(
        command(program).args(["run", "--", "true"]),
        125,
        &[
            "found no libtiermalloc.so",
            "cargo build --release",
            "cargo xtask install --prefix",
            "--library",
            "TIERMALLOC_LIBRARY",
        ],
    );
    for place in ["bin", "lib", "lib64"] {
        let place = dir.join(place).join("libtiermalloc.so");
        assert!(message.contains(&*place.to_string_lossy()), "{message}");
    }
    assert!(message.contains("/usr/local/lib/libtiermalloc.so"), "{message}");
}

#[test]
fn a_missing_program_is_told_before_a_missing_library() {
    let dir = Dir::new();
    let program = dir.copy_of_tiermalloc("tiermalloc");
    refused(command(program).args(["run", "no-such-program"]), 127, &["no-such-program"]);
}

#[test]
fn it_is_found_beside_the_program_and_where_it_is_installed() {
    let multiarch = format!("lib/{}-linux-gnu/libtiermalloc.so", std::env::consts::ARCH);
    for place in
        ["bin/libtiermalloc.so", "lib/libtiermalloc.so", "lib64/libtiermalloc.so", &multiarch]
    {
        let dir = Dir::new();
        let program = dir.copy_of_tiermalloc("bin/tiermalloc");
        let Some(library) = dir.library(place) else { return };
        let (_, stderr) = outcome(command(&program).args(["run", "-v", "true"]), 0);
        assert!(stderr.contains(&format!("LD_PRELOAD={}", library.display())), "{stderr}");
        assert!(stderr.ends_with(LOADED), "{stderr}");

        // A link to the program, and a program found in PATH, lead to the same place.
        symlink(&program, dir.join("link")).unwrap();
        let (_, stderr) = outcome(command(dir.join("link")).args(["run", "/bin/true"]), 0);
        assert_eq!(stderr, LOADED);
        let mut shell = command("/bin/sh");
        shell.args(["-c", "tiermalloc run /bin/true"]).env("PATH", dir.join("bin"));
        assert_eq!(outcome(&mut shell, 0).1, LOADED);
    }
}

#[test]
fn the_option_comes_before_the_environment_and_that_before_the_search() {
    let dir = Dir::new();
    let program = dir.copy_of_tiermalloc("tiermalloc");
    let Some(_beside) = dir.library("libtiermalloc.so") else { return };
    let (named, option) = (dir.library("named.so").unwrap(), dir.library("option.so").unwrap());
    let list = |words: &[&str], variable: &str| {
        let mut command = command(&program);
        command.arg("run").args(words).env("TIERMALLOC_LIBRARY", variable);
        outcome(command.args(["sh", "-c", "echo $LD_PRELOAD"]), 0).0
    };
    let words = ["--library", option.to_str().unwrap()];
    let variable = named.to_str().unwrap();
    assert_eq!(list(&words, variable), format!("{}\n", option.display()));
    assert_eq!(list(&[], variable), format!("{}\n", named.display()));
    assert_eq!(list(&[], ""), format!("{}\n", dir.join("libtiermalloc.so").display()));
}

#[test]
fn a_library_that_is_none_is_told() {
    let dir = Dir::new();
    let missing = dir.join("missing.so");
    refused(run(&missing).arg("true"), 125, &["missing.so", "--library", "No such file"]);
    let mut command = tiermalloc();
    command.args(["run", "true"]).env("TIERMALLOC_LIBRARY", &missing);
    refused(&mut command, 125, &["missing.so", "TIERMALLOC_LIBRARY", "No such file"]);
    refused(run(dir.path()).arg("true"), 125, &["is a directory", "libtiermalloc.so"]);
    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello\n"), ("magic", b"\x7fELF")] {
        let file = dir.executable(name, bytes);
        refused(run(&file).arg("true"), 125, &["is not a shared library", "ELF"]);
    }
    let Some(object) = dir.compile("object", "int x;", &["-c"]) else { return };
    refused(run(&object).arg("true"), 125, &["not a shared library", "object file"]);
}

#[test]
fn a_path_that_the_list_cannot_hold_is_told_with_a_remedy_that_works() {
    for name in ["with space", "with:colon", "with$dollar", "it's a tab\there"] {
        let dir = Dir::new();
        let Some(library) = dir.library(&format!("{name}/libtiermalloc.so")) else { return };
        let message = refused(run(&library).arg("true"), 125, &["LD_PRELOAD", "ln -s"]);

        // What the message says, but for the place of the link.
        let link = dir.join("link.so");
        let line = message.lines().find(|line| line.contains("ln -s")).unwrap();
        let line = line.replace("/tmp/libtiermalloc.so", link.to_str().unwrap());
        outcome(command("sh").arg("-c").arg(line), 0);
        assert_eq!(outcome(run(&link).arg("true"), 0).1, LOADED);

        // The other way round, the link's own path is the bad one.
        let plain = dir.copy(&library, "plain.so");
        std::fs::remove_file(&library).unwrap();
        symlink(&plain, &library).unwrap();
        assert_eq!(outcome(run(&library).arg("true"), 0).1, LOADED);
    }
}
