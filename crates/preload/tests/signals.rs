//! Signals: a handler that does not allocate interrupts malloc anywhere, and nothing is corrupted.
mod support;

use support::passes;

#[test]
fn a_storm_of_alarms_corrupts_nothing() {
    passes("signal_storm.c", &["alarm"]);
}

#[test]
fn a_storm_of_profiling_signals_corrupts_nothing() {
    passes("signal_storm.c", &["prof"]);
}

#[test]
fn a_storm_of_signals_to_each_thread_corrupts_nothing() {
    passes("signal_storm.c", &["kill"]);
}

#[test]
fn a_handler_that_forks_in_the_middle_of_malloc_does_not_hang() {
    passes("fork_in_handler.c", &[]);
}

#[test]
fn a_handler_that_ends_the_program_in_the_middle_of_malloc_is_no_mistake() {
    passes("exit_in_handler.c", &[]);
}
