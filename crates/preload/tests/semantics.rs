//! The C surface: what the standards say, and what glibc does where programs rely on it.
mod support;

use support::passes;

#[test]
fn zero_bytes_are_a_block_of_their_own_and_realloc_to_zero_frees() {
    passes("zero_sizes.c", &[]);
}

#[test]
fn every_block_is_aligned_to_16_bytes_and_overlaps_no_other() {
    passes("alignment.c", &[]);
}

#[test]
fn the_usable_size_may_be_used_to_its_last_byte() {
    passes("usable_size.c", &[]);
}

#[test]
fn calloc_gives_zeros_on_recycled_memory_of_any_size() {
    passes("calloc_zero.c", &[]);
}

#[test]
fn absurd_sizes_get_null_and_enomem_from_every_entry_point() {
    passes("absurd_sizes.c", &[]);
}

#[test]
fn success_and_free_leave_errno_alone() {
    passes("errno_kept.c", &[]);
}

#[test]
fn realloc_keeps_contents_through_all_sizes_and_when_it_fails() {
    passes("realloc_contents.c", &[]);
}

#[test]
fn any_power_of_two_up_to_gigabytes_is_a_boundary() {
    passes("aligned_powers.c", &[]);
}

#[test]
fn the_aligned_entry_points_keep_posix_and_glibc_rules() {
    passes("aligned_rules.c", &[]);
}

#[test]
fn every_alias_means_the_same_heap() {
    passes("aliases.c", &[]);
}

#[test]
fn mallinfo_and_its_kin_tell_the_truth() {
    passes("figures.c", &[]);
}

#[test]
fn malloc_info_writes_well_formed_xml_to_its_stream() {
    passes("malloc_info.c", &[]);
}
