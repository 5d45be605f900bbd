//! Limits: where memory ends, malloc says null and ENOMEM, keeps what it gave, and works again after a free.
mod support;

use support::passes;

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
