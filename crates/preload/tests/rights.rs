//! Programs with more rights than their user: whom they listen to, and where they write.
mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use support::places::{open_to_all, with_etc};
use support::{Source, compile, run, static_archive};

/// Who starts a setuid program has no say; the machine's owner has, and goes by the program's file.
#[test]
fn a_program_with_more_rights_than_its_user_reads_etc_alone() {
    let Some(archive) = static_archive() else { return };
    let flags = [archive.to_str().expect("a path in UTF-8")];
    let program = compile(&Source { name: "secure.c", flags: &flags, variant: ".secure-etc" });
    let Some(directory) = open_to_all("sources-secure") else { return };
    let directory = &directory.0;
    let secure = directory.join("secure");
    fs::copy(program, &secure).expect("a copy");
    fs::set_permissions(&secure, fs::Permissions::from_mode(0o4755)).expect("it is ours");
    symlink("secure", directory.join("other")).expect("a link");
    fs::write(
        directory.join("tiermalloc.conf"),
        "config = print\n[secure]\nquarantine = 1MiB\n[other]\nquarantine = 2MiB\n",
    )
    .expect("a file");
    fs::write(directory.join("user.conf"), "thp = never\n").expect("a file");
    let Some(mut command) = with_etc(directory) else { return };
    command.args(["TIERMALLOC_CONF=pool=nonsense", "TIERMALLOC_CONF_FILE=/etc/user.conf"]);
    command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]).arg("/etc/other");
    let outcome = run(&mut command);
    if outcome.status.code() != Some(3) {
        println!("skipped: setuid does not work here: {}", outcome.report());
        return;
    }
    assert!(
        outcome.stderr.contains("quarantine = \"1MiB\"  # /etc/tiermalloc.conf:3\n"),
        "{}",
        outcome.report()
    );
    assert!(
        !outcome.stderr.contains("TIERMALLOC") && !outcome.stderr.contains("user.conf"),
        "{}",
        outcome.report()
    );
}

/// Where its user may have put a link, or stands himself, such a program writes no statistics.
#[test]
fn a_program_with_more_rights_than_its_user_writes_statistics_through_no_link() {
    let Some(archive) = static_archive() else { return };
    let flags = [archive.to_str().expect("a path in UTF-8")];
    let program = compile(&Source { name: "secure.c", flags: &flags, variant: ".secure-stats" });
    let Some(directory) = open_to_all("sources-secure-stats") else { return };
    let directory = &directory.0;
    let secure = directory.join("secure");
    fs::copy(program, &secure).expect("a copy");
    fs::set_permissions(&secure, fs::Permissions::from_mode(0o4755)).expect("it is ours");
    symlink("victim", directory.join("link")).expect("a link");
    let conf = directory.join("tiermalloc.conf");
    for (file, format, error) in [
        ("/etc/link", "text", Some(libc_error::ELOOP)),
        ("/etc/link", "openmetrics", Some(libc_error::ELOOP)),
        ("victim", "json", Some(libc_error::EPERM)),
        ("/etc/plain", "text", None),
    ] {
        fs::write(directory.join("victim"), "mine\n").expect("a file");
        fs::write(&conf, format!("stats=exit\nstats_format={format}\nstats_file={file}\n"))
            .expect("a file");
        let Some(mut command) = with_etc(directory) else { return };
        let change = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let outcome = run(command.args(change).arg("/etc/secure").current_dir(directory));
        if outcome.status.code() != Some(3) {
            println!("skipped: setuid does not work here: {}", outcome.report());
            return;
        }
        let expected = error.map_or(String::new(), |error| {
            format!("tiermalloc: stats_file={file}: cannot be written, error {error}\n")
        });
        assert_eq!(outcome.stderr, expected, "{file} {format}");
        assert_eq!(fs::read(directory.join("victim")).expect("it is there"), b"mine\n");
    }
    assert!(directory.join("plain").exists());
}

/// Numbers of the kernel's.
mod libc_error {
    pub const EPERM: i32 = 1;
    pub const ELOOP: i32 = 40;
}
