//! What each pool promises beside the same malloc.
mod support;

use std::process::Command;

use support::{compile, plain, preloaded, skipped_on_system, succeeds};

fn configured(program: &str, configuration: &str) -> Command {
    let mut command = preloaded(compile(&plain(program)));
    command.env("TIERMALLOC_CONF", configuration);
    command
}

fn passes_with(configuration: &str, program: &str, arguments: &[&str]) {
    if skipped_on_system("a pool of our own") {
        return;
    }
    succeeds(configured(program, configuration).args(arguments));
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
    if skipped_on_system("figures of our own") {
        return;
    }
    for pool in ["tiered", "central", "hardened"] {
        succeeds(&mut configured("malloc_info.c", &format!("pool={pool}")));
    }
}
