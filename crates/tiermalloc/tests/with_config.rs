//! A program that brings its own configuration: it holds from the first allocation on, whatever that is.

mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use support::each_alone_with;
use tiermalloc::config::{Source, effective};
use tiermalloc::{Config, Pool, TierMalloc, config};

#[global_allocator]
static GLOBAL: TierMalloc = TierMalloc::with_config(
    Config::new().pool(Pool::Central).quarantine(1 << 20).zero_on_free(true),
);

/// What the first allocation was.
static FIRST: AtomicUsize = AtomicUsize::new(0);

/// Before everything else in the process allocates through Rust: the kind of allocation that a variable asks for.
extern "C" fn first() {
    let layout = |size| Layout::from_size_align(size, 8).unwrap();
    // SAFETY: the name ends with NUL; the layouts are not empty, and what is allocated stays.
    unsafe {
        let wanted = libc::getenv(c"TEST_FIRST".as_ptr());
        let block = match if wanted.is_null() { 0 } else { *wanted.cast::<u8>() } {
            b's' => GLOBAL.alloc(layout(100)),
            b'm' => GLOBAL.alloc(layout(100_000)),
            b'l' => GLOBAL.alloc(layout(1 << 20)),
            b'z' => GLOBAL.alloc_zeroed(layout(100)),
            b'y' => GLOBAL.alloc_zeroed(layout(20_000)),
            b'x' => GLOBAL.alloc_zeroed(layout(1 << 20)),
            b'n' => TierMalloc::new().alloc(layout(100)),
            _ => return,
        };
        assert!(!block.is_null());
        FIRST.store(1, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = first;

/// The words that describe what is in force, from a process of its own with these variables.
fn said(test: &str, variables: &[(&str, &str)], check: impl Fn(&str)) {
    let report = || {
        let config = config();
        let first = FIRST.load(Ordering::Relaxed);
        eprintln!("REPORT {first} {:?} {} {}", config.pool, config.quarantine, config.zero_on_free);
        std::process::exit(0)
    };
    each_alone_with(variables, test, &[("program", report)], |_, output| {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find_map(|line| line.strip_prefix("REPORT "));
        check(line.unwrap_or_else(|| panic!("{text}")));
    });
}

#[test]
fn it_holds_and_is_named_as_the_programs() {
    let config = config();
    // Whatever the variables say that this test runs with.
    for (name, value) in
        [("pool", config.pool == Pool::Central), ("quarantine", config.quarantine == 1 << 20)]
    {
        match effective().origin(name).unwrap().source {
            Source::Program => assert!(value, "{name}"),
            source => assert!(source > Source::Program, "{name}"),
        }
    }
}

#[test]
fn it_holds_from_the_first_allocation_on_whatever_that_is() {
    let test = "it_holds_from_the_first_allocation_on_whatever_that_is";
    for kind in ["s", "m", "l", "z", "y", "x"] {
        said(test, &[("TEST_FIRST", kind), ("TIERMALLOC_CONF", "")], |line| {
            assert_eq!(line, "1 Central 1048576 true", "{kind}");
        });
    }
}

#[test]
fn the_value_that_allocates_first_decides() {
    let test = "the_value_that_allocates_first_decides";
    said(test, &[("TEST_FIRST", "n"), ("TIERMALLOC_CONF", "")], |line| {
        assert!(!line.contains("Central") && line.starts_with('1'), "{line}");
    });
}

#[test]
fn the_environment_has_the_last_word() {
    let test = "the_environment_has_the_last_word";
    let conf = if cfg!(feature = "fixed-config") { "Central 1048576" } else { "Hardened 2097152" };
    let variables = [("TEST_FIRST", "s"), ("TIERMALLOC_CONF", "pool=hardened,quarantine=2MiB")];
    said(test, &variables, |line| assert_eq!(line, format!("1 {conf} true")));
}

#[test]
fn a_file_comes_between() {
    let test = "a_file_comes_between";
    let path = std::env::temp_dir().join(format!("tiermalloc-with-config-{}", std::process::id()));
    std::fs::write(&path, "pool = hardened\nquarantine = 3MiB\n").unwrap();
    let conf = if cfg!(feature = "fixed-config") { "Central 1048576" } else { "Hardened 2097152" };
    let variables = [
        ("TEST_FIRST", "s"),
        ("TIERMALLOC_CONF_FILE", path.to_str().unwrap()),
        ("TIERMALLOC_CONF", "quarantine=2MiB"),
    ];
    said(test, &variables, |line| assert_eq!(line, format!("1 {conf} true")));
    std::fs::remove_file(path).unwrap();
}
