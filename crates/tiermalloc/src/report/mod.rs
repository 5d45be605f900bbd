//! When statistics are written without the program's asking: at its end, at a signal, every so often.
//!
//! | occasion | who writes |
//! |---|---|
//! | the end | whoever calls `exit`, after the program's own functions for it |
//! | a signal | the thread in the background; its handler sets a flag and wakes that thread, or brings it |
//! | every so often | the thread in the background, which then stays |
//!
//! Where there is no such thread, what is due is written at the next slow step of an allocation.
//!
//! Whoever writes maps memory of its own for the snapshot and the text and gives it back: there is no lock to wait
//! for, and nothing that a fork could find half done. Nothing here touches `errno` or thread-local variables.

mod place;

use tiermalloc_sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tiermalloc_sync::{Patience, files, sys};

use crate::background;
use crate::config::{self, Format};
use crate::line::Line;
use crate::stats::{Reason, Snapshot};

/// Bit of the key `stats` for the program's end; the others stand for [`SIGNALS`].
const AT_EXIT: u32 = 1;
/// The signals, in the order of the words of the key.
const SIGNALS: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPROF, libc::SIGURG, libc::SIGWINCH];
/// Milliseconds that the end of the program waits for the heap's locks, all of them together: it may have
/// come in the middle of an allocation.
const EXIT_MS: u32 = 200;

static INSTALLED: AtomicBool = AtomicBool::new(false);
/// When the process made its first allocation, by the coarse clock.
static STARTED: AtomicU64 = AtomicU64::new(0);
/// Whether a signal has come and nobody has written yet.
static PENDING: AtomicBool = AtomicBool::new(false);
/// When it is time again, by the coarse clock; 0: never.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Whether slow steps have to see to it.
static WATCH: AtomicBool = AtomicBool::new(false);
/// Whether the end was written.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Prepares for what the configuration asks for, once, at the first allocation.
#[inline]
pub(crate) fn install() {
    if !INSTALLED.load(Ordering::Relaxed) {
        install_slow();
    }
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn install_slow() {
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let (config, now) = (config::get(), sys::now_ms_once());
    STARTED.store(now, Ordering::Relaxed);
    if config.stats & AT_EXIT != 0 && config.stats_file.is_empty() {
        place::keep_stderr();
    }
    for (bit, &signal) in SIGNALS.iter().enumerate() {
        if config.stats >> (bit + 1) & 1 != 0 {
            take_signal(signal);
        }
    }
    if config.stats_interval.ms() > 0 {
        NEXT.store(now + config.stats_interval.ms(), Ordering::Relaxed);
        watch();
    }
}

/// Has the thread in the background see to what is due, or else the slow steps.
fn watch() {
    if !background::call() {
        WATCH.store(true, Ordering::Relaxed);
    }
}

/// Takes a signal that nobody has. One that the program takes later is the program's.
fn take_signal(signal: libc::c_int) {
    // SAFETY: room for what is written; the handler is one.
    unsafe {
        let mut old: libc::sigaction = core::mem::zeroed();
        if libc::sigaction(signal, core::ptr::null(), &raw mut old) != 0 {
            return;
        }
        if old.sa_sigaction != libc::SIG_DFL {
            Line::new()
                .text("stats: signal ")
                .digits(signal as usize, 10)
                .text(" is not at its default, and is left alone")
                .print();
            return;
        }
        let mut new: libc::sigaction = core::mem::zeroed();
        new.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const new, core::ptr::null_mut());
    }
}

/// Two stores, and some system calls: all that a handler may do, whatever it has interrupted.
extern "C" fn on_signal(_: libc::c_int) {
    // Release: the thread in the background sees it once it was called.
    PENDING.store(true, Ordering::Release);
    watch();
}

/// For a library that is about to be unloaded: its handler must not be called any more. The signals are
/// ignored from here on, because by default they would end the program.
pub(crate) fn leave_signals() {
    if !INSTALLED.load(Ordering::Relaxed) || config::get().stats & !AT_EXIT == 0 {
        return;
    }
    for signal in SIGNALS {
        // SAFETY: as in `take_signal`.
        unsafe {
            let mut old: libc::sigaction = core::mem::zeroed();
            let asked = libc::sigaction(signal, core::ptr::null(), &raw mut old) == 0;
            if asked && old.sa_sigaction == on_signal as extern "C" fn(libc::c_int) as usize {
                old.sa_sigaction = libc::SIG_IGN;
                libc::sigaction(signal, &raw const old, core::ptr::null_mut());
            }
        }
    }
}

/// Called at slow steps without a lock: writes what is due where nobody else does.
///
/// Cost: a load and a branch.
#[inline]
pub(crate) fn tick() {
    if WATCH.load(Ordering::Relaxed) {
        tick_slow();
    }
}

#[cold]
#[inline(never)]
fn tick_slow() {
    // In the child of a fork there may be such a thread by now.
    if background::call() {
        WATCH.store(false, Ordering::Relaxed);
        return;
    }
    if let Some(reason) = take_due() {
        write(reason, Patience::ENDLESS, || Some(()));
    }
    if NEXT.load(Ordering::Relaxed) == 0 && !PENDING.load(Ordering::Relaxed) {
        WATCH.store(false, Ordering::Relaxed);
    }
}

/// Whether the thread in the background may not leave yet.
pub(crate) fn needs_thread() -> bool {
    NEXT.load(Ordering::Relaxed) != 0 || PENDING.load(Ordering::Acquire)
}

/// Milliseconds until it is time, as far as anybody knows.
pub(crate) fn ms_until_due() -> u64 {
    match NEXT.load(Ordering::Relaxed) {
        0 => u64::MAX,
        next => next.saturating_sub(sys::now_ms()),
    }
}

