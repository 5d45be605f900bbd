//! `TIERMALLOC_CONF` in a Rust program, and the parser as others may use it.

mod support;

use support::{alone_with, each_alone_with};
use tiermalloc::config::{KEYS, Problem, apply};
use tiermalloc::{Config, Pool, config, raw};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

/// What [`apply`] makes of the default, and what it says.
fn read(text: &str) -> (Config, Vec<String>) {
    let (mut config, mut said) = (Config::default(), Vec::new());
    apply(&mut config, text.as_bytes(), &mut |problem| said.push(problem.to_string()));
    (config, said)
}

#[test]
fn every_mistake_is_said_in_words_and_the_rest_applies() {
    let (config, said) = read(
        "pool,pol=central,colour=red,pool=fast,zero_on_free=perhaps,quarantine=much,quarantine=9GiB,\
         quarantine=64KiB,pool=central,\x07=1",
    );
    assert_eq!((config.pool, config.quarantine), (Pool::Central, 64 << 10));
    assert_eq!(
        said,
        [
            "pool: not of the form key=value; it is ignored",
            "pol=central: there is no such key; it is ignored; perhaps pool is meant",
            "colour=red: there is no such key; it is ignored",
            "pool=fast: not one of tiered, central, hardened, guarded, system; it is ignored",
            "zero_on_free=perhaps: neither true nor false; it is ignored",
            "quarantine=much: not a number of bytes, as in 64KiB; it is ignored",
            "quarantine=9GiB: not from 0 to 1073741824 bytes; it is ignored",
            "?=1: there is no such key; it is ignored",
        ]
    );
}

#[test]
fn what_is_long_is_shown_in_part() {
    let long = "x".repeat(500);
    let (_, said) = read(&format!("{long}=1"));
    assert_eq!(said, [format!("{}...=1: there is no such key; it is ignored", "x".repeat(48))]);
    let mut problems = 0;
    apply(&mut Config::default(), long.as_bytes(), &mut |problem| {
        assert!(matches!(problem, Problem::NoValue { setting } if setting.len() == 500));
        problems += 1;
    });
    assert_eq!(problems, 1);
}

#[test]
fn keys_say_what_they_mean() {
    for key in &KEYS {
        assert!(!key.meaning.is_empty() && !key.name.contains(['=', ',', ' ']), "{}", key.name);
    }
}

#[test]
#[cfg_attr(feature = "fixed-config", ignore = "the environment is not read")]
fn the_environment_is_read_before_the_first_allocation() {
    let test = "the_environment_is_read_before_the_first_allocation";
    alone_with(&[("TIERMALLOC_CONF", "pool=central,quarantine=1MiB")], test, || {
        assert_eq!((config().pool, config().quarantine), (Pool::Central, 1 << 20));
        let block = raw::malloc(100);
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
    });
}

#[test]
#[cfg_attr(feature = "fixed-config", ignore = "the environment is not read")]
fn a_configuration_that_is_wrong_costs_one_line_each_and_no_more_than_seventeen() {
    for (conf, lines) in [("pool=fast,,x=1", 2), (&*"y,".repeat(100), 17)] {
        each_alone_with(
            &[("TIERMALLOC_CONF", conf)],
            "a_configuration_that_is_wrong_costs_one_line_each_and_no_more_than_seventeen",
            &[("program", || std::process::exit(0))],
            |_, output| {
                assert!(output.status.success());
                let text = String::from_utf8_lossy(&output.stderr);
                let ours = text.lines().filter(|l| l.starts_with("tiermalloc: TIERMALLOC_CONF: "));
                assert_eq!(ours.count(), lines, "{text}");
            },
        );
    }
}

#[test]
fn fork_handlers_are_registered_once_and_the_threads_word_is_there() {
    // The harness has allocated, so they are.
    // SAFETY: the handlers are registered with nobody.
    unsafe { tiermalloc::prepare_for_fork_by(|_, _, _| panic!("registered twice")) };
    assert!(tiermalloc::prepare_thread_word());
}
