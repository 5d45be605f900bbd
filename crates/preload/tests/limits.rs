//! Limits: where memory ends, malloc says null and ENOMEM, keeps what it gave, and works again after a free.
mod support;

use std::os::unix::process::ExitStatusExt;

use support::{Outcome, compile, passes, plain, preloaded, run, skipped_on_system};

#[test]
fn small_blocks_fill_the_address_space_and_a_big_one_fits_after_them() {
    passes("limit_fill.c", &["small-first"]);
}

#[test]
fn big_blocks_fill_the_address_space_and_small_ones_the_rest() {
    passes("limit_fill.c", &["big-first"]);
}

#[test]
fn rising_sizes_fill_the_address_space_and_a_big_one_fits_after_them() {
    passes("limit_fill.c", &["rising"]);
}

#[test]
fn mixed_sizes_fill_the_address_space_and_a_big_one_fits_after_them() {
    passes("limit_fill.c", &["mixed"]);
}

#[test]
fn thirty_mebibytes_of_address_space_are_enough_to_go_on() {
    passes("limit_tiny.c", &[]);
}

#[test]
fn threads_reach_the_limit_together_and_lose_nothing() {
    passes("limit_threads.c", &[]);
}

#[test]
fn mappings_that_come_and_go_leave_nothing_behind() {
    passes("address_space.c", &[]);
}

/// Runs a program of `tests/c/` under a configuration.
fn configured(configuration: &str, program: &str, arguments: &[&str]) -> Option<Outcome> {
    if skipped_on_system("limits of our own") {
        return None;
    }
    let mut command = preloaded(compile(&plain(program)));
    command.env("TIERMALLOC_CONF", configuration).args(arguments);
    Some(run(&mut command))
}

fn passes_with(configuration: &str, program: &str, arguments: &[&str]) {
    let Some(outcome) = configured(configuration, program, arguments) else { return };
    let good = outcome.status.success() && outcome.stderr.is_empty();
    assert!(good, "{configuration} {arguments:?}: {}", outcome.report());
    print!("{}", outcome.stdout);
}

#[test]
fn a_hard_limit_is_never_exceeded_whoever_asks_for_what() {
    passes_with("hard_limit=64MiB", "hard_limit.c", &["64", "mr", "smlp", "50"]);
}

#[test]
fn a_hard_limit_counts_what_is_zeroed_and_what_is_aligned() {
    passes_with("hard_limit=64MiB", "hard_limit.c", &["64", "c", "smlp", "50"]);
    passes_with("hard_limit=64MiB", "hard_limit.c", &["64", "a", "ml", "40"]);
}

#[test]
fn a_program_that_wants_1_gib_under_256_mib_has_that_and_2_mib_at_most() {
    passes_with("hard_limit=256MiB", "hard_limit.c", &["256", "m", "p", "80"]);
}

#[test]
fn a_hard_limit_counts_mappings() {
    passes_with("hard_limit=256MiB", "hard_limit.c", &["256", "mcr", "h", "60"]);
}

#[test]
fn a_hard_limit_is_kept_without_caches() {
    passes_with("hard_limit=48MiB,pool=central", "hard_limit.c", &["48", "mr", "lp", "50"]);
    passes_with("hard_limit=48MiB,cache_total=0", "hard_limit.c", &["48", "m", "sp", "50"]);
}

#[test]
fn a_hard_limit_is_kept_in_the_hardened_pool() {
    passes_with("hard_limit=48MiB,pool=hardened", "hard_limit.c", &["48", "mcr", "lp", "40"]);
}

/// Where a block has pages of its own, a block of 16 bytes costs as much as one of 8 KiB; and each has a record.
#[test]
fn a_hard_limit_is_kept_in_the_guarded_pool() {
    passes_with("hard_limit=48MiB,pool=guarded", "hard_limit.c", &["48", "mc", "sl", "3"]);
    let conf = "hard_limit=320MiB,pool=guarded,quarantine=0";
    passes_with(conf, "hard_limit.c", &["320", "m", "e", "90"]);
}

#[test]
fn a_hard_limit_is_kept_together_with_a_soft_one() {
    let both = "hard_limit=64MiB,soft_limit=32MiB";
    passes_with(both, "hard_limit.c", &["64", "mr", "lp", "50"]);
    passes_with(both, "hard_limit_threads.c", &["64"]);
}

#[test]
fn threads_at_a_hard_limit_are_told_cleanly_and_exceed_it_never() {
    for pool in ["tiered", "central", "hardened"] {
        passes_with(&format!("hard_limit=128MiB,pool={pool}"), "hard_limit_threads.c", &["128"]);
    }
}

#[test]
fn a_program_may_end_at_its_hard_limit() {
    for pool in ["tiered", "central", "hardened"] {
        for what in ["small", "large"] {
            let configuration = format!("hard_limit=64MiB,at_hard_limit=abort,pool={pool}");
            let Some(outcome) = configured(&configuration, "limit_abort.c", &["64", what]) else {
                return;
            };
            assert_eq!(outcome.status.signal(), Some(6), "{}", outcome.report());
            assert_eq!(outcome.stdout, "so far\n", "{}", outcome.report());
            let begins = "tiermalloc: hard_limit of 67108864 bytes reached: ";
            let said = outcome.stderr.strip_prefix(begins).unwrap_or_default();
            assert!(said.ends_with(" are in use\n"), "{}", outcome.report());
            let wanted = if what == "large" { "20971520 bytes more" } else { "1000 bytes more" };
            assert!(said.starts_with(wanted), "{}", outcome.report());
            let used = said.split(' ').rev().nth(3).and_then(|used| used.parse::<usize>().ok());
            assert!(used.is_some_and(|used| used <= 64 << 20), "{}", outcome.report());
        }
    }
}

#[test]
fn above_the_soft_limit_what_is_freed_goes_back_at_once() {
    for pool in ["tiered", "central", "hardened,quarantine=0"] {
        let configuration = format!("soft_limit=64MiB,background=off,pool={pool}");
        passes_with(&configuration, "soft_limit.c", &["64"]);
    }
}

#[test]
fn a_program_sets_limits_and_its_threads_say_when_they_are_idle() {
    for pool in ["tiered", "central", "hardened"] {
        passes_with(&format!("background=off,pool={pool}"), "limit_runtime.c", &["64"]);
    }
}
