//! The guarded pool: mistakes end at the faulty instruction, its memory is bounded, and it serves like any other. Each
//! test runs in a process of its own, with the pool chosen by the environment.
#![cfg(target_os = "linux")]
// The misuse is the point, and there is nothing to say for it.
#![allow(clippy::undocumented_unsafe_blocks)]

mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{alone_with, each_alone_with, resident};
use tiermalloc::{Pool, TierMalloc, raw, stats, trim};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const GUARDED: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=guarded")];
const MIB: usize = 1 << 20;

/// The address at which the test's mistake is to end it.
static EXPECTED: AtomicUsize = AtomicUsize::new(0);
/// How a process ends whose fault was where it was expected, and one that had another.
const THERE: i32 = 55;
const ELSEWHERE: i32 = 56;

/// From here on a fault ends the process with a status that says whether it was at `address`.
fn expect_fault_at(address: *mut u8) {
    extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel hands it to a handler that asks for it; `_exit` may be called anywhere.
        unsafe {
            let there = (*info).si_addr() as usize == EXPECTED.load(Ordering::Relaxed);
            libc::_exit(if there { THERE } else { ELSEWHERE });
        }
    }
    EXPECTED.store(address as usize, Ordering::Relaxed);
    // SAFETY: the handler has the type that the flag asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

fn write_at(address: *mut u8) -> ! {
    expect_fault_at(address);
    // SAFETY: none; the misuse is the point.
    unsafe { address.write_volatile(1) };
    survived();
}

fn read_at(address: *mut u8) -> ! {
    expect_fault_at(address);
    // SAFETY: as above.
    let _ = unsafe { address.read_volatile() };
    survived();
}

fn survived() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(77) }
}

fn rust(size: usize, align: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { TierMalloc::new().alloc(Layout::from_size_align(size, align).unwrap()) }
}

fn ends_there(bug: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(THERE), "{bug}: {}\n{text}", output.status);
}

/// SIGABRT, and one line with these words.
fn aborts_with(bug: &str, output: &Output, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{bug}: {}\n{text}", output.status);
    let said = text.lines().filter(|line| line.starts_with("tiermalloc: ")).collect::<Vec<_>>();
    assert!(matches!(said[..], [line] if line.contains(words)), "{bug}: {text}");
}

// SAFETY of all that follows: where it is missing, the misuse is the point, and the process ends of it.

#[test]
fn a_byte_past_the_end_ends_at_the_faulty_instruction() {
    each_alone_with(
        GUARDED,
        "a_byte_past_the_end_ends_at_the_faulty_instruction",
        &[
            ("C, 16", || write_at(unsafe { raw::malloc(16).add(16) })),
            ("C, 4096", || write_at(unsafe { raw::malloc(4096).add(4096) })),
            ("C, 40,000", || write_at(unsafe { raw::malloc(40_000).add(40_000) })),
            ("C, 1 MiB", || write_at(unsafe { raw::malloc(MIB).add(MIB) })),
            ("C, 100 MiB", || write_at(unsafe { raw::malloc(100 * MIB).add(100 * MIB) })),
            ("C, nothing", || write_at(raw::malloc(0))),
            ("zeroed", || write_at(unsafe { raw::alloc_zeroed(160, 16).add(160) })),
            ("resized", || write_at(unsafe { raw::realloc(raw::malloc(9), 32).add(32) })),
            ("Rust, 1", || write_at(unsafe { rust(1, 1).add(1) })),
            ("Rust, 3 at 1", || write_at(unsafe { rust(3, 1).add(3) })),
            ("Rust, 100 at 4", || write_at(unsafe { rust(100, 4).add(100) })),
            ("Rust, 12345 at 1", || write_at(unsafe { rust(12345, 1).add(12345) })),
            ("Rust, 300,001 at 1", || write_at(unsafe { rust(300_001, 1).add(300_001) })),
            ("Rust, 64 at 64", || write_at(unsafe { rust(64, 64).add(64) })),
            ("Rust, 8192 at 8192", || write_at(unsafe { rust(8192, 8192).add(8192) })),
            ("a read", || read_at(unsafe { rust(77, 1).add(77) })),
        ],
        ends_there,
    );
}

