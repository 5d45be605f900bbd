//! Fork: a child has one thread, the memory of all of them, and every lock as it was at that moment.
mod support;

use support::passes;

#[test]
fn a_child_of_a_single_thread_owns_what_its_parent_had() {
    passes("fork_single.c", &[]);
}

#[test]
fn forks_in_the_middle_of_allocation_neither_hang_nor_corrupt() {
    passes("fork_storm.c", &[]);
}

#[test]
fn vfork_spawn_system_and_popen_work_beside_allocating_threads() {
    passes("fork_spawn.c", &[]);
}

#[test]
fn a_daemon_that_forked_twice_serves_with_threads() {
    passes("daemon.c", &[]);
}
