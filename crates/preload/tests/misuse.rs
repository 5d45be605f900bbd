//! Misuse: one bug, one line on stderr that names the pointer, one abort. Never a hang, never silent success.
mod support;

use std::os::unix::process::ExitStatusExt;

use support::{compile, passes, plain, preloaded, run, skipped_on_system};

const SIGABRT: i32 = 6;

/// The program announces the pointer that it misuses; the library must name that pointer, in one line, and abort.
fn aborts_with_one_line(program: &str, bug: &str) {
    if skipped_on_system("a message of our own") {
        return;
    }
    let outcome = run(preloaded(compile(&plain(program))).arg(bug));
    let report = outcome.report();
    assert!(!outcome.stdout.contains("survived"), "{bug}: nobody noticed: {report}");
    assert_eq!(outcome.status.signal(), Some(SIGABRT), "{bug}: {report}");
    let pointer = outcome.stdout.trim();
    assert!(pointer.starts_with("0x"), "{bug}: no pointer announced: {report}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{bug}: one line: {report}");
    assert!(outcome.stderr.ends_with('\n'), "{bug}: a whole line: {report}");
    assert!(lines[0].starts_with("tiermalloc: "), "{bug}: says who speaks: {report}");
    let named = lines[0]
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.eq_ignore_ascii_case(pointer));
    assert!(named, "{bug}: names {pointer}: {report}");
}

/// One test for each bug of a program.
macro_rules! bugs {
    ($($name:ident: $program:literal, $bug:literal;)*) => {
        $(
            #[test]
            fn $name() {
                aborts_with_one_line($program, $bug);
            }
        )*
    };
}

bugs! {
    free_of_a_stack_address_aborts: "misuse.c", "stack";
    free_of_a_global_aborts: "misuse.c", "data";
    free_of_a_constant_aborts: "misuse.c", "rodata";
    free_of_code_aborts: "misuse.c", "code";
    free_of_a_foreign_mapping_aborts: "misuse.c", "mapping";
    free_of_a_tiny_address_aborts: "misuse.c", "low";
    free_of_a_kernel_address_aborts: "misuse.c", "kernel";
    free_of_a_non_canonical_address_aborts: "misuse.c", "non-canonical";
    free_of_the_last_user_page_aborts: "misuse.c", "high";
    free_inside_a_small_object_aborts_by_the_flush: "misuse.c", "middle-small";
    free_of_an_odd_address_inside_a_small_object_aborts_by_the_flush: "misuse.c", "middle-small-odd";
    free_inside_a_medium_object_aborts_by_the_flush: "misuse.c", "middle-medium";
    free_inside_a_large_block_aborts: "misuse.c", "middle-large";
    free_just_behind_the_start_of_a_large_block_aborts: "misuse.c", "near-start-of-large";
    free_inside_a_huge_block_aborts: "misuse.c", "middle-huge";
    free_inside_a_free_span_aborts: "misuse.c", "free-span";
    double_free_of_a_large_block_aborts: "misuse.c", "double-large";
    double_free_of_a_huge_block_aborts: "misuse.c", "double-huge";
    double_free_of_a_small_object_aborts_by_the_flush: "misuse.c", "double-small";
    double_free_of_a_medium_object_aborts_by_the_flush: "misuse.c", "double-medium";
    realloc_of_a_stack_address_aborts: "misuse.c", "realloc-foreign";
    realloc_of_a_foreign_mapping_aborts: "misuse.c", "realloc-mapping";
    realloc_inside_a_large_block_aborts: "misuse.c", "realloc-middle-large";
    realloc_of_a_freed_large_block_aborts: "misuse.c", "realloc-freed-large";
    reallocarray_of_a_global_aborts: "misuse.c", "reallocarray-foreign";
    misuse_in_a_child_aborts_the_child: "misuse.c", "in-a-child";
    misuse_without_memory_is_still_reported: "misuse.c", "without-memory";
    delete_of_a_global_aborts: "misuse_new.cc", "delete";
    array_delete_of_a_global_aborts: "misuse_new.cc", "delete[]";
    nothrow_delete_of_a_global_aborts: "misuse_new.cc", "nothrow";
    aligned_delete_of_a_global_aborts: "misuse_new.cc", "aligned";
    delete_inside_a_large_block_aborts: "misuse_new.cc", "middle";
    sized_delete_of_a_global_as_large_aborts: "misuse_new.cc", "sized-large";
}

/// A wrong size may be refused, in one line, or forgiven; blocks that share memory are neither.
fn never_corrupts(how: &str) {
    if skipped_on_system("a sized delete that looks at the size") {
        return passes("wrong_size.cc", &[how]);
    }
    let outcome = run(preloaded(compile(&plain("wrong_size.cc"))).arg(how));
    let forgiven = outcome.status.success() && outcome.stderr.is_empty();
    let refused = outcome.status.signal() == Some(SIGABRT)
        && outcome.stderr.starts_with("tiermalloc: ")
        && outcome.stderr.lines().count() == 1;
    assert!(forgiven || refused, "{how}: {}", outcome.report());
}

#[test]
fn delete_with_half_the_size_never_corrupts() {
    never_corrupts("smaller");
}

#[test]
fn delete_with_twice_the_size_never_corrupts() {
    never_corrupts("bigger");
}

#[test]
fn delete_with_no_size_never_corrupts() {
    never_corrupts("zero");
}

#[test]
fn delete_of_a_small_object_as_a_large_one_never_corrupts() {
    never_corrupts("much-bigger");
}

#[test]
fn delete_with_a_boundary_that_new_did_not_have_never_corrupts() {
    never_corrupts("aligned");
}
