//! What the tests share: random numbers, a test in a process of its own, and what the process weighs.
// Every test binary is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod blocks;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// splitmix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    /// A size as programs ask for them: most of them small, few large, never above `most` bytes.
    pub fn size(&mut self, most: usize) -> usize {
        let magnitude = match self.below(100) {
            0..60 => 8,
            60..80 => 10,
            80..93 => 13,
            93..98 => 17,
            _ => 20,
        };
        self.below(1 << magnitude).min(most).max(1)
    }
}

const ALONE: &str = "TIERMALLOC_TEST_ALONE";
/// The program and its arguments that run a test made for another machine.
const RUNNER: &str = "TIERMALLOC_TEST_RUNNER";
/// The sanitizer that is part of the test, if one is (`cargo xtask sanitize`).
const SANITIZER: &str = "TIERMALLOC_TEST_SANITIZER";
/// No test takes longer; what is still there after this hangs (seconds).
const LIMIT: u32 = 60;

/// Whether an emulator runs the test, or a sanitizer is part of it: these do not keep limits of address space, nor
/// tell true memory, nor end before a thread's last destructor.
#[allow(dead_code)] // not every test binary asks
pub fn is_emulated() -> bool {
    std::env::var_os(RUNNER).is_some() || std::env::var_os(SANITIZER).is_some()
}

/// Whether this process was started by [`alone`] for the test of that name.
fn is_alone(test: &str) -> bool {
    std::env::var_os(ALONE).is_some_and(|name| name == test)
}

/// Runs the test of that name again, in a process of its own in which nothing else happens, and
/// returns what became of it.
fn start(test: &str, variables: &[(&str, &str)]) -> Output {
    let exe = std::env::current_exe().expect("the path of this test");
    // Where this machine cannot run the test itself, whoever runs it for us says how.
    let mut command = match std::env::var(RUNNER) {
        Ok(runner) => {
            let mut words = runner.split_whitespace();
            let mut command = Command::new(words.next().expect("a runner has a name"));
            command.args(words).arg(exe);
            command
        }
        Err(_) => Command::new(exe),
    };
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .env("RUST_BACKTRACE", "0")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the test starts again")
}

/// Runs `body` in a process in which no other test runs: its memory and its statistics are its own.
pub fn alone(test: &str, body: impl FnOnce()) {
    alone_with(&[], test, body);
}

/// [`alone_with`] these settings, in the default pool.
pub fn configured(conf: &str, test: &str, body: impl FnOnce()) {
    let conf = format!("pool=tiered,{conf}");
    alone_with(&[("TIERMALLOC_CONF", &conf)], test, body);
}

/// [`alone`], in a process with these variables.
pub fn alone_with(variables: &[(&str, &str)], test: &str, body: impl FnOnce()) {
    if is_emulated() {
        println!("skipped: an emulator's memory is not the program's");
        return;
    }
    if is_alone(test) {
        // SAFETY: alarm only sets a timer.
        unsafe { libc::alarm(LIMIT) };
        // The harness's own thread has started this one, and is still about to fall asleep.
        std::thread::sleep(Duration::from_millis(30));
        return body();
    }
    let output = start(test, variables);
    assert!(
        output.status.success(),
        "{test}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(ran, "no test is called {test}");
}

/// As [`alone`], with nobody who gives memory back unasked.
pub fn alone_and_undisturbed(test: &str, body: impl FnOnce()) {
    let chosen = std::env::var("TIERMALLOC_CONF").unwrap_or_default();
    let conf = format!("{chosen},background=false");
    alone_with(&[("TIERMALLOC_CONF", &conf)], test, body);
}

/// As [`alone`], for what only the default pool promises.
pub fn alone_in_tiers(test: &str, body: impl FnOnce()) {
    let pool = tiermalloc::config().pool;
    if pool != tiermalloc::Pool::Tiered {
        println!("skipped: the pool is {pool:?}");
        return;
    }
    alone(test, body);
}

/// Whether a test is passed over in the pool that is chosen, being one of these; says why.
pub fn skipped_in(pools: &[tiermalloc::Pool], why: &str) -> bool {
    let pool = tiermalloc::config().pool;
    let skipped = pools.contains(&pool);
    if skipped {
        println!("skipped: the pool is {pool:?}: {why}");
    }
    skipped
}

/// Runs each of `bugs` in a process of its own, and hands its name and what became of the process to
/// `check`.
pub fn each_alone(test: &str, bugs: &[(&str, fn())], check: impl Fn(&str, &Output)) {
    each_alone_with(&[], test, bugs, check);
}

/// [`each_alone`], in processes with these variables.
pub fn each_alone_with(
    variables: &[(&str, &str)],
    test: &str,
    bugs: &[(&str, fn())],
    check: impl Fn(&str, &Output),
) {
    const WHICH: &str = "TIERMALLOC_TEST_WHICH";
    if is_alone(test) {
        let which = std::env::var(WHICH).expect("set with the other");
        let (_, bug) = bugs.iter().find(|(name, _)| *name == which).expect("one of them");
        // SAFETY: alarm only sets a timer.
        unsafe { libc::alarm(LIMIT) };
        bug();
        std::process::exit(77);
    }
    for (name, _) in bugs {
        let variables: Vec<(&str, &str)> =
            variables.iter().copied().chain([(WHICH, *name)]).collect();
        check(name, &start(test, &variables));
    }
}

/// Bytes of memory that the process has resident.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).expect("a second field").parse().expect("a number");
    // SAFETY: sysconf only reads.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

/// What is resident (bytes), once it is no more than `bound`: what goes back in the background takes some
/// seconds. After ten of them, whatever it is then.
pub fn resident_settled(bound: usize) -> usize {
    let began = std::time::Instant::now();
    loop {
        let now = resident();
        if now <= bound || began.elapsed().as_secs() >= 10 {
            return now;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

pub fn errno() -> i32 {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() }
}

pub fn set_errno(value: i32) {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = value };
}
