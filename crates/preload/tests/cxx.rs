//! The C++ surface: operator new and delete, the new-handler, exceptions, and the way out of a program.
mod support;

use support::{compile, passes, plugin};

#[test]
fn all_twenty_forms_of_new_and_delete_work_and_pair() {
    passes("new_delete_forms.cc", &[]);
}

#[test]
fn a_real_bad_alloc_is_thrown_and_can_be_caught() {
    passes("bad_alloc.cc", &[]);
}

#[test]
fn the_new_handler_is_asked_until_it_frees_throws_or_resigns() {
    passes("new_handler.cc", &[]);
}

#[test]
fn a_library_loaded_locally_by_a_c_program_catches_bad_alloc() {
    let plugin = compile(&plugin("plugin.cc"));
    passes("local_scope.c", &[plugin.to_str().expect("a path in UTF-8")]);
}

#[test]
fn containers_strings_and_futures_keep_their_contents() {
    passes("containers.cc", &[]);
}

#[test]
fn destructors_and_exit_handlers_free_after_our_own_clean_up() {
    passes("exit_order.cc", &[]);
}

#[test]
fn operators_that_a_program_replaces_serve_the_forms_that_it_does_not() {
    passes("replaced_new.cc", &[]);
}
