//! What a user may choose, and where it is read from.
//!
//! [`KEYS`] is the one table: the parser, the messages and the documentation come from it. Everything is
//! read once, before the first allocation, without allocating and with bounded stack; whatever is wrong is
//! said in one line on standard error and changes nothing, and all the rest applies.
//!
//! | source | what it is |
//! |---|---|
//! | built in | [`Config::DEFAULT`] |
//! | `TIERMALLOC_CONF` | environment variable, `key=value,key=value`; ignored in setuid programs |
//!
//! The later one wins.

mod environment;
mod parse;
mod table;
mod value;

pub use parse::{Problem, apply};
pub use table::{KEYS, Key};
pub use value::{Kind, Value};

use core::cell::UnsafeCell;

use tiermalloc_sync::atomic::{AtomicU8, Ordering};

use crate::line::Line;

/// Which tiers serve an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Pool {
    /// Thread caches, the central cache, the page heap.
    Tiered = 0,
    /// The same without thread caches: a lock for each object, and the least memory.
    Central = 1,
    /// The same without caches of any kind; every free is checked, freed memory is filled and looked at
    /// again, and large allocations stand between pages that nobody can touch. See [`crate`].
    Hardened = 2,
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Which tiers serve.
    pub pool: Pool,
    /// Whether a thread of the allocator's own may give memory back while the program does something else.
    pub background: bool,
    /// In the hardened pool: whether freed objects are filled with zeros, and not with 0xdb.
    pub zero_on_free: bool,
    /// In the hardened pool: bytes of freed objects that wait before they are used again.
    pub quarantine: usize,
}

impl Config {
    /// What holds where nobody has said anything.
    pub const DEFAULT: Self = Self {
        pool: if cfg!(feature = "hardened") { Pool::Hardened } else { Pool::Tiered },
        background: true,
        zero_on_free: false,
        quarantine: 4 << 20,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Nobody has asked yet.
const UNDECIDED: u8 = 0;
/// A thread reads the sources at this moment.
const DECIDING: u8 = 1;
const DECIDED: u8 = 2;

/// What was decided, once.
struct Decision {
    state: AtomicU8,
    config: UnsafeCell<Config>,
}

// SAFETY: written by the one thread that made the state `DECIDING`, read after `DECIDED` only.
unsafe impl Sync for Decision {}

static DECISION: Decision =
    Decision { state: AtomicU8::new(UNDECIDED), config: UnsafeCell::new(Config::DEFAULT) };

/// What is in force, decided now if need be.
#[inline]
pub(crate) fn get() -> &'static Config {
    if DECISION.state.load(Ordering::Acquire) != DECIDED {
        decide();
    }
    // SAFETY: decided, so nobody writes any more.
    unsafe { &*DECISION.config.get() }
}

#[cold]
#[inline(never)]
fn decide() {
    loop {
        match DECISION.state.compare_exchange(
            UNDECIDED,
            DECIDING,
            Ordering::Acquire,
            Ordering::Acquire,
        ) {
            Ok(_) => {
                // SAFETY: ours alone while it is being decided.
                unsafe { *DECISION.config.get() = read() };
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

/// Puts all sources together.
fn read() -> Config {
    let mut config = Config::DEFAULT;
    if let Some(text) = environment::variable(b"TIERMALLOC_CONF") {
        let mut told = 0;
        apply(&mut config, text, &mut |problem| {
            told += 1;
            match told {
                ..=MOST_LINES => problem.line(Line::new().text("TIERMALLOC_CONF: ")).print(),
                TOO_MANY => Line::new().text("TIERMALLOC_CONF: and more of the kind").print(),
                _ => {}
            }
        });
    }
    config
}

/// Lines that one source may cost; a last one says that there would be more.
const MOST_LINES: usize = 16;
const TOO_MANY: usize = MOST_LINES + 1;
