//! A configuration in the words of a program: `Config::new().pool(Pool::Central).hard_limit(64 << 20)`.

use super::{AtLimit, Background, Config, Duration, Format, HugePages, Pool, Text};

/// A function for each field, which sets it.
macro_rules! setters {
    ($($field:ident: $type:ty),+ $(,)?) => {
        /// Each of these sets one field, in a `const` too. A value that is out of the range of its key is not seen
        /// here: it is told on standard error when the configuration is put into force, and the default stays.
        impl Config {
            $(
                #[doc = concat!("With this [`", stringify!($field), "`](field@Config::", stringify!($field), ").")]
                #[must_use]
                pub const fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

setters! {
    pool: Pool,
    background: Background,
    soft_limit: usize,
    hard_limit: usize,
    at_hard_limit: AtLimit,
    cache_total: usize,
    cache_thread: usize,
    shards: usize,
    release_delay: Duration,
    release_rate: usize,
    thp: HugePages,
    zero_on_free: bool,
    quarantine: usize,
    stats: u32,
    stats_interval: Duration,
    stats_format: Format,
    stats_file: Text,
    print: bool,
}

impl Config {
    /// What holds where nobody has said anything, to begin with: [`DEFAULT`](Self::DEFAULT).
    #[must_use]
    pub const fn new() -> Self {
        Self::DEFAULT
    }
}