#[test]
fn a_page_before_the_start_ends_at_the_faulty_instruction() {
    each_alone_with(
        GUARDED,
        "a_page_before_the_start_ends_at_the_faulty_instruction",
        &[
            ("small", || {
                let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
                write_at(raw::malloc(100).wrapping_sub(page));
            }),
            ("whole pages", || write_at(raw::malloc(64 << 10).wrapping_sub(1))),
            ("after many", || {
                let all: Vec<*mut u8> = (0..2000).map(|_| raw::malloc(4096)).collect();
                write_at(all[1000].wrapping_sub(1));
            }),
        ],
        ends_there,
    );
}

#[test]
fn a_touch_after_the_free_ends_at_the_faulty_instruction() {
    fn freed(block: *mut u8) -> *mut u8 {
        unsafe { raw::free(block) };
        block
    }
    each_alone_with(
        GUARDED,
        "a_touch_after_the_free_ends_at_the_faulty_instruction",
        &[
            ("a write", || write_at(freed(raw::malloc(100)))),
            ("a read", || read_at(unsafe { freed(raw::malloc(100)).add(99) })),
            ("of the middle", || write_at(unsafe { freed(raw::malloc(MIB)).add(MIB / 2) })),
            ("of a huge one", || read_at(freed(raw::malloc(100 * MIB)))),
            ("after others", || {
                let block = freed(raw::malloc(100));
                (0..1000).for_each(|n| drop(vec![1u8; n]));
                read_at(block);
            }),
            ("after a realloc", || {
                let block = raw::malloc(100);
                let _ = unsafe { raw::realloc(block, 200) };
                read_at(block);
            }),
            ("after a free with a size", || {
                let block = rust(31, 1);
                unsafe {
                    TierMalloc::new().dealloc(block, Layout::from_size_align(31, 1).unwrap())
                };
                write_at(block);
            }),
            ("by another thread", || {
                let block = raw::malloc(100) as usize;
                let free = move || freed(block as *mut u8) as usize;
                std::thread::spawn(free).join().unwrap();
                read_at(block as *mut u8);
            }),
            ("in a child", || {
                let block = raw::malloc(100);
                // SAFETY: the child only frees, and ends.
                if unsafe { libc::fork() } == 0 {
                    read_at(freed(block));
                }
                let mut status = 0;
                unsafe { libc::wait(&raw mut status) };
                unsafe { libc::_exit(libc::WEXITSTATUS(status)) };
            }),
        ],
        ends_there,
    );
}

#[test]
fn what_no_fault_shows_is_seen_by_the_free() {
    each_alone_with(
        GUARDED,
        "what_no_fault_shows_is_seen_by_the_free",
        &[
            ("double free (block of 100 bytes)", || unsafe {
                let block = raw::malloc(100);
                raw::free(block);
                raw::free(block);
            }),
            ("double free (block of 1048576 bytes)", || unsafe {
                let block = raw::malloc(MIB);
                raw::free(block);
                raw::free(block);
            }),
            ("not the start of an allocation", || unsafe { raw::free(raw::malloc(100).add(16)) }),
            ("not the address of a live allocation", || unsafe {
                raw::free(raw::malloc(MIB).add(MIB / 2));
            }),
            ("written to, 100 bytes behind its start (block of 100 bytes)", || unsafe {
                let block = raw::malloc(100);
                block.add(100).write_volatile(0);
                raw::free(block);
            }),
            ("written to, 1 bytes before its start (block of 100 bytes)", || unsafe {
                let block = raw::malloc(100);
                block.sub(1).write_volatile(0);
                raw::free(block);
            }),
            ("freed as 128 bytes, but allocated as 112 bytes", || unsafe {
                raw::free_sized(raw::malloc(100), 128, 8);
            }),
            ("freed as 99 bytes, but allocated as 100 bytes", || unsafe {
                raw::free_claimed(raw::malloc(100), 99, 16);
            }),
            ("realloc(", || unsafe {
                let block = raw::malloc(100);
                raw::free(block);
                raw::realloc(block, 10);
            }),
        ],
        |words, output| aborts_with(words, output, words),
    );
}

