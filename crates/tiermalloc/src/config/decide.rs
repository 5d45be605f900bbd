//! The decision: once, before the first allocation.
//!
//! # Invariants
//! - D1: `what` is written by the one thread that has made the state `DECIDING`, and read after `DECIDED` only.
//! - D2: deciding calls nobody: no allocation, no lock but the page heap's, which is free then, no function of libc that
//!   has a state.

use core::cell::UnsafeCell;

use tiermalloc_sync::atomic::{AtomicU8, Ordering};

use super::environment;
use super::{Config, Effective, Place, Problem, Source, Sources};
use crate::line::Line;

/// Nobody has asked yet.
const UNDECIDED: u8 = 0;
/// A thread reads the sources at this moment.
const DECIDING: u8 = 1;
const DECIDED: u8 = 2;

/// What was decided, once.
struct Decision {
    state: AtomicU8,
    what: UnsafeCell<Effective>,
}

// SAFETY: D1.
unsafe impl Sync for Decision {}

static DECISION: Decision =
    Decision { state: AtomicU8::new(UNDECIDED), what: UnsafeCell::new(Effective::BUILT_IN) };

/// What is in force, decided now if need be.
#[inline]
pub(crate) fn get() -> &'static Config {
    effective().config()
}

/// What is in force, if that has been decided.
pub(crate) fn decided() -> Option<&'static Config> {
    // SAFETY: D1: decided, so nobody writes any more.
    (DECISION.state.load(Ordering::Acquire) == DECIDED)
        .then(|| unsafe { &*DECISION.what.get() }.config())
}

#[inline]
pub(super) fn effective() -> &'static Effective {
    if DECISION.state.load(Ordering::Acquire) != DECIDED {
        decide(None);
    }
    // SAFETY: D1: decided, so nobody writes any more.
    unsafe { &*DECISION.what.get() }
}

/// The configuration that a program has been built with, from whoever may be the first to allocate.
#[inline]
pub(crate) fn decide_with(program: &Config) {
    if DECISION.state.load(Ordering::Acquire) != DECIDED {
        decide(Some(program));
    }
}

#[cold]
#[inline(never)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
fn decide(program: Option<&Config>) {
    loop {
        match DECISION.state.compare_exchange(
            UNDECIDED,
            DECIDING,
            Ordering::Acquire,
            Ordering::Acquire,
        ) {
            Ok(_) => {
                // SAFETY: D1: ours alone while it is being decided.
                let what = unsafe { &mut *DECISION.what.get() };
                read(program, what);
                crate::pools::settle(what.config_mut());
                crate::limits::configure(what.config());
                if what.config().print {
                    print(what);
                }
                DECISION.state.store(DECIDED, Ordering::Release);
                return;
            }
            Err(DECIDED) => return,
            // Reading takes microseconds and calls nobody. Not for ever: see `forget_deciding`.
            Err(_) => tiermalloc_sync::spin_hint(),
        }
    }
}

/// In the child of a fork: the thread that was deciding, if one was, does not exist.
pub(crate) fn forget_deciding() {
    let state = &DECISION.state;
    let _ = state.compare_exchange(DECIDING, UNDECIDED, Ordering::Relaxed, Ordering::Relaxed);
}

/// Lines that one source may cost; a last one says that there would be more.
const MOST_LINES: usize = 16;
const TOO_MANY: usize = MOST_LINES + 1;

/// Puts all sources together, in place: the stack may be a small one.
fn read(program: Option<&Config>, into: &mut Effective) {
    // A thread that a fork has cut off may have been here before.
    *into = Effective::BUILT_IN;
    let mut told = [0; Source::COUNT];
    let mut report = |place: &Place<'_>, problem: &Problem<'_>| {
        let told = &mut told[place.origin.source as usize];
        *told += 1;
        let line = || place.write(Line::new()).text(": ");
        match *told {
            ..=MOST_LINES => problem.line(line()).print(),
            TOO_MANY => line().text("and more of the kind").print(),
            _ => {}
        }
    };
    let mut sources = Sources { program, symbol: environment::symbol(), ..Sources::NONE };
    if cfg!(feature = "fixed-config") {
        return sources.apply_to(into, &mut report);
    }
    sources.system_file = Some(super::SYSTEM_FILE);
    // Where nothing is known yet, nobody is heard whose right to it is not known.
    if !environment::is_known() || environment::is_privileged() {
        // Its name is what the one who starts it likes; where its file lies is not.
        let mut path = [0; 1024];
        sources.name = environment::file_of_program(&mut path);
        return sources.apply_to(into, &mut report);
    }
    let variables = environment::variables();
    sources.user_file = variables.file.filter(|path| !path.is_empty());
    sources.environment = variables.settings;
    sources.name = environment::name();
    sources.apply_to(into, &mut report);
}

/// Prints what is in force: lines of a configuration file.
#[cold]
fn print(effective: &Effective) {
    for (key, value, place) in effective.values() {
        let line = Line::new().text(key.name).text(" = ");
        place.write(key.show(value).write(line).text("  # ")).print();
    }
}
