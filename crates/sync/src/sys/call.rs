//! Entering the kernel: numbers, registers, answers.

/// A system call's raw answer: a value, or `-errno` in `-4095..0`.
pub(crate) type Raw = isize;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[cfg_attr(tiermalloc_loom, allow(dead_code))] // no futex under loom
pub(crate) mod nr {
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const MREMAP: usize = 25;
    pub const MINCORE: usize = 27;
    pub const MADVISE: usize = 28;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXIT: usize = 60;
    pub const KILL: usize = 62;
    pub const ARCH_PRCTL: usize = 158;
    pub const FUTEX: usize = 202;
    pub const SCHED_GETAFFINITY: usize = 204;
    pub const CLOCK_GETTIME: usize = 228;
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[cfg_attr(tiermalloc_loom, allow(dead_code))] // no futex under loom
pub(crate) mod nr {
    pub const WRITE: usize = 64;
    pub const EXIT: usize = 93;
    pub const FUTEX: usize = 98;
    pub const CLOCK_GETTIME: usize = 113;
    pub const SCHED_GETAFFINITY: usize = 123;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const GETPID: usize = 172;
    pub const MUNMAP: usize = 215;
    pub const MREMAP: usize = 216;
    pub const CLONE: usize = 220;
    pub const MMAP: usize = 222;
    pub const MPROTECT: usize = 226;
    pub const MINCORE: usize = 232;
    pub const MADVISE: usize = 233;
}

/// # Safety
/// The call `n` with these arguments does nothing that Rust's rules forbid.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[inline]
pub(crate) unsafe fn syscall(n: usize, a: [usize; 6]) -> Raw {
    let r: isize;
    // SAFETY: the kernel's calling convention: number in rax, arguments in rdi, rsi, rdx, r10, r8
    // and r9, answer in rax; rcx and r11 are lost. The caller answers for the call's effect.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") n as isize => r,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    r
}

/// # Safety
/// The call `n` with these arguments does nothing that Rust's rules forbid.
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
#[inline]
pub(crate) unsafe fn syscall(n: usize, a: [usize; 6]) -> Raw {
    let r: isize;
    // SAFETY: the kernel's calling convention: number in x8, arguments in x0 to x5, answer in x0.
    // The caller answers for the call's effect.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") n,
            inlateout("x0") a[0] as isize => r,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack)
        );
    }
    r
}

/// The libc wrappers under the same numbers, for every other unix.
#[cfg(all(
    unix,
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
))]
mod portable {
    pub mod nr {
        pub const WRITE: usize = 0;
        pub const MMAP: usize = 1;
        pub const MUNMAP: usize = 2;
        pub const MREMAP: usize = 3;
        pub const MADVISE: usize = 4;
        pub const FUTEX: usize = 5;
        pub const MPROTECT: usize = 6;
        pub const GETPID: usize = 7;
        pub const KILL: usize = 8;
        pub const MINCORE: usize = 9;
    }

    /// # Safety
    /// As for the call that `n` names.
    pub unsafe fn syscall(n: usize, a: [usize; 6]) -> super::Raw {
        // SAFETY: passed on to the caller.
        unsafe {
            match n {
                nr::WRITE => libc::write(a[0] as i32, a[1] as _, a[2]) as isize,
                nr::MMAP => {
                    let p = libc::mmap(a[0] as _, a[1], a[2] as i32, a[3] as i32, -1, 0);
                    if p == libc::MAP_FAILED { -1 } else { p as isize }
                }
                nr::MUNMAP => libc::munmap(a[0] as _, a[1]) as isize,
                nr::MADVISE => libc::madvise(a[0] as _, a[1], a[2] as i32) as isize,
                nr::MPROTECT => libc::mprotect(a[0] as _, a[1], a[2] as i32) as isize,
                nr::GETPID => libc::getpid() as isize,
                nr::KILL => libc::kill(a[0] as i32, a[1] as i32) as isize,
                nr::MINCORE => libc::mincore(a[0] as _, a[1], a[2] as _) as isize,
                nr::FUTEX => {
                    libc::sched_yield();
                    0
                }
                _ => -1,
            }
        }
    }
}
#[cfg(all(
    unix,
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))
))]
pub(crate) use portable::{nr, syscall};

pub(crate) fn ok(r: Raw) -> Option<usize> {
    if (-4095..0).contains(&r) { None } else { Some(r as usize) }
}
