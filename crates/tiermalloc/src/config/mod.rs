//! What a user may choose, and where it is read from.
//!
//! [`KEYS`] is the one table: the parser, the messages, the commands and the documentation come from it. Everything
//! is read once, before the first allocation, without allocating and with bounded stack; whatever is wrong is
//! said in one line on standard error and changes nothing, and all the rest applies.
//!
//! | source | what it is |
//! |---|---|
//! | built in | [`Config::DEFAULT`] |
//! | the program | [`TierMalloc::with_config`](crate::TierMalloc::with_config) |
//! | `tiermalloc_conf` | a symbol that a program in C defines: `const char *tiermalloc_conf = "key=value,..."` |
//! | `/etc/tiermalloc.conf` | a file, see [`apply_file`] |
//! | `TIERMALLOC_CONF_FILE` | environment variable, the name of another |
//! | `TIERMALLOC_CONF` | environment variable, `key=value,key=value` |
//!
//! The later one wins. The variables are ignored in programs that run with more rights than who started them. With
//! the feature `fixed-config` neither variables nor files are read.

mod builder;
mod decide;
mod effective;
mod environment;
mod file;
mod parse;
mod place;
mod shown;
mod table;
mod value;

pub use effective::{Effective, Sources};
pub use file::{LONGEST_FILE, LONGEST_LINE, apply_file};
pub use parse::{Problem, apply};
pub use place::{Origin, Place, SYSTEM_FILE, Source};
pub use shown::Shown;
pub use table::{KEYS, Key};
pub use value::{AUTOMATIC, Duration, Kind, Refusal, Text, Value};

pub(crate) use decide::{decide_with, decided, forget_deciding, get};
pub(crate) use environment::is_privileged;

/// What is in force, with the source of each value; decided at the first allocation, or by this call if it comes
/// earlier.
pub fn effective() -> &'static Effective {
    decide::effective()
}

/// Who serves an allocation.
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
    /// Each allocation on pages of its own that end at a page nobody can touch, and that are not used again for
    /// a while: for hunting bugs.
    Guarded = 3,
    /// The system's own allocator; this one does nothing.
    System = 4,
}

impl Pool {
    /// As a user writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tiered => "tiered",
            Self::Central => "central",
            Self::Hardened => "hardened",
            Self::Guarded => "guarded",
            Self::System => "system",
        }
    }
}

/// Whether there is a thread that gives memory back while the program does something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Background {
    /// While there is something to give back.
    Automatic,
    /// From the first allocation on.
    On,
    /// Never.
    Off,
}

/// What an allocation beyond the hard limit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtLimit {
    /// It fails with `ENOMEM`.
    Fail,
    /// It ends the program with a line that names the limit.
    Abort,
}

/// Transparent huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Asked for where the program fills them, as far as it has shown.
    Demand,
    /// As the system has it.
    System,
    /// None in the heap.
    Never,
    /// Asked for.
    Advise,
}

/// How statistics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// For a person.
    Text,
    /// One JSON object.
    Json,
    /// OpenMetrics, which Prometheus reads.
    OpenMetrics,
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Who serves.
    pub pool: Pool,
    /// Whether a thread of the allocator's own gives memory back while the program does something else.
    pub background: Background,
    /// Bytes from which on caches shrink and free pages go back at once; 0 for no limit.
    pub soft_limit: usize,
    /// Bytes that the heap never exceeds; 0 for no limit.
    pub hard_limit: usize,
    /// What an allocation beyond [`hard_limit`](Self::hard_limit) does.
    pub at_hard_limit: AtLimit,
    /// Bytes that the caches of all threads together may hold; [`AUTOMATIC`] for 32 MiB for each processor that the
    /// program may run on when it begins, 128 MiB at least and 1 GiB at most.
    pub cache_total: usize,
    /// Bytes that the cache of one thread may hold.
    pub cache_thread: usize,
    /// Shards of the central cache; 0 for as many as suit the number of processors.
    pub shards: usize,
    /// Time between two looks at what lies idle.
    pub release_delay: Duration,
    /// Bytes that go back to the system in a second, at most; 0 for no limit.
    pub release_rate: usize,
    /// Transparent huge pages.
    pub thp: HugePages,
    /// In the hardened pool: whether freed objects are filled with zeros, and not with 0xdb.
    pub zero_on_free: bool,
    /// In the hardened and guarded pools: bytes of freed objects that wait before they are used again.
    pub quarantine: usize,
    /// When statistics are written: bit 0 at the program's end, the others at a signal, in the order of the
    /// words of the key.
    pub stats: u32,
    /// Time between two writings of statistics; 0 for none.
    pub stats_interval: Duration,
    /// How statistics are written.
    pub stats_format: Format,
    /// Where statistics are written; empty for standard error.
    pub stats_file: Text,
    /// Whether what is in force is printed at the start.
    pub print: bool,
}

impl Config {
    /// What holds where nobody has said anything.
    pub const DEFAULT: Self = Self {
        pool: if cfg!(feature = "hardened") { Pool::Hardened } else { Pool::Tiered },
        background: Background::Automatic,
        soft_limit: 0,
        hard_limit: 0,
        at_hard_limit: AtLimit::Fail,
        cache_total: AUTOMATIC,
        cache_thread: 16 << 20,
        shards: 0,
        release_delay: Duration::from_ms(500),
        release_rate: 0,
        thp: HugePages::Demand,
        zero_on_free: false,
        quarantine: 4 << 20,
        stats: 0,
        stats_interval: Duration::NONE,
        stats_format: Format::Text,
        stats_file: Text::EMPTY,
        print: false,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}
