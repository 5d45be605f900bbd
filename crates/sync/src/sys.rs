//! The Linux system calls of an allocator, straight to the kernel.
//!
//! libc's wrappers write `errno`, and a `free` that succeeds must not. On processors without a
//! version here the wrappers are used and `errno` is put back by the C surface.
//!
//! All functions are safe against fork, signals and threads: they hold no state.

mod call;
pub mod files;

use call::nr;
pub(crate) use call::{ok, syscall};

/// Sleeps while `word` holds `expected`. May return early.
#[cfg(not(tiermalloc_loom))]
#[inline]
pub fn futex_wait(word: &core::sync::atomic::AtomicU32, expected: u32) {
    const FUTEX_WAIT_PRIVATE: usize = 128;
    // SAFETY: the word outlives the call, and waiting on it has no effect on memory.
    unsafe {
        syscall(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAIT_PRIVATE, expected as usize, 0, 0, 0])
    };
}

/// Wakes one thread that sleeps on `word`.
#[cfg(not(tiermalloc_loom))]
#[inline]
pub fn futex_wake_one(word: &core::sync::atomic::AtomicU32) {
    const FUTEX_WAKE_PRIVATE: usize = 129;
    // SAFETY: waking has no effect on memory.
    unsafe { syscall(nr::FUTEX, [word.as_ptr() as usize, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0]) };
}

/// Sleeps while `word` holds `expected`, `ms` milliseconds at most. May return early.
#[cfg(not(tiermalloc_loom))]
pub fn futex_wait_for(word: &core::sync::atomic::AtomicU32, expected: u32, ms: u64) {
    const FUTEX_WAIT_PRIVATE: usize = 128;
    futex_wait_timed(word, FUTEX_WAIT_PRIVATE, expected, ms);
}

/// [`futex_wait_for`] on a word that the kernel itself will change, at the end of a thread.
#[cfg(not(tiermalloc_loom))]
pub fn futex_wait_shared(word: &core::sync::atomic::AtomicU32, expected: u32, ms: u64) {
    const FUTEX_WAIT: usize = 0;
    futex_wait_timed(word, FUTEX_WAIT, expected, ms);
}

#[cfg(not(tiermalloc_loom))]
fn futex_wait_timed(word: &core::sync::atomic::AtomicU32, op: usize, expected: u32, ms: u64) {
    // As the kernel has it on 64-bit machines: seconds, nanoseconds.
    let timeout = [ms / 1000, ms % 1000 * 1_000_000];
    let timeout = &raw const timeout as usize;
    // SAFETY: the word and the timeout outlive the call, and waiting has no effect on memory.
    unsafe { syscall(nr::FUTEX, [word.as_ptr() as usize, op, expected as usize, timeout, 0, 0]) };
}

/// Anonymous, private, zeroed, readable and writable memory of `bytes` bytes, near `hint` if the
/// kernel likes it; `None` when there is none, or when the kernel takes the request for absurd.
#[inline]
pub fn map_anonymous(hint: usize, bytes: usize) -> Option<usize> {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANON) as usize;
    // SAFETY: without MAP_FIXED a mapping never replaces another one.
    ok(unsafe { syscall(nr::MMAP, [hint, bytes, prot, flags, usize::MAX, 0]) })
}

/// Gives mapped pages back, addresses included. `false` when the kernel refuses.
///
/// # Safety
/// The pages came from [`map_anonymous`] and nobody uses them any more.
#[inline]
pub unsafe fn unmap(address: usize, bytes: usize) -> bool {
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MUNMAP, [address, bytes, 0, 0, 0, 0]) }).is_some()
}

/// Gives the memory behind pages back and keeps the addresses: the next touch reads zero.
///
/// # Safety
/// The pages came from [`map_anonymous`] and nobody needs what they hold.
#[inline]
pub unsafe fn decommit(address: usize, bytes: usize) -> bool {
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MADVISE, [address, bytes, libc::MADV_DONTNEED as usize, 0, 0, 0]) })
        .is_some()
}

/// Asks for huge pages behind a range, or for none. `false`: the kernel has no such thing, and nothing has changed.
///
/// # Safety
/// The pages came from [`map_anonymous`].
pub unsafe fn advise_huge(address: usize, bytes: usize, wanted: bool) -> bool {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return false;
    }
    const HUGEPAGE: usize = 14;
    const NOHUGEPAGE: usize = 15;
    let advice = if wanted { HUGEPAGE } else { NOHUGEPAGE };
    // SAFETY: what the pages hold stays as it is.
    ok(unsafe { syscall(nr::MADVISE, [address, bytes, advice, 0, 0, 0]) }).is_some()
}

