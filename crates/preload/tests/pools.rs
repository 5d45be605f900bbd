//! What each pool promises beside the same malloc.
mod support;

use support::{compile, passes_with, plain, preloaded, skipped_on_system, succeeds};

const POOLS: [&str; 5] = ["tiered", "central", "hardened", "guarded", "system"];

/// In each pool but the default one, in which other tests run the program, unless it is exempt.
fn passes_in_each(program: &str, arguments: &[&str]) {
    if skipped_on_system("pools of our own") {
        return;
    }
    // Who runs the tests in another pool has all of them besides, and these once more in the default one.
    if std::env::var_os("TIERMALLOC_TEST_CONF").is_some() {
        println!("skipped: a configuration for all tests is given");
        return;
    }
    for pool in &POOLS[1..] {
        passes_with(&format!("pool={pool}"), program, arguments);
    }
}

#[test]
fn more_large_blocks_than_mappings_are_no_problem() {
    succeeds(&mut preloaded(compile(&plain("many_large.c"))));
}

#[test]
fn more_large_blocks_than_can_be_guarded_are_no_problem() {
    passes_with("pool=hardened", "many_large.c", &[]);
}

#[test]
fn freed_memory_is_filled_and_waits() {
    passes_with("pool=hardened", "freed_memory.c", &["0xdb", "1000"]);
}

#[test]
fn freed_memory_is_zeroed_on_request() {
    passes_with("pool=hardened,zero_on_free=true", "freed_memory.c", &["0", "1000"]);
}

#[test]
fn without_a_quarantine_memory_is_used_again_at_once() {
    passes_with("pool=hardened,quarantine=0", "freed_memory.c", &["0xdb", "0"]);
}

#[test]
fn an_empty_heap_of_each_pool_looks_alike_to_malloc_info() {
    passes_in_each("malloc_info.c", &[]);
}

/// A program for each promise of the C surface: what is quick. `cargo xtask ci pools` runs all of them in all pools.
macro_rules! in_each_pool {
    ($($test:ident: $program:literal $(, $argument:literal)*;)*) => {$(
        #[test]
        fn $test() {
            passes_in_each($program, &[$($argument),*]);
        }
    )*};
}

in_each_pool! {
    memory_that_the_program_locks_costs_no_more: "locked.c";
    zero_bytes_are_a_block_of_their_own: "zero_sizes.c";
    every_block_is_aligned: "alignment.c";
    the_figures_are_those_of_whoever_serves: "figures.c";
    the_usable_size_may_be_used: "usable_size.c";
    absurd_sizes_get_null: "absurd_sizes.c";
    far_boundaries_cost_no_memory: "far_boundaries.c";
    errno_is_left_alone: "errno_kept.c";
    the_aligned_entry_points_keep_their_rules: "aligned_rules.c";
    bad_alloc_is_thrown: "bad_alloc.cc";
    replaced_operators_serve: "replaced_new.cc";
    constructors_have_memory_before_main: "early.c";
    a_resolver_has_memory_in_the_middle_of_relocation: "resolver.c";
    a_child_owns_what_its_parent_had: "fork_single.c";
    a_daemon_that_forked_twice_serves_with_threads: "daemon.c";
    thread_local_destructors_allocate_to_the_last: "local_destructors.cc";
    a_thousand_threads_at_once_leave_nothing_behind: "thousand_alive.c";
    a_handler_that_forks_does_not_hang: "fork_in_handler.c";
    a_handler_may_end_the_program: "exit_in_handler.c";
}