#[test]
fn addresses_are_not_used_again_within_the_quarantine() {
    const ONE: &[(&str, &str)] = &[("TIERMALLOC_CONF", "pool=guarded,quarantine=64KiB")];
    alone_with(ONE, "addresses_are_not_used_again_within_the_quarantine", || {
        assert_eq!(tiermalloc::config().pool, Pool::Guarded);
        let mut seen = std::collections::HashMap::new();
        let mut least = usize::MAX;
        for round in 0..20_000usize {
            let block = raw::malloc(1000);
            if let Some(last) = seen.insert(block as usize, round) {
                least = least.min(round - last);
            }
            // SAFETY: live, and not used any more.
            unsafe { raw::free(block) };
        }
        assert!(least > 60, "used again after {least}");
        assert!(seen.len() < 2000, "{} addresses for one block at a time", seen.len());
        assert!(stats().quarantine <= 64 << 10, "{}", stats().quarantine);
        trim(0);
        assert!(stats().quarantine < 1000);
    });
}

/// What `/proc/self/statm` has first: pages of addresses.
fn addresses() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: sysconf only reads.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

#[test]
fn memory_and_addresses_are_bounded_however_much_comes_and_goes() {
    alone_with(GUARDED, "memory_and_addresses_are_bounded_however_much_comes_and_goes", || {
        let mut random = support::Random::new(3);
        let mut blocks: Vec<*mut u8> = vec![std::ptr::null_mut(); 500];
        let mut step = || {
            let place = random.below(500);
            // SAFETY: null, or live and not used any more; what is written to was just allocated.
            unsafe {
                raw::free(blocks[place]);
                blocks[place] = raw::malloc(random.size(100_000));
                blocks[place].write(1);
            }
        };
        (0..40_000).for_each(|_| step());
        let (memory, space) = (resident(), addresses());
        (0..100_000).for_each(|_| step());
        assert!(resident() < memory + 8 * MIB, "{memory} grew to {}", resident());
        assert!(addresses() < space + 256 * MIB, "{space} grew to {}", addresses());
    });
}

#[test]
fn a_hundred_thousand_blocks_live_at_once() {
    alone_with(GUARDED, "a_hundred_thousand_blocks_live_at_once", || {
        let blocks: Vec<*mut u8> = (0..100_000usize).map(|n| raw::malloc(1 + n % 100)).collect();
        // SAFETY: live, within their sizes, and freed once.
        unsafe {
            for (n, &block) in blocks.iter().enumerate() {
                assert!(!block.is_null() && block as usize % 16 == 0);
                block.add(n % 100).write(n as u8);
            }
            // A program has mappings left for itself.
            drop((0..8).map(|_| std::thread::spawn(|| vec![1u8; 100])).collect::<Vec<_>>());
            for (n, &block) in blocks.iter().enumerate() {
                assert_eq!(block.add(n % 100).read(), n as u8);
                raw::free(block);
            }
        }
    });
}

/// Where the kernel has no marks (before Linux 6.13) closed pages are mappings, of which there is a bound: then every
/// test here holds as well.
#[test]
fn all_this_holds_without_marks() {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    const INSIDE: &str = "TIERMALLOC_TEST_WITHOUT_MARKS";
    if support::is_emulated() || std::env::var_os(INSIDE).is_some() {
        return;
    }
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests
        .args(["--test-threads=2", "--skip", "all_this_holds_without_marks"])
        .env(INSIDE, "1")
        .stdin(Stdio::null());
    // SAFETY: system calls only.
    unsafe { tests.pre_exec(refuse_marks) };
    let output = tests.output().expect("the test starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(" 7 passed"), "{text}{told}");
}

/// A filter for this process and all that it becomes: `madvise` does not know how to mark pages.
fn refuse_marks() -> std::io::Result<()> {
    const GUARD_INSTALL: u32 = 102;
    // Where a filter finds the number of the call, and the lower half of its third argument.
    const NUMBER: u32 = 0;
    const ADVICE: u32 = 32;
    let line = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        line(load, 0, 0, NUMBER),
        line(equal, 0, 3, libc::SYS_madvise as u32),
        line(load, 0, 0, ADVICE),
        line(equal, 0, 1, GUARD_INSTALL),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