/// Whether there is memory behind the page of the system's that starts at an address, as far as the kernel says without
/// being asked for the memory itself. `false` also where nothing is mapped. Touches nothing.
pub fn is_resident(page: usize) -> bool {
    let mut answer = 0u8;
    // SAFETY: the kernel writes a byte for each page.
    let known = ok(unsafe { syscall(nr::MINCORE, [page, 1, &raw mut answer as usize, 0, 0, 0]) });
    known.is_some() && answer & 1 == 1
}

/// Resizes a mapping where it is. `false`: nothing has changed.
///
/// # Safety
/// `[address, address + old)` is mapped by [`map_anonymous`]; when it shrinks, nobody uses the end.
#[inline]
pub unsafe fn remap_in_place(address: usize, old: usize, new: usize) -> bool {
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MREMAP, [address, old, new, 0, 0, 0]) }).is_some()
}

/// Whether [`remap_in_place`] of a mapping that has no room to grow fails for that reason alone, so
/// that moving it may succeed. `false` for ranges that are not one mapping, or not to be moved.
///
/// # Safety
/// As for [`remap_in_place`], with `new > old`.
pub unsafe fn may_move(address: usize, old: usize, new: usize) -> bool {
    // SAFETY: passed on to the caller.
    let answer = unsafe { syscall(nr::MREMAP, [address, old, new, 0, 0, 0]) };
    if answer >= 0 {
        // There is room after all. Leave things as they were.
        // SAFETY: the end was added a moment ago.
        return unsafe { unmap(address + old, new - old) };
    }
    answer == -(libc::ENOMEM as isize)
}

/// Maps exactly `[address, address + bytes)` if nothing is there. `false`: something is.
pub fn map_if_vacant(address: usize, bytes: usize) -> bool {
    const FIXED_NOREPLACE: usize = 0x10_0000;
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANON) as usize | FIXED_NOREPLACE;
    // SAFETY: a mapping that replaces none.
    let got = ok(unsafe { syscall(nr::MMAP, [address, bytes, prot, flags, usize::MAX, 0]) });
    match got {
        Some(got) if got == address => true,
        Some(got) => {
            // A kernel that does not know the flag took the address as a hint.
            // SAFETY: mapped a moment ago, and seen by nobody.
            unsafe { unmap(got, bytes) };
            false
        }
        None => false,
    }
}

/// Moves a mapping onto `target`, resizing it. `false`: nothing has changed.
///
/// # Safety
/// `[address, address + old)` is mapped by [`map_anonymous`] and not used at that address any more
/// once this succeeds; `[target, target + new)` is the caller's to replace.
#[inline]
pub unsafe fn remap_onto(address: usize, old: usize, new: usize, target: usize) -> bool {
    const MAYMOVE_FIXED: usize = 1 | 2;
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MREMAP, [address, old, new, MAYMOVE_FIXED, target, 0]) }).is_some()
}

/// Makes pages inaccessible: a touch ends the program with SIGSEGV. `false`: nothing has changed.
///
/// # Safety
/// The pages came from [`map_anonymous`] and nobody touches them.
pub unsafe fn forbid(address: usize, bytes: usize) -> bool {
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MPROTECT, [address, bytes, libc::PROT_NONE as usize, 0, 0, 0]) })
        .is_some()
}

/// Addresses of `bytes` bytes that nobody can touch, and that cost nothing; `None` when there are none.
pub fn map_closed(bytes: usize) -> Option<usize> {
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE) as usize;
    // SAFETY: without MAP_FIXED a mapping never replaces another one.
    ok(unsafe { syscall(nr::MMAP, [0, bytes, libc::PROT_NONE as usize, flags, usize::MAX, 0]) })
}

/// [`map_anonymous`], with no memory set aside for it.
pub fn map_unreserved(bytes: usize) -> Option<usize> {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE) as usize;
    // SAFETY: without MAP_FIXED a mapping never replaces another one.
    ok(unsafe { syscall(nr::MMAP, [0, bytes, prot, flags, usize::MAX, 0]) })
}

