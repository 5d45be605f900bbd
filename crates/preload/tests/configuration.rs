//! `TIERMALLOC_CONF`: what is right applies in silence, what is wrong is said in one line each, and nothing of it
//! stops a program.
mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use support::{
    Source, bare, compile, plain, preloaded, run, scratch, skipped_on_system, static_archive,
};

/// What a program that is in order says on stderr with a configuration.
fn said_with(configuration: &[u8]) -> String {
    let program = compile(&plain("zero_sizes.c"));
    let outcome = run(preloaded(program).env("TIERMALLOC_CONF", OsStr::from_bytes(configuration)));
    assert!(outcome.status.success(), "{configuration:?}: {}", outcome.report());
    assert!(outcome.stderr.is_empty() || outcome.stderr.ends_with('\n'), "{}", outcome.report());
    outcome.stderr
}

#[test]
fn what_is_right_applies_in_silence() {
    for configuration in [
        "",
        " , ,",
        "pool=tiered",
        "pool=central",
        "pool=guarded",
        "pool=system",
        " pool = hardened , quarantine = 1MiB , zero_on_free = true ",
        "quarantine=0,pool=tiered,quarantine=65536",
    ] {
        assert_eq!(said_with(configuration.as_bytes()), "", "{configuration}");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_source_key_and_value() {
    if skipped_on_system("messages of our own") {
        return;
    }
    for (configuration, line) in [
        (
            "pool=fast",
            "pool=fast: not one of tiered, central, hardened, guarded, system; it is ignored",
        ),
        ("pool", "pool: not of the form key=value; it is ignored"),
        ("pol=central", "pol=central: there is no such key; it is ignored; perhaps pool is meant"),
        ("arena=3", "arena=3: there is no such key; it is ignored"),
        ("zero_on_free=maybe", "zero_on_free=maybe: neither true nor false; it is ignored"),
        ("quarantine=much", "quarantine=much: not a number of bytes, as in 64KiB; it is ignored"),
        ("quarantine=-1", "quarantine=-1: not a number of bytes, as in 64KiB; it is ignored"),
        (
            "quarantine=\x1b[2J",
            "quarantine=?[2J: not a number of bytes, as in 64KiB; it is ignored",
        ),
    ] {
        let expected = format!("tiermalloc: TIERMALLOC_CONF: {line}\n");
        assert_eq!(said_with(configuration.as_bytes()), expected);
    }
}

#[test]
fn the_rest_of_a_configuration_with_mistakes_applies() {
    if skipped_on_system("a pool of our own") {
        return;
    }
    let program = compile(&plain("freed_memory.c"));
    let outcome = run(preloaded(program)
        .args(["0", "0"])
        .env("TIERMALLOC_CONF", "x,pool=hardened,quarantine=0,quarantine=?,zero_on_free=1,y=2"));
    assert!(outcome.status.success(), "{}", outcome.report());
    assert_eq!(outcome.stderr.lines().count(), 3, "{}", outcome.report());
}

#[test]
fn rubbish_costs_a_bounded_number_of_lines_of_bounded_length() {
    let mut seed = 1u32;
    let mut rubbish = |length: usize| -> Vec<u8> {
        let byte = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Any byte but the one that ends a variable.
            (seed >> 24).max(1) as u8
        };
        (0..length).map(byte).collect()
    };
    let many_mistakes = b"a=b,".repeat(20_000);
    let one_long_value = [b"pool=", "x".repeat(100_000).as_bytes()].concat();
    let texts = [many_mistakes, one_long_value, rubbish(100), rubbish(10_000), rubbish(100_000)];
    for text in &texts {
        let said = said_with(text);
        assert!(said.lines().count() <= 17, "{said}");
        assert!(said.lines().all(|line| line.len() < 256), "{said}");
        assert!(said.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{said}");
    }
    if !skipped_on_system("messages of our own") {
        let said = said_with(&texts[0]);
        assert_eq!(said.lines().count(), 17);
        assert_eq!(said.lines().last(), Some("tiermalloc: TIERMALLOC_CONF: and more of the kind"));
    }
}

/// Who starts a setuid program has no say in the heap of its owner.
#[test]
fn a_program_with_more_rights_than_its_user_is_not_configured() {
    let Some(archive) = static_archive() else { return };
    let flags = [archive.to_str().expect("a path in UTF-8")];
    let program = compile(&Source { name: "secure.c", flags: &flags, variant: ".secure" });
    let directory = scratch("secure");
    let secure = directory.join("secure");
    fs::copy(&program, &secure).expect("a copy of the program");
    let said = |command: &mut std::process::Command| {
        let outcome = run(command.env("TIERMALLOC_CONF", "pool=nonsense"));
        (outcome.status.code(), outcome.stderr.lines().count())
    };
    assert_eq!(said(&mut bare(&secure)), (Some(0), 1), "its own user is heard");

    for path in secure.ancestors().skip(1) {
        let open = fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 1 != 0);
        if !open {
            println!("skipped: others may not enter {}", path.display());
            return;
        }
    }
    fs::set_permissions(&secure, fs::Permissions::from_mode(0o4755)).expect("it is ours");
    // Another user than the owner; only root can be one.
    let mut command = bare(&secure);
    command.uid(65534).gid(65534);
    match command.spawn() {
        Err(_) => println!("skipped: who runs this test cannot be somebody else"),
        Ok(mut child) => {
            child.wait().expect("it ends");
            let (code, lines) = said(&mut command);
            if code == Some(3) {
                assert_eq!(lines, 0, "its user is not");
            } else {
                println!("skipped: setuid does not work here");
            }
        }
    }
}
