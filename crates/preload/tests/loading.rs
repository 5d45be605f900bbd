//! Loading: before main, by dlopen, and beside another heap.
mod support;

use std::fs;

use support::{
    Source, bare, compile, passes, plain, plugin, preloaded, scratch, shared_object,
    skipped_on_system, succeeds,
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

fn blocks_go_both_ways(how: &str) {
    let (c, cxx) = (compile(&plugin("deep_plugin.c")), compile(&plugin("plugin.cc")));
    succeeds(preloaded(compile(&plain("deep.c"))).arg(how).args([&c, &cxx]));
    let fixed = Source { flags: &["-no-pie", "-fno-pie"], variant: ".fixed", ..plain("deep.c") };
    succeeds(preloaded(compile(&fixed)).arg(how).args([c, cxx]));
}

#[test]
fn a_library_that_looks_into_glibc_first_has_the_programs_heap() {
    blocks_go_both_ways("now");
}

#[test]
fn a_library_that_looks_into_glibc_first_and_late_has_the_programs_heap() {
    blocks_go_both_ways("lazy");
}

#[test]
fn a_library_that_looks_into_glibc_first_does_not_find_the_programs_operators() {
    let library = compile(&plugin("deep_plugin.c"));
    succeeds(preloaded(compile(&plain("deep_own_new.cc"))).arg(library));
}

#[test]
fn there_is_one_heap_by_whatever_way_it_is_found() {
    let library = compile(&plugin("deep_plugin.c"));
    succeeds(preloaded(compile(&plain("deep_handle.c"))).arg(library));
}

#[test]
fn the_loader_knows_who_opens_a_library() {
    let directory = scratch("run-path");
    fs::copy(compile(&plugin("deep_plugin.c")), directory.join("libdeep_sought.so")).unwrap();
    let flag = format!("-Wl,--enable-new-dtags,-rpath,{}", directory.display());
    let flags = [flag.as_str()];
    let program = compile(&Source { name: "run_path.c", flags: &flags, variant: "" });
    succeeds(&mut preloaded(program));
}
