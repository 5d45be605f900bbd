//! The one table of what can be set.

use super::value::Duration;
use super::{AtLimit, Background, Config, Format, HugePages, Kind, Pool, Value};

/// Something that can be set.
#[derive(Debug)]
pub struct Key {
    /// As a user writes it.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it means, for a person.
    pub meaning: &'static str,
    /// The value that a configuration has.
    pub get: fn(&Config) -> Value,
    /// By reference: a value may be a text, which is long.
    pub(super) set: fn(&mut Config, &Value),
}

/// A key whose field is a word, by its place among the words.
macro_rules! choice {
    ($name:literal, $field:ident, [$($word:literal = $value:expr),+], $meaning:literal) => {
        Key {
            name: $name,
            kind: Kind::Choice(&[$($word),+]),
            meaning: $meaning,
            get: |config| {
                let words = [$($value),+];
                // What is none of them is told of, as any value that a key does not take.
                let place = words.iter().position(|word| *word == config.$field);
                Value::Choice(place.unwrap_or(usize::MAX))
            },
            set: |config, value| {
                if let Value::Choice(word) = *value {
                    config.$field = [$($value),+][word];
                }
            },
        }
    };
}

/// A key whose field is the value itself.
macro_rules! plain {
    ($name:literal, $field:ident, $variant:ident, $kind:expr, $meaning:literal) => {
        Key {
            name: $name,
            kind: $kind,
            meaning: $meaning,
            get: |config| Value::$variant(config.$field),
            set: |config, value| {
                if let Value::$variant(value) = *value {
                    config.$field = value;
                }
            },
        }
    };
}

const ANY_BYTES: Kind =
    Kind::Bytes { least: 0, most: isize::MAX as usize, none: true, automatic: false };

/// All keys, in the order in which they are listed.
pub static KEYS: [Key; 18] = [
    choice!(
        "pool",
        pool,
        [
            "tiered" = Pool::Tiered,
            "central" = Pool::Central,
            "hardened" = Pool::Hardened,
            "guarded" = Pool::Guarded,
            "system" = Pool::System
        ],
        "who serves: all tiers, without thread caches, with a check of every free, each on pages of its own, or the \
         system's allocator"
    ),
    choice!(
        "background",
        background,
        ["automatic" = Background::Automatic, "on" = Background::On, "off" = Background::Off],
        "a thread of the allocator gives free memory back: while there is some, always there, or never"
    ),
    plain!(
        "soft_limit",
        soft_limit,
        Bytes,
        ANY_BYTES,
        "bytes from which on caches shrink and free pages go back at once"
    ),
    plain!(
        "hard_limit",
        hard_limit,
        Bytes,
        // Less would serve nobody, and most likely a unit is missing.
        Kind::Bytes { least: 1 << 20, most: isize::MAX as usize, none: true, automatic: false },
        "bytes that the heap never exceeds"
    ),
    choice!(
        "at_hard_limit",
        at_hard_limit,
        ["fail" = AtLimit::Fail, "abort" = AtLimit::Abort],
        "what an allocation beyond hard_limit does: fail with ENOMEM, or end the program with a line that names it"
    ),
    plain!(
        "cache_total",
        cache_total,
        Bytes,
        Kind::Bytes { least: 0, most: 1 << 40, none: false, automatic: true },
        "bytes that the caches of all threads together may hold; automatic: 32MiB for each processor, 128MiB to 1GiB"
    ),
    plain!(
        "cache_thread",
        cache_thread,
        Bytes,
        Kind::Bytes { least: 0, most: 1 << 40, none: false, automatic: false },
        "bytes that the cache of one thread may hold"
    ),
    choice!(
        "shards",
        shards,
        ["automatic" = 0, "1" = 1, "2" = 2, "4" = 4, "8" = 8, "16" = 16],
        "parts of the central cache, for threads that run at the same time; automatic: one for each four processors"
    ),
    plain!(
        "release_delay",
        release_delay,
        Duration,
        Kind::Duration {
            least: Duration::from_ms(10),
            most: Duration::from_ms(3_600_000),
            none: false
        },
        "time between two looks at what lies idle, half of which goes back to the system each time"
    ),
    plain!(
        "release_rate",
        release_rate,
        Bytes,
        Kind::Bytes { least: 64 << 10, most: isize::MAX as usize, none: true, automatic: false },
        "bytes that go back to the system in a second, at most"
    ),
    choice!(
        "thp",
        thp,
        [
            "demand" = HugePages::Demand,
            "advise" = HugePages::Advise,
            "never" = HugePages::Never,
            "system" = HugePages::System
        ],
        "transparent huge pages: asked for where the program fills them, asked for everywhere, forbidden, or as the system has it"
    ),
    plain!(
        "zero_on_free",
        zero_on_free,
        Switch,
        Kind::Switch,
        "hardened pool: fill freed objects with zeros and not with 0xdb"
    ),
    plain!(
        "quarantine",
        quarantine,
        Bytes,
        Kind::Bytes { least: 0, most: 1 << 30, none: false, automatic: false },
        "hardened and guarded pools: bytes of freed objects that wait before they are used again"
    ),
    plain!(
        "stats",
        stats,
        Flags,
        Kind::Flags(&["exit", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPROF", "SIGURG", "SIGWINCH"]),
        "when statistics are written: at the program's end, on a signal"
    ),
    plain!(
        "stats_interval",
        stats_interval,
        Duration,
        Kind::Duration {
            least: Duration::from_ms(100),
            most: Duration::from_ms(86_400_000),
            none: true
        },
        "time between two writings of statistics"
    ),
    choice!(
        "stats_format",
        stats_format,
        ["text" = Format::Text, "json" = Format::Json, "openmetrics" = Format::OpenMetrics],
        "how statistics are written"
    ),
    plain!(
        "stats_file",
        stats_file,
        Text,
        Kind::Text,
        "where statistics are written; %p stands for the number of the process, and nothing for standard error"
    ),
    choice!(
        "config",
        print,
        ["quiet" = false, "print" = true],
        "print what is in force when the program starts"
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Text;

    #[test]
    fn what_is_set_is_what_is_got() {
        for key in &KEYS {
            let values: [Value; 2] = match key.kind {
                Kind::Choice(words) => [Value::Choice(0), Value::Choice(words.len() - 1)],
                Kind::Flags(words) => [Value::Flags(0), Value::Flags((1 << words.len()) - 1)],
                Kind::Switch => [Value::Switch(true), Value::Switch(false)],
                Kind::Bytes { least, most, .. } => [Value::Bytes(least), Value::Bytes(most)],
                Kind::Duration { least, most, .. } => {
                    [Value::Duration(least), Value::Duration(most)]
                }
                Kind::Text => {
                    [Value::Text(Text::EMPTY), Value::Text(Text::new(b"/tmp/%p").unwrap())]
                }
            };
            for value in values {
                let mut config = Config::DEFAULT;
                (key.set)(&mut config, &value);
                assert_eq!((key.get)(&config), value, "{}", key.name);
            }
        }
    }
}
