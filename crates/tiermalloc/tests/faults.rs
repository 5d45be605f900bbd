//! The system refuses memory, at every single call in turn: no entry point loses memory, panics or corrupts, in any
//! pool, and all is as before once the system is well again.
//!
//! The facade asks the kernel itself, so it is the kernel that refuses: a seccomp filter turns each call for memory
//! into a SIGSYS, whose handler answers it with `ENOMEM` or makes it in its own name. Each run is a child process with
//! a heap that nobody has used; the test's own memory is the C library's.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tiermalloc::raw;

const MIB: usize = 1 << 20;

/// Calls for memory so far.
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Calls with these numbers are refused.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
static END: AtomicUsize = AtomicUsize::new(0);
/// Calls are counted while the script runs.
static COUNTS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    // The linker's own: where this program and its code begin and end.
    static __executable_start: u8;
    static etext: u8;
}

/// Has every later call for memory that this program makes by itself pass through [`answer`]; what the C library
/// asks for, for the handler's own sake or for a thread's, goes to the kernel. `false`: there are no filters here, or a
/// sanitizer is part of this program, whose calls nobody may refuse.
fn install() -> bool {
    const CALLS: [libc::c_long; 5] =
        [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_mprotect];
    // Where a filter finds the number of the call, and the address that it comes from.
    const NUMBER: u32 = 0;
    const FROM: u32 = 8;
    let (start, end) = (&raw const __executable_start as u64, &raw const etext as u64);
    // A filter compares words, and those should not take two.
    if start >> 32 != end >> 32 || std::env::var_os("TIERMALLOC_TEST_SANITIZER").is_some() {
        return false;
    }
    let line = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let jump = |how, yes, no, than| line(libc::BPF_JMP | how | libc::BPF_K, yes, no, than);
    let answer_with = |what| line(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    // From each test onwards: as many lines to pass over as there are to the verdict that is meant.
    let calls = CALLS.len() as u8;
    let mut filter = vec![
        load(FROM + 4),
        jump(libc::BPF_JEQ, 0, calls + 4, (start >> 32) as u32),
        load(FROM),
        jump(libc::BPF_JGE, 0, calls + 2, start as u32),
        jump(libc::BPF_JGE, calls + 1, 0, end as u32),
        load(NUMBER),
    ];
    for (at, call) in (0..calls).zip(CALLS) {
        filter.push(jump(libc::BPF_JEQ, calls - at, 0, call as u32));
    }
    filter.push(answer_with(libc::SECCOMP_RET_ALLOW));
    filter.push(answer_with(libc::SECCOMP_RET_TRAP));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the handler touches its arguments and atomics only; the program outlives the call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = answer as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// The handler: refuses a call, or makes it.
extern "C" fn answer(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a context to a handler that asks for one, and nobody else has it.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let counts = COUNTS.load(Ordering::Relaxed);
    let number = if counts { CALLS.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
    let refused = FIRST.load(Ordering::Relaxed)..END.load(Ordering::Relaxed);
    let result = if counts && refused.contains(&number) {
        -i64::from(libc::ENOMEM)
    } else {
        let [rdi, rsi, rdx, r10, r8] =
            [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8]
                .map(|register| registers[register as usize]);
        let call = registers[libc::REG_RAX as usize];
        // SAFETY: the call that was meant, which is whoever made it's to answer for. What it does to `errno` is
        // undone: the caller asked the kernel and not the C library.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            let result =
                libc::syscall(call, rdi, rsi, rdx, r10, r8, registers[libc::REG_R9 as usize]);
            let result = if result == -1 { -i64::from(*errno) } else { result };
            *errno = before;
            result
        }
    };
    registers[libc::REG_RAX as usize] = result;
}

/// A block, filled with a byte of its own up to its end.
struct Block {
    pointer: *mut u8,
    size: usize,
    fill: u8,
}

impl Block {
    /// What an entry point has returned: nothing, and then for want of memory, or a block.
    fn adopt(pointer: *mut u8, size: usize, align: usize, zeroed: bool) -> Option<Self> {
        static FILLS: AtomicUsize = AtomicUsize::new(0);
        if pointer.is_null() {
            // SAFETY: the thread's own.
            assert_eq!(unsafe { *libc::__errno_location() }, libc::ENOMEM);
            return None;
        }
        assert_eq!(pointer as usize % align, 0, "{size} at {align}");
        let fill = 1 + (FILLS.fetch_add(1, Ordering::Relaxed) % 255) as u8;
        let block = Self { pointer, size, fill };
        if zeroed {
            block.check(size, 0);
        }
        for part in block.parts(size) {
            // SAFETY: within the block, which is ours.
            unsafe { pointer.add(part.start).write_bytes(fill, part.len()) };
        }
        Some(block)
    }

    /// What of a block is written and looked at: all of it, or both ends of one that is long.
    fn parts(&self, size: usize) -> [Range<usize>; 2] {
        const END: usize = 20_000;
        if self.size <= 2 * END {
            [0..size, 0..0]
        } else {
            [0..END.min(size), (self.size - END).min(size)..size]
        }
    }

    fn check(&self, size: usize, fill: u8) {
        for part in self.parts(size) {
            // SAFETY: within the block, which is ours and initialised.
            let bytes =
                unsafe { std::slice::from_raw_parts(self.pointer.add(part.start), part.len()) };
            assert!(bytes.iter().all(|&byte| byte == fill), "{} bytes changed", self.size);
        }
    }

    /// Gives it another size, or leaves it as it was.
    fn realloc(&mut self, size: usize) {
        self.check(self.size, self.fill);
        // SAFETY: the block is live.
        let moved = unsafe { raw::realloc(self.pointer, size) };
        if moved.is_null() {
            return self.check(self.size, self.fill);
        }
        self.pointer = moved;
        self.check(self.size.min(size), self.fill);
        *self = Self::adopt(moved, size, 16, false).expect("not null");
    }

    fn free(self) {
        self.check(self.size, self.fill);
        // SAFETY: the block is live and not used any more.
        unsafe { raw::free(self.pointer) };
    }
}

/// Every road that asks the system for something: spans of classes, whole pages, mappings of their own, threads'
/// caches, records, the page map, and what goes back. Returns what it still holds.
fn script() -> Vec<Block> {
    let mut held = Vec::new();
    for size in [1, 1024, 20_000, 300_000, 3 * MIB] {
        held.extend(Block::adopt(raw::malloc(size), size, 16, false));
    }
    for size in [100, 262_144, 2 * MIB, 65 * MIB] {
        held.extend(Block::adopt(raw::alloc_zeroed(size, 64), size, 64, true));
    }
    for (size, align) in [(5000, 1 << 15), (300_000, MIB), (64 * MIB, 16), (100, 1 << 27)] {
        held.extend(Block::adopt(raw::alloc(size, align), size, align, false));
    }
    // In a thread, which has a cache that comes and goes.
    let thread = std::thread::Builder::new().stack_size(1 << 17).spawn(|| {
        for size in [50, 5000, 400_000] {
            if let Some(block) = Block::adopt(raw::malloc(size), size, 16, false) {
                block.free();
            }
        }
    });
    if let Ok(thread) = thread {
        thread.join().unwrap();
    }
    // Longer where it is, longer elsewhere, a mapping of its own, longer as such, and shorter.
    for block in held.iter_mut().take(3) {
        for size in [200_000, 700_000, 2 * MIB, 4 * MIB, 3 * MIB, 400_000, 10] {
            block.realloc(size);
        }
    }
    for _ in 0..2 {
        let all = std::mem::take(&mut held).into_iter().enumerate();
        let (kept, gone): (Vec<_>, Vec<_>) = all.partition(|(n, _)| n % 2 == 0);
        gone.into_iter().for_each(|(_, block)| block.free());
        held.extend(kept.into_iter().map(|(_, block)| block));
        tiermalloc::trim(0);
        for size in [60, 3000, 250_000, MIB] {
            held.extend(Block::adopt(raw::malloc(size), size, 16, false));
        }
    }
    held
}

/// The child: the script with these calls refused, and then once more with none. Whether any was reached.
fn run(refused: &Range<usize>) -> bool {
    FIRST.store(refused.start, Ordering::Relaxed);
    END.store(refused.end, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
    let held = script();
    COUNTS.store(false, Ordering::Relaxed);
    tiermalloc::verify();
    let again = script();
    assert_eq!(again.len(), script_length(), "the system is well again, and all is served");
    held.into_iter().chain(again).for_each(Block::free);
    tiermalloc::trim(0);
    tiermalloc::verify();
    let stats = tiermalloc::stats();
    assert_eq!((stats.live, stats.huge_count, stats.span_free), (0, 0, 0), "{stats:?}");
    assert_eq!(
        (stats.thread_caches, stats.transfer_caches, stats.quarantine),
        (0, 0, 0),
        "{stats:?}"
    );
    CALLS.load(Ordering::Relaxed) > refused.start
}

/// Blocks that the script holds at its end when nothing is refused.
fn script_length() -> usize {
    // Of 13, and then of these and 4 more, every other one stays.
    (13usize.div_ceil(2) + 4).div_ceil(2) + 4
}

/// Runs the script in children of this process, with more and more calls let through before those that are refused,
/// until none is reached.
fn each_call_in_turn(refused: impl Fn(usize) -> Range<usize>) {
    const REACHED: i32 = 40;
    const ALL: i32 = 41;
    const NO_FILTERS: i32 = 42;
    for pool in ["tiered", "central", "hardened", "guarded"] {
        let mut n = 0;
        loop {
            // SAFETY: the child does nothing that asks for another thread of this process.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork failed");
            if child == 0 {
                // A handler is not for the thread that gives memory back: it has all signals blocked.
                let configuration = format!("pool={pool},background=false");
                // SAFETY: alarm sets a timer, and the child has one thread.
                unsafe {
                    libc::alarm(30);
                    std::env::set_var("TIERMALLOC_CONF", configuration);
                }
                // Whatever the harness does with a panic, it would do it in the wrong process.
                std::panic::set_hook(Box::new(|panic| {
                    let text = format!("{panic}\n");
                    // SAFETY: the text is readable for its length.
                    unsafe {
                        libc::write(2, text.as_ptr().cast(), text.len());
                        libc::_exit(1);
                    }
                }));
                let code = match install() {
                    false => NO_FILTERS,
                    true if run(&refused(n)) => REACHED,
                    true => ALL,
                };
                // SAFETY: ends the child without what belongs to the parent's harness.
                unsafe { libc::_exit(code) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
                Some(REACHED) => n += 1,
                Some(ALL) => break,
                Some(NO_FILTERS) => return println!("skipped: no filters of system calls here"),
                _ => panic!("pool {pool}, refused {:?}: status {status:#x}", refused(n)),
            }
        }
        println!("{pool}: {n} points of failure");
        assert!(n > 20, "{pool}: {n} points of failure: the script is not what it was");
    }
}

#[test]
fn each_call_for_memory_fails_once() {
    each_call_in_turn(|n| n..n + 1);
}

#[test]
fn three_calls_for_memory_in_a_row_fail() {
    each_call_in_turn(|n| n..n + 3);
}

#[test]
fn every_call_for_memory_from_the_nth_on_fails_until_the_system_recovers() {
    each_call_in_turn(|n| n..usize::MAX);
}
