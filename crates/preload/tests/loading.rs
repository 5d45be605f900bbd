//! Loading: before main, by dlopen, and beside another heap.
mod support;

use support::{
    bare, compile, passes, plain, plugin, preloaded, shared_object, skipped_on_system, succeeds,
};

fn used_through_dlopen(how: &str) {
    if skipped_on_system("loading the library by dlopen") {
        return;
    }
    let library = shared_object().expect("not on the system's allocator");
    succeeds(bare(compile(&plain("dlopen_use.c"))).arg(library).arg(how));
}

#[test]
fn threads_use_a_library_loaded_locally_and_outlive_its_dlclose() {
    used_through_dlopen("local");
}

#[test]
fn threads_use_a_deeply_bound_library_and_outlive_its_dlclose() {
    used_through_dlopen("deepbind");
}

#[test]
fn constructors_have_memory_before_main() {
    passes("early.c", &[]);
}

#[test]
fn a_resolver_has_memory_in_the_middle_of_relocation() {
    passes("resolver.c", &[]);
}

#[test]
fn a_resolver_of_an_eagerly_bound_program_has_memory() {
    succeeds(preloaded(compile(&plain("resolver.c"))).env("LD_BIND_NOW", "1"));
}

#[test]
fn plugins_come_and_go_while_blocks_live() {
    let plugin = compile(&plugin("plugin.cc"));
    succeeds(preloaded(compile(&plain("reopened.c"))).arg(plugin));
}

#[test]
fn a_preloaded_library_may_be_opened_and_closed_as_well() {
    if skipped_on_system("opening the preloaded library") {
        return;
    }
    // The handle is the preloaded object itself: closing it takes nothing away.
    let library = shared_object().expect("not on the system's allocator");
    succeeds(preloaded(compile(&plain("reopened.c"))).arg(library));
}
