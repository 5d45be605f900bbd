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
