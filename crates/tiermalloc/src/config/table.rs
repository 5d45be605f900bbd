//! The one table of what can be set.

use super::{Config, Kind, Pool, Value};

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
    pub(super) set: fn(&mut Config, Value),
}

/// All keys, in the order in which they are listed.
pub static KEYS: [Key; 4] = [
    Key {
        name: "pool",
        kind: Kind::Choice(&["tiered", "central", "hardened"]),
        meaning: "which tiers serve: with thread caches, without, or with a check of every free",
        get: |config| Value::Choice(config.pool as usize),
        set: |config, value| {
            if let Value::Choice(word) = value {
                config.pool = match word {
                    0 => Pool::Tiered,
                    1 => Pool::Central,
                    _ => Pool::Hardened,
                };
            }
        },
    },
    Key {
        name: "background",
        kind: Kind::Switch,
        meaning: "a thread comes now and then and gives free memory back, also while the program sleeps",
        get: |config| Value::Switch(config.background),
        set: |config, value| {
            if let Value::Switch(on) = value {
                config.background = on;
            }
        },
    },
    Key {
        name: "zero_on_free",
        kind: Kind::Switch,
        meaning: "hardened pool: fill freed objects with zeros and not with 0xdb",
        get: |config| Value::Switch(config.zero_on_free),
        set: |config, value| {
            if let Value::Switch(on) = value {
                config.zero_on_free = on;
            }
        },
    },
    Key {
        name: "quarantine",
        kind: Kind::Bytes { least: 0, most: 1 << 30 },
        meaning: "hardened pool: bytes of freed objects that wait before they are used again",
        get: |config| Value::Bytes(config.quarantine),
        set: |config, value| {
            if let Value::Bytes(bytes) = value {
                config.quarantine = bytes;
            }
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_got() {
        for key in &KEYS {
            let values: [Value; 2] = match key.kind {
                Kind::Choice(words) => [Value::Choice(0), Value::Choice(words.len() - 1)],
                Kind::Switch => [Value::Switch(true), Value::Switch(false)],
                Kind::Bytes { least, most } => [Value::Bytes(least), Value::Bytes(most)],
            };
            for value in values {
                let mut config = Config::DEFAULT;
                (key.set)(&mut config, value);
                assert_eq!((key.get)(&config), value, "{}", key.name);
            }
        }
    }
}
