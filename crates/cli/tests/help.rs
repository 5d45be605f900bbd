//! What the program says about itself.

mod common;

use std::process::{Command, Stdio};

use common::{Dir, outcome, skip, text, tiermalloc};

#[test]
fn help_says_what_a_manual_says() {
    let (help, stderr) = outcome(tiermalloc().arg("--help"), 0);
    assert_eq!(stderr, "");
    for word in [
        "tiermalloc run -- ",
        "tiermalloc classes",
        "Examples:",
        "Exit status:",
        "Files:",
        "Environment:",
        "See also:",
        "TIERMALLOC_LIBRARY",
        "125",
        "126",
        "127",
    ] {
        assert!(help.contains(word), "no '{word}' in: {help}");
    }
    let (help, _) = outcome(tiermalloc().args(["run", "--help"]), 0);
    for word in ["--library", "--force", "--verbose", "Refusals:", "set-user-ID", "LD_PRELOAD"] {
        assert!(help.contains(word), "no '{word}' in: {help}");
    }
    let (short, _) = outcome(tiermalloc().arg("-h"), 0);
    assert!(short.lines().count() < 20, "{short}");
}

#[test]
fn the_version_is_the_crates() {
    let (version, _) = outcome(tiermalloc().arg("--version"), 0);
    assert_eq!(version, format!("tiermalloc {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_usage_is_2_and_leads_on() {
    for words in [&[][..], &["classes", "--format", "xml"], &["clases"]] {
        let (stdout, stderr) = outcome(tiermalloc().args(words), 2);
        assert!(stdout.is_empty() && stderr.contains("-h"), "{stderr}");
    }
    let (_, stderr) = outcome(tiermalloc().args(["python3", "app.py"]), 2);
    assert!(stderr.contains("tiermalloc run -- PROGRAM"), "{stderr}");
}

#[test]
fn the_manual_page_is_what_troff_takes() {
    let (page, stderr) = outcome(tiermalloc().arg("man"), 0);
    assert_eq!(stderr, "");
    assert!(page.starts_with(".TH TIERMALLOC 1 "), "{page}");
    for heading in
        ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES"]
    {
        assert!(page.contains(&format!(".SH {heading}\n")), "{heading}");
    }
    let dir = Dir::new();
    let file = dir.join("tiermalloc.1");
    std::fs::write(&file, page).unwrap();
    let groff = Command::new("groff")
        .args(["-man", "-ww", "-Tascii", "-P-cbou"])
        .arg(&file)
        .stdin(Stdio::null())
        .output();
    let Ok(groff) = groff else { return skip::<()>("no groff").unwrap_or_default() };
    assert_eq!(text(&groff.stderr), "");
    let page = text(&groff.stdout);
    for line in ["sh -c 'make && ./a.out'", "--library FILE", "TIERMALLOC_LIBRARY"] {
        assert!(page.contains(line), "no '{line}' in: {page}");
    }
}
