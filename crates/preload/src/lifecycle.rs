//! The library's own life: relocation, loading, unloading, the end of the program.

use core::arch::{asm, global_asm};

use crate::cxx;

/// While the library is being relocated, before any constructor: the loader has not yet filled the
/// main thread's TLS block, so its word is 0 and not the address of the empty cache. Resolvers of
/// indirect functions in the program run in that state, and may allocate.
///
/// This is a resolver itself, of a function that nobody calls, and so runs as soon as the library can
/// be used. When the loader fills the TLS block later, the thread gets a second cache; the first one
/// stays behind with what little it holds, and everything that was allocated stays valid.
///
/// It is also the moment to register the fork handlers. Before a fork, handlers run in the opposite
/// order of their registration. Others' may allocate, or wait for somebody who does, so ours, which
/// takes all locks, has to be the last one; and other libraries' constructors run before ours.
#[unsafe(link_section = ".text.hot.tiermalloc")]
extern "C" fn at_relocation() -> usize {
    let register: usize;
    // SAFETY: reads an entry of the table that the loader has filled, or not yet.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("mov {0}, qword ptr [rip + __register_atfork@GOTPCREL]", out(reg) register);
        #[cfg(target_arch = "aarch64")]
        asm!(
            "adrp {0}, :got:__register_atfork",
            "ldr {0}, [{0}, #:got_lo12:__register_atfork]",
            out(reg) register,
        );
    }
    if facade::prepare_thread_word() && register != 0 {
        // SAFETY: glibc's function behind pthread_atfork, which a C program calls with these arguments.
        // It touches a table of its own, which is there before any constructor has run.
        unsafe {
            let register = core::mem::transmute::<usize, Register>(register);
            facade::prepare_for_fork_by(|prepare, parent, child| {
                register(prepare, parent, child, &raw const __dso_handle);
            });
        }
    }
    0
}

type Register = unsafe extern "C" fn(
    unsafe extern "C" fn(),
    unsafe extern "C" fn(),
    unsafe extern "C" fn(),
    *const u8,
) -> i32;

unsafe extern "C" {
    /// What stands for this library among the owners of handlers: they go when it goes.
    static __dso_handle: u8;
}

global_asm!(
    ".hidden __dso_handle",
    ".weak __register_atfork",
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

/// At the start: the fork handlers, if it could not be done earlier, and the program's own operators.
#[unsafe(link_section = ".text.hot.tiermalloc")]
extern "C" fn at_load() {
    facade::prepare_for_fork();
    // Also for a program that never allocates: what was asked for at its start or its end is for it, too.
    facade::prepare_reports();
    cxx::find_replaced();
}

/// At the end of the program, what its main thread has freed is looked at once (see
/// [`facade::verify`]). When a `dlclose` takes the library away, threads must not call into it at
/// their ends any more; what they have cached stays behind.
#[unsafe(link_section = ".text.hot.tiermalloc")]
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