/// Makes pages as [`map_closed`] gives them, whatever they hold; they join neighbours of the kind. `false`:
/// nothing has changed.
///
/// # Safety
/// The pages came from a mapping here, and nobody needs what they hold.
pub unsafe fn close_anew(address: usize, bytes: usize) -> bool {
    let prot = libc::PROT_NONE as usize;
    let flags =
        (libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE | libc::MAP_FIXED) as usize;
    // SAFETY: replaces what the caller gives up.
    ok(unsafe { syscall(nr::MMAP, [address, bytes, prot, flags, usize::MAX, 0]) }).is_some()
}

/// Makes closed pages readable and writable; what is so already stays so, marks or not. `false`: nothing has changed, as
/// when the process has as many mappings as it may have.
///
/// # Safety
/// The pages came from [`map_closed`] or [`map_unreserved`].
pub unsafe fn allow(address: usize, bytes: usize) -> bool {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MPROTECT, [address, bytes, prot, 0, 0, 0]) }).is_some()
}

/// Marks pages such that a touch ends the program with SIGSEGV, without a mapping of their own, and drops what
/// they hold (Linux 6.13). `false`: this kernel cannot, or not there.
///
/// # Safety
/// The pages came from [`map_unreserved`] or [`map_closed`], and nobody needs what they hold.
pub unsafe fn mark_closed(address: usize, bytes: usize) -> bool {
    const GUARD_INSTALL: usize = 102;
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MADVISE, [address, bytes, GUARD_INSTALL, 0, 0, 0]) }).is_some()
}

/// Takes the marks of [`mark_closed`] away, if there are any; the pages are zero. `false`: they stay.
///
/// # Safety
/// The pages came from [`map_unreserved`] or [`map_closed`].
pub unsafe fn unmark_closed(address: usize, bytes: usize) -> bool {
    const GUARD_REMOVE: usize = 103;
    // SAFETY: passed on to the caller.
    ok(unsafe { syscall(nr::MADVISE, [address, bytes, GUARD_REMOVE, 0, 0, 0]) }).is_some()
}

/// Whether the word at `address`, which is zero if it can be read, can be read: the kernel is asked to, and
/// changes nothing.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn can_read_zero(address: usize) -> bool {
    // To block the signals of an empty set.
    // SAFETY: an address that cannot be read is an error, not a fault.
    ok(unsafe { syscall(nr::RT_SIGPROCMASK, [libc::SIG_BLOCK as usize, address, 0, 8, 0, 0]) })
        .is_some()
}

/// Not known here.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn can_read_zero(_address: usize) -> bool {
    true
}

/// Whether the kernel makes huge pages wherever it can, without being asked: what `always` is in
/// `/sys/kernel/mm/transparent_hugepage/enabled`. `None` where that cannot be read, at this moment (no descriptor is left) or
/// ever. Cost: four system calls.
pub fn makes_huge_pages_unasked() -> Option<bool> {
    const PATH: &core::ffi::CStr = c"/sys/kernel/mm/transparent_hugepage/enabled";
    let mut text = [0; 64];
    let length = files::File::open(PATH).ok()?.read(&mut text).ok()?;
    Some(text[..length].windows(8).any(|word| word == b"[always]"))
}

