//! Threads: objects that die elsewhere, threads that end in the middle of it, and what they leave behind.
mod support;

use support::{bare, compile, passes, plain, shared_object, skipped_on_system, succeeds};

#[test]
fn objects_are_freed_whole_in_another_thread() {
    passes("hand_over.c", &[]);
}

#[test]
fn a_thread_that_only_frees_keeps_no_memory_from_the_others() {
    passes("free_only.c", &[]);
}

#[test]
fn threads_end_while_others_free_their_objects() {
    passes("end_while_freed.c", &[]);
}

#[test]
fn key_destructors_allocate_in_every_round() {
    passes("key_destructors.c", &[]);
}

#[test]
fn thread_local_destructors_allocate_to_the_last() {
    passes("local_destructors.cc", &[]);
}

#[test]
fn a_thousand_threads_at_once_leave_no_memory_behind() {
    passes("thousand_alive.c", &[]);
}

#[test]
fn thousands_of_threads_in_turn_leave_no_memory_behind() {
    passes("thousands_in_turn.c", &[]);
}

#[test]
fn generations_of_threads_hand_their_objects_on() {
    passes("generations.c", &[]);
}

#[test]
fn memory_goes_back_while_the_program_sleeps() {
    if skipped_on_system("giving memory back unasked") {
        return;
    }
    passes("idle.c", &[]);
}

#[test]
fn forks_and_ends_find_the_heap_whole_while_memory_goes_back() {
    if skipped_on_system("giving memory back unasked") {
        return;
    }
    passes("idle_forks.c", &[]);
}

#[test]
fn programs_end_at_once_beside_the_thread_that_gives_memory_back() {
    if skipped_on_system("giving memory back unasked") {
        return;
    }
    passes("idle_ends.c", &[]);
}

#[test]
fn no_thread_of_the_library_outlives_it() {
    if skipped_on_system("threads of the library's own") {
        return;
    }
    let library = shared_object().expect("not on the system's allocator");
    succeeds(bare(compile(&plain("idle_closed.c"))).arg(library));
}
