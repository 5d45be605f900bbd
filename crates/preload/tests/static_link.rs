//! The archive: a program that is linked with `libtiermalloc.a` has its heap, be the program static or not.
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use support::{Outcome, Source, bare, compile, run, static_archive, succeeds};

const SIGABRT: i32 = 6;

/// Compiles a program with the archive behind it, or without where the system's allocator is tested.
fn linked(name: &str, variant: &str, how: &[&str]) -> PathBuf {
    let archive = static_archive();
    let archive = archive.as_ref().map(|path| path.to_str().expect("a path in UTF-8"));
    // -static belongs in front of the archive; the order among flags is free otherwise.
    let flags: Vec<&str> = how.iter().copied().chain(archive).collect();
    compile(&Source { name, flags: &flags, variant })
}

fn lives(name: &str, variant: &str, how: &[&str]) {
    let program = linked(name, variant, how);
    if static_archive().is_none() {
        // glibc alone: the program itself is in order.
        succeeds(bare(&program).env("TIERMALLOC_TEST_SYSTEM", "1"));
        return;
    }
    // Not through the shared object: what is linked in must do.
    succeeds(&mut bare(&program));
    let Outcome { status, stderr, .. } = run(bare(&program).arg("probe"));
    assert_eq!(status.signal(), Some(SIGABRT), "{name}{variant}: whose free is this? {stderr}");
    assert!(stderr.starts_with("tiermalloc: "), "{name}{variant}: whose free is this? {stderr}");
}

#[test]
fn a_static_c_program_links_and_lives() {
    lives("static_life.c", ".static", &["-static"]);
}

#[test]
fn a_static_position_independent_c_program_links_and_lives() {
    lives("static_life.c", ".static-pie", &["-static-pie", "-fPIE"]);
}

#[test]
fn a_static_program_opens_libraries_as_glibc_does() {
    succeeds(&mut bare(linked("static_dlopen.c", ".static", &["-static"])));
}

#[test]
fn a_dynamic_c_program_links_and_lives() {
    lives("static_life.c", ".dynamic", &[]);
}

#[test]
fn a_c_program_at_a_fixed_address_links_and_lives() {
    lives("static_life.c", ".no-pie", &["-no-pie", "-fno-pie"]);
}

#[test]
fn a_static_cxx_program_links_and_lives() {
    lives("static_life.cc", ".static", &["-static"]);
}

#[test]
fn a_static_position_independent_cxx_program_links_and_lives() {
    lives("static_life.cc", ".static-pie", &["-static-pie", "-fPIE"]);
}

#[test]
fn a_dynamic_cxx_program_links_and_lives() {
    lives("static_life.cc", ".dynamic", &[]);
}

#[test]
fn a_cxx_program_with_its_own_copy_of_the_cxx_library_links_and_lives() {
    lives("static_life.cc", ".static-libstdc++", &["-static-libstdc++", "-static-libgcc"]);
}

#[test]
fn a_static_program_says_that_there_is_no_other_allocator() {
    if static_archive().is_none() {
        return;
    }
    let program = linked("static_life.c", ".static", &["-static"]);
    let outcome = run(bare(&program).env("TIERMALLOC_CONF", "pool=system"));
    assert!(outcome.status.success(), "{}", outcome.report());
    let line = "tiermalloc: pool=system: there is no other allocator here; tiered is used\n";
    assert_eq!(outcome.stderr, line);
}