/// Milliseconds of a monotonic, coarse clock: no system call where the kernel offers it without.
#[inline]
pub fn now_ms() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; on failure it stays zero.
    unsafe { libc::clock_gettime(CLOCK, &raw mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// [`now_ms`] by the kernel itself: for who asks once, since the C library's way to the clock lies in pages that most
/// programs never touch.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn now_ms_once() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (clock, at) = (libc::CLOCK_MONOTONIC_COARSE as usize, &raw mut now as usize);
    // SAFETY: the kernel writes one; on failure it stays zero.
    unsafe { syscall(nr::CLOCK_GETTIME, [clock, at, 0, 0, 0, 0]) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// [`now_ms`].
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn now_ms_once() -> u64 {
    now_ms()
}

/// The process that the caller is, as the kernel has it: also after a fork that the C library was not asked
/// for, and in a child that shares this memory.
#[inline]
pub fn process() -> u32 {
    // SAFETY: the call has no effect.
    unsafe { syscall(nr::GETPID, [0; 6]) as u32 }
}

/// Processors that the calling thread may run on; 1 where that cannot be told.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn processors() -> usize {
    // 1,024 of them; the kernel refuses less than it has.
    let mut set = [0u64; 16];
    let (bytes, at) = (size_of_val(&set), set.as_mut_ptr() as usize);
    // SAFETY: the kernel writes at most `bytes` bytes.
    match unsafe { syscall(nr::SCHED_GETAFFINITY, [0, bytes, at, 0, 0, 0]) } {
        written if written > 0 => set.iter().map(|word| word.count_ones() as usize).sum(),
        refused if refused == -(libc::EINVAL as isize) => 8 * bytes,
        _ => 1,
    }
}

/// Processors that the calling thread may run on; 1 where that cannot be told.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub fn processors() -> usize {
    1
}

/// Sends the process that the caller is a signal, for any of its threads to take.
pub fn signal_process(signal: libc::c_int) {
    // SAFETY: what a signal does is the program's to say.
    unsafe { syscall(nr::KILL, [process() as usize, signal as usize, 0, 0, 0, 0]) };
}

/// Sleeps for about `ms` milliseconds.
#[cfg(not(tiermalloc_loom))]
pub fn sleep(ms: u64) {
    futex_wait_for(&core::sync::atomic::AtomicU32::new(0), 0, ms);
}

/// The address that the calling thread's TLS is reached from; 0 while it has none, as early in the
/// start of a static program.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn thread_pointer() -> usize {
    const ARCH_GET_FS: usize = 0x1003;
    let mut base = 0usize;
    // SAFETY: `base` is writable. Reading the register itself is not allowed on every kernel.
    unsafe { syscall(nr::ARCH_PRCTL, [ARCH_GET_FS, &raw mut base as usize, 0, 0, 0, 0]) };
    base
}

/// The address that the calling thread's TLS is reached from; 0 while it has none, as early in the
/// start of a static program.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub fn thread_pointer() -> usize {
    let base: usize;
    // SAFETY: reads a register that every program may read.
    unsafe { core::arch::asm!("mrs {}, tpidr_el0", out(reg) base, options(nomem, nostack)) };
    base
}

/// Starts a thread that the C library knows nothing of. It runs `body` on the stack below `top` with all
/// signals blocked and `tls` for its thread pointer, and ends. `tid` holds its number from before it
/// runs until the kernel has seen its end, and then 0. `false`: the kernel makes none.
///
/// # Safety
/// `top` is the end of a stack that nobody else uses until `tid` is 0, aligned to 16 bytes; `tid` and what is
/// around `tls` stay as long; `body` touches nothing that depends on which thread it runs in.
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(tiermalloc_loom)
))]
pub unsafe fn spawn(
    top: usize,
    tls: usize,
    tid: &core::sync::atomic::AtomicU32,
    body: extern "C" fn(),
) -> bool {
    // Those that every threading library asks for, which is what sandboxes let pass: memory, directory,
    // files, handlers, thread group, semaphores, thread pointer, number told and cleared.
    const FLAGS: usize =
        0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x10_0000 | 0x20_0000;
    const SIG_SETMASK: usize = 2;
    let (all, mut before) = (u64::MAX, 0u64);
    let (all, before) = (&raw const all as usize, &raw mut before as usize);
    let tid = tid.as_ptr() as usize;
    let answer: isize;
    // SAFETY: the masks are words of ours, eight bytes as the kernel has them. The new thread begins
    // behind the system call with the registers of this one but for the stack and the answer; it calls
    // `body` with the stack aligned as a call leaves it, and never comes back to Rust.
    unsafe {
        syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, all, before, 8, 0, 0]);
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call r12",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const nr::EXIT,
            inlateout("rax") nr::CLONE as isize => answer,
            in("rdi") FLAGS, in("rsi") top, in("rdx") tid, in("r10") tid, in("r8") tls,
            in("r12") body,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "blr x9",
            "mov x0, xzr",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const nr::EXIT,
            in("x8") nr::CLONE,
            inlateout("x0") FLAGS as isize => answer,
            in("x1") top, in("x2") tid, in("x3") tls, in("x4") tid,
            in("x9") body,
            options(nostack)
        );
        syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, before, 0, 8, 0, 0]);
    }
    ok(answer).is_some()
}

/// Writes to standard error, in one call, whatever the kernel takes of it.
pub fn write_stderr(text: &[u8]) {
    // SAFETY: the slice is readable for its length.
    unsafe { syscall(nr::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
}

/// Size of the operating system's pages in bytes: 4, 16 or 64 KiB, asked at run time.
#[inline]
pub fn os_page_size() -> usize {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        // The architecture has no other.
        4096
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    {
        // SAFETY: sysconf only reads what the loader left in memory.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if size > 0 { size as usize } else { 4096 }
    }
}
