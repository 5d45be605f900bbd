//! What the shared object shows to the dynamic linker: every name that a drop-in must have, none that it must not, and
//! nothing that makes it slow or impossible to load.
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use support::{shared_object, skipped_on_system};

/// C: the standards', POSIX's and glibc's names.
const C_NAMES: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "free",
    "posix_memalign",
    "memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "reallocarray",
    "cfree",
    "free_sized",
    "free_aligned_sized",
    "malloc_usable_size",
    "mallinfo",
    "mallinfo2",
    "mallopt",
    "malloc_stats",
    "malloc_trim",
    "malloc_info",
    "__libc_malloc",
    "__libc_free",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__libc_valloc",
    "__libc_pvalloc",
    "__libc_cfree",
    "__posix_memalign",
];

/// C++: operator new and delete, by their mangled names where `size_t` is `unsigned long`.
const CXX_NAMES: [&str; 20] = [
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];

/// Further names that may be exported although no program calls them: glibc's own for its allocator, and the hooks that a
/// static glibc calls, which the archive needs and the shared object, made of the same crate, has as well.
const ALLOWED: &[&str] = &[
    "__libc_mallinfo",
    "__libc_mallopt",
    "__libc_reallocarray",
    "__malloc_fork_lock_parent",
    "__malloc_fork_unlock_parent",
    "__malloc_fork_unlock_child",
    "__malloc_arena_thread_freeres",
    // For libraries that look into glibc first.
    "dlopen",
    "dlmopen",
];

/// Our own, should there be some, carry the project's name.
const OWN_PREFIXES: [&str; 2] = ["tiermalloc_", "__tiermalloc_"];

/// glibc finds the TLS block of a library that is loaded by dlopen a place in a small reserve that all such libraries
/// share; a block of a few words always fits.
const LARGEST_TLS_BLOCK: u64 = 64;

fn output_of(tool: &str, arguments: &[&str]) -> String {
    let library = shared_object().expect("not on the system's allocator");
    let output = Command::new(tool)
        .args(arguments)
        .arg(library)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{tool}, of binutils: {error}"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The defined dynamic symbols, with nm's letter for what each is.
fn exported() -> BTreeMap<String, String> {
    output_of("nm", &["-D", "--defined-only"])
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().rev();
            let name = words.next()?;
            let kind = words.next()?;
            Some((name.to_string(), kind.to_string()))
        })
        .collect()
}

#[test]
fn every_name_of_the_surface_is_exported_as_a_function() {
    if skipped_on_system("the list of exported names") {
        return;
    }
    let exported = exported();
    let missing: Vec<_> = C_NAMES
        .iter()
        .chain(&CXX_NAMES)
        .filter(|&&name| !matches!(exported.get(name).map(String::as_str), Some("T" | "W")))
        .collect();
    assert!(missing.is_empty(), "not exported as functions: {missing:?}");
}

#[test]
fn nothing_else_is_exported() {
    if skipped_on_system("the list of exported names") {
        return;
    }
    let extras: Vec<_> = exported()
        .into_keys()
        .filter(|name| {
            let name = name.as_str();
            !C_NAMES.contains(&name) && !CXX_NAMES.contains(&name) && !ALLOWED.contains(&name)
        })
        .filter(|name| !OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(extras.is_empty(), "exported beyond the surface: {extras:?}");
}

#[test]
fn libc_is_all_it_needs() {
    if skipped_on_system("the dynamic section") {
        return;
    }
    let dynamic = output_of("readelf", &["-dW"]);
    let needed: Vec<_> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(needed.contains(&"libc.so.6"), "needs {needed:?}");
    let others: Vec<_> = needed
        .iter()
        .filter(|name| **name != "libc.so.6" && !name.starts_with("ld-linux"))
        .collect();
    assert!(others.is_empty(), "each of these costs every start of every program: {others:?}");
}

#[test]
fn every_symbol_it_must_have_comes_from_libc() {
    if skipped_on_system("the list of undefined names") {
        return;
    }
    let undefined = output_of("nm", &["-D", "--undefined-only"]);
    let strangers: Vec<_> = undefined
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("U "))
        .filter(|name| !name.contains("@GLIBC_") && !name.starts_with("__tls_get_addr"))
        .collect();
    assert!(strangers.is_empty(), "a C program has none of these: {strangers:?}");
}

#[test]
fn its_code_is_shared_by_all_processes() {
    if skipped_on_system("the dynamic section") {
        return;
    }
    let dynamic = output_of("readelf", &["-dW"]);
    assert!(!dynamic.contains("TEXTREL"), "relocations in the code: {dynamic}");
    let segments = output_of("readelf", &["-lW"]);
    // Type Offset VirtAddr PhysAddr FileSiz MemSiz Flg Align, where Flg is one to three words.
    for line in segments.lines().map(str::trim_start) {
        if line.starts_with("LOAD") || line.starts_with("GNU_STACK") {
            let flags: String =
                line.split_whitespace().skip(6).filter(|w| !w.starts_with("0x")).collect();
            assert!(flags.contains('R'), "no flags in {line}");
            assert!(
                !(flags.contains('W') && flags.contains('E')),
                "writable and executable: {line}"
            );
        }
    }
}

#[test]
fn its_thread_local_block_fits_where_dlopen_puts_it() {
    if skipped_on_system("the segments") {
        return;
    }
    let segments = output_of("readelf", &["-lW"]);
    // Type Offset VirtAddr PhysAddr FileSiz MemSiz Flg Align
    for line in segments.lines().map(str::trim_start).filter(|line| line.starts_with("TLS")) {
        let size = line.split_whitespace().nth(5).and_then(|word| word.strip_prefix("0x"));
        let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = size.unwrap_or_else(|| panic!("no size in {line}"));
        assert!(size <= LARGEST_TLS_BLOCK, "a TLS block of {size} bytes");
    }
}
