//! Fork: a child has one thread, the memory of all of them, and every lock as it was at that moment.
mod support;

use support::{bare, compile, passes, plain, plugin, shared_object, succeeds};

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

#[test]
fn handlers_of_a_library_allocate_before_and_after_a_fork() {
    // The library is loaded before the program starts, as a dependency of it would be, and its
    // constructor runs before any other code of the process.
    let library = compile(&plugin("prefork_lib.c"));
    let program = compile(&plain("prefork.c"));
    let preload = match shared_object() {
        Some(ours) => format!("{}:{}", ours.display(), library.display()),
        None => library.display().to_string(),
    };
    succeeds(bare(program).env("LD_PRELOAD", preload));
}
