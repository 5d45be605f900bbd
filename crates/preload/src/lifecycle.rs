//! The library's own life: relocation, loading, unloading, the end of the program.

use core::arch::global_asm;

/// While the library is being relocated, before any constructor: the loader has not yet filled the
/// main thread's TLS block, so its word is 0 and not the address of the empty cache. Resolvers of
/// indirect functions in the program run in that state, and may allocate.
///
/// This is a resolver itself, of a function that nobody calls, and so runs as soon as the library can
/// be used. When the loader fills the TLS block later, the thread gets a second cache; the first one
/// stays behind with what little it holds, and everything that was allocated stays valid.
extern "C" fn at_relocation() -> usize {
    facade::prepare_thread_word();
    0
}

global_asm!(
    ".globl __tiermalloc_resolver",
    ".hidden __tiermalloc_resolver",
    ".type __tiermalloc_resolver, %gnu_indirect_function",
    ".set __tiermalloc_resolver, {resolver}",
    ".pushsection .data.rel.tiermalloc, \"aw\", %progbits",
    ".p2align 3",
    ".globl __tiermalloc_resolved",
    ".hidden __tiermalloc_resolved",
    "__tiermalloc_resolved:",
    ".8byte __tiermalloc_resolver",
    ".popsection",
    resolver = sym at_relocation,
);

unsafe extern "C" {
    static __tiermalloc_resolved: usize;
}

/// Keeps the relocation in the library.
#[used]
static KEEP: Keep = Keep(&raw const __tiermalloc_resolved);

#[repr(transparent)]
struct Keep(*const usize);

// SAFETY: an address that is never followed.
unsafe impl Sync for Keep {}

/// At the start: the fork handlers, before other libraries can register theirs, so that ours are the
/// last before a fork and the first after it. What has allocated by now has done it already.
extern "C" fn at_load() {
    facade::prepare_for_fork();
}

/// At the end of the program, what its main thread has freed is looked at once (see
/// [`facade::verify`]). When a `dlclose` takes the library away, threads must not call into it at
/// their ends any more; what they have cached stays behind.
extern "C" fn at_unload() {
    facade::verify();
    facade::forget_threads();
}

/// The entry in the table of functions that run when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

/// The entry in the table of functions that run when the library is unloaded or the program ends.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_UNLOAD: extern "C" fn() = at_unload;