/// Called by the thread in the background between its steps: `gate` is what it takes before it touches the
/// heap.
pub(crate) fn serve<G>(gate: impl FnOnce() -> Option<G>) {
    if let Some(reason) = take_due() {
        write(reason, Patience::ENDLESS, gate);
    }
}

/// What is to be written, from here on by the caller.
fn take_due() -> Option<Reason> {
    if PENDING.load(Ordering::Relaxed) && PENDING.swap(false, Ordering::Acquire) {
        return Some(Reason::Signal);
    }
    let (next, now) = (NEXT.load(Ordering::Relaxed), sys::now_ms());
    if next == 0 || now < next {
        return None;
    }
    // From when it was due, so that the times do not drift; what was missed is not made up for.
    let interval = config::get().stats_interval.ms().max(1);
    let then = next + ((now - next) / interval + 1) * interval;
    let mine = NEXT.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    mine.then_some(Reason::Interval)
}

/// In the child of a fork, which has no thread in the background yet and writes in its own name.
pub(crate) fn after_fork() {
    ENDED.store(false, Ordering::Relaxed);
    PENDING.store(false, Ordering::Relaxed);
    if NEXT.load(Ordering::Relaxed) != 0 {
        let interval = config::get().stats_interval.ms();
        NEXT.store(sys::now_ms() + interval, Ordering::Relaxed);
        WATCH.store(true, Ordering::Relaxed);
    }
}

/// The end of the program, or of the library. Where nothing was ever allocated nothing was decided either: the
/// allocator may be no more than linked in.
#[unsafe(link_section = ".text.hot.tiermalloc")]
extern "C" fn at_end() {
    let Some(config) = config::decided() else { return };
    if config.stats & AT_EXIT != 0 && !ENDED.swap(true, Ordering::Relaxed) {
        write(Reason::Exit, Patience::ms(EXIT_MS), || Some(()));
    }
}

/// The entry in the table of functions that run when the program ends or the library is unloaded; those of
/// `atexit` have run by then.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
const _: extern "C" fn() = at_end;

/// Room for a text of any format.
const TEXT: usize = 512 << 10;

/// What is needed to write, in memory of its own.
struct Room {
    snapshot: Snapshot,
    text: [u8; TEXT],
}

impl Room {
    const BYTES: usize = size_of::<Self>().next_multiple_of(64 << 10);

    /// Calls `with` with room that is there only for so long; `None`: the system has no memory for it.
    fn with<T>(with: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let start = sys::map_anonymous(0, Self::BYTES)?;
        // SAFETY: mapped here and seen by nobody else; numbers and bytes, for which all zero will do, as it will
        // for the first of all pools.
        let result = with(unsafe { &mut *(start as *mut Self) });
        // SAFETY: as above.
        unsafe { sys::unmap(start, Self::BYTES) };
        Some(result)
    }

    /// The snapshot as text.
    fn render(&mut self, reason: Reason, format: Format) -> &[u8] {
        let (snapshot, text) = (&self.snapshot, &mut self.text);
        let mut used = 0;
        snapshot.write_because(reason, format, &mut |piece| {
            if let Some(place) = text.get_mut(used..used + piece.len()) {
                place.copy_from_slice(piece);
                used += piece.len();
            }
        });
        self.text.get(..used).unwrap_or_default()
    }
}

/// Looks at the heap, once `gate` lets it, and writes what it has seen to where the configuration says.
fn write<G>(reason: Reason, mut patience: Patience, gate: impl FnOnce() -> Option<G>) {
    let written = Room::with(|room| {
        {
            let Some(_gate) = gate() else { return };
            room.snapshot.take_within(&mut patience);
        }
        let (config, process) = (config::get(), room.snapshot.process);
        let format = config.stats_format;
        place::deliver(&config.stats_file, process, format, room.render(reason, format));
    });
    if written.is_none() {
        Line::new().text("stats: no memory to write them").print();
    }
}

/// Writes statistics to a file descriptor, in one system call if the kernel takes it all. `false`: it could not,
/// or there is no memory for the text.
///
/// Cost: that of [`Snapshot::take`], and some hundred microseconds.
pub fn write_stats(fd: i32, format: Format) -> bool {
    let written = Room::with(|room| {
        room.snapshot.take();
        files::write_all(fd, room.render(Reason::Call, format))
    });
    written.unwrap_or(false)
}

/// Takes a snapshot in memory of its own, which goes back afterwards, for whoever has no place for one.
/// `None`: the system has no memory for it, and `with` was not called.
pub fn with_snapshot<T>(with: impl FnOnce(&Snapshot) -> T) -> Option<T> {
    Room::with(|room| {
        room.snapshot.take();
        with(&room.snapshot)
    })
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable; on failure it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Milliseconds since the process's first allocation.
pub(crate) fn uptime_ms() -> u64 {
    match STARTED.load(Ordering::Relaxed) {
        0 => 0,
        started => sys::now_ms().saturating_sub(started),
    }
}

/// Calls `with` with the program's name, as the kernel has it: its first 15 bytes.
pub(crate) fn with_program(with: impl FnOnce(&[u8])) {
    let mut bytes = [0; 64];
    let mut used = 0;
    if let Ok(fd) = files::open(c"/proc/self/comm", libc::O_RDONLY | libc::O_CLOEXEC, 0) {
        used = files::read(fd, &mut bytes).unwrap_or(0);
        files::close(fd);
    }
    with(bytes.get(..used).unwrap_or_default().trim_ascii_end());
}
