//! The thread's word: the address of its cache.
//!
//! On Linux a symbol in `.tdata`, defined in assembly and read through the initial-exec model: two
//! instructions in a shared library, one in a program, no call, no lazy initialisation (it starts as
//! the address of `EMPTY`), and small enough for `dlopen`'s static TLS reserve. `thread_local!` in a
//! shared library would call `__tls_get_addr`, which may itself allocate.
//!
//! Elsewhere, and with the feature `dynamic-tls`, the value of a pthread key.

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "dynamic-tls")
))]
mod imp {
    use core::arch::{asm, global_asm};

    use tiermalloc_thread_cache::ThreadCache;

    use crate::state::EMPTY;

    // One word per thread. The name carries the version, so that two versions of the crate in one
    // program do not share it; hidden, so that two libraries do not either.
    global_asm!(
        ".pushsection .tdata, \"awT\", %progbits",
        ".p2align 3",
        ".globl __tiermalloc_0_1_cache",
        ".hidden __tiermalloc_0_1_cache",
        ".type __tiermalloc_0_1_cache, %object",
        ".size __tiermalloc_0_1_cache, 8",
        "__tiermalloc_0_1_cache:",
        ".8byte {empty}",
        ".popsection",
        empty = sym EMPTY,
    );

    #[inline(always)]
    pub(crate) fn cache() -> *const ThreadCache {
        let cache: *const ThreadCache;
        // Not `pure`: a program may switch stacks between threads, so each read is done anew.
        // SAFETY: reads the thread's word, which always holds the address of a cache (G1).
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                "mov {0}, qword ptr [rip + __tiermalloc_0_1_cache@GOTTPOFF]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) cache,
                options(nostack, preserves_flags, nomem)
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                "adrp {0}, :gottprel:__tiermalloc_0_1_cache",
                "ldr {0}, [{0}, #:gottprel_lo12:__tiermalloc_0_1_cache]",
                "mrs {1}, tpidr_el0",
                "ldr {0}, [{0}, {1}]",
                out(reg) cache,
                out(reg) _,
                options(nostack, preserves_flags, nomem)
            );
        }
        cache
    }

    /// See [`crate::prepare_thread_word`].
    pub(crate) fn prepare() -> bool {
        if tiermalloc_sync::sys::thread_pointer() == 0 {
            return false;
        }
        if cache().is_null() {
            set_cache(EMPTY.as_ptr());
        }
        true
    }

    #[inline]
    pub(crate) fn set_cache(cache: *const ThreadCache) {
        // SAFETY: writes the thread's word.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            asm!(
                "mov {0}, qword ptr [rip + __tiermalloc_0_1_cache@GOTTPOFF]",
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _,
                in(reg) cache,
                options(nostack, preserves_flags)
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                "adrp {0}, :gottprel:__tiermalloc_0_1_cache",
                "ldr {0}, [{0}, #:gottprel_lo12:__tiermalloc_0_1_cache]",
                "mrs {1}, tpidr_el0",
                "str {2}, [{0}, {1}]",
                out(reg) _,
                out(reg) _,
                in(reg) cache,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "dynamic-tls")
)))]
mod imp {
    use tiermalloc_thread_cache::ThreadCache;

    use crate::state::EMPTY;
    use crate::thread;

    #[inline]
    pub(crate) fn cache() -> *const ThreadCache {
        let Some(key) = thread::key_if_ready() else { return EMPTY.as_ptr() };
        // SAFETY: the key exists for the rest of the process.
        let value = unsafe { libc::pthread_getspecific(key) };
        if value.is_null() { EMPTY.as_ptr() } else { value.cast() }
    }

    /// A key's value starts as null, which `cache` knows.
    pub(crate) fn prepare() -> bool {
        true
    }

    #[inline]
    pub(crate) fn set_cache(cache: *const ThreadCache) {
        if let Some(key) = thread::key() {
            // SAFETY: the key exists for the rest of the process.
            unsafe { libc::pthread_setspecific(key, cache.cast()) };
        }
    }
}

pub(crate) use imp::{cache, prepare, set_cache};
