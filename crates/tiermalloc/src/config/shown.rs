//! Values as a user would write them.

use core::fmt;

use super::{AUTOMATIC, Config, Key, Kind, Value};
use crate::line::Line;

/// Bytes of a text that are shown where a line has no more room.
const SHOWN: usize = 120;

/// The value of a key, as it may be written in a file: `"64MiB"`, `"tiered"`, `true`. [`bare`](Self::bare) is the
/// same without quotes, as in a variable of the environment.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    kind: Kind,
    value: Value,
    quoted: bool,
}

impl Key {
    /// The value that a configuration has for this key, in words.
    pub fn shown(&self, config: &Config) -> Shown {
        Shown { kind: self.kind, value: (self.get)(config), quoted: true }
    }

    /// A value of this key, in words.
    pub fn show(&self, value: Value) -> Shown {
        Shown { kind: self.kind, value, quoted: true }
    }
}

impl Shown {
    /// Without quotes.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { quoted: false, ..self }
    }

    pub(crate) fn write(&self, line: Line) -> Line {
        let quoted = self.quoted && !matches!(self.value, Value::Switch(_));
        let mark = if quoted { "\"" } else { "" };
        self.content(line.text(mark), quoted).text(mark)
    }

    fn content(&self, line: Line, quoted: bool) -> Line {
        match (self.value, self.kind) {
            (Value::Choice(n), Kind::Choice(words)) => {
                line.text(words.get(n).copied().unwrap_or("something else"))
            }
            (Value::Flags(0), _) => line.text("off"),
            (Value::Flags(bits), Kind::Flags(words)) => {
                let set = words.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
                set.fold((line, ""), |(line, mark), (_, word)| (line.text(mark).text(word), "+")).0
            }
            (Value::Switch(on), _) => line.text(if on { "true" } else { "false" }),
            (Value::Bytes(0), Kind::Bytes { none: true, .. }) => line.text("none"),
            (Value::Bytes(AUTOMATIC), Kind::Bytes { automatic: true, .. }) => {
                line.text("automatic")
            }
            (Value::Bytes(bytes), _) => scaled(line, bytes as u64, &BYTES),
            (Value::Duration(time), Kind::Duration { none: true, .. }) if time.ms() == 0 => {
                line.text("none")
            }
            (Value::Duration(time), _) => scaled(line, time.ms(), &TIMES),
            (Value::Text(text), _) => {
                let shown = &text.as_bytes()[..text.as_bytes().len().min(SHOWN)];
                let line = shown.iter().fold(line, |line, byte| {
                    let mark = if quoted && matches!(byte, b'"' | b'\\') { "\\" } else { "" };
                    line.text(mark).quoted(core::slice::from_ref(byte), 1)
                });
                if shown.len() < text.as_bytes().len() { line.text("...") } else { line }
            }
            _ => line,
        }
    }
}

/// Units, the largest first.
const BYTES: [(u64, &str); 5] =
    [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
const TIMES: [(u64, &str); 4] = [(3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];

/// A number in the largest unit of which it is a multiple.
fn scaled(line: Line, number: u64, units: &[(u64, &str)]) -> Line {
    let fits = |(scale, _): &&(u64, &str)| number >= *scale && number % scale == 0;
    let &(scale, unit) = units.iter().find(fits).unwrap_or(&units[units.len() - 1]);
    line.digits((number / scale) as usize, 10).text(unit)
}

/// On one line, a text as a whole; what is no printable character is shown as `?`.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::Text(text) = self.value else {
            return f.write_str(self.write(Line::empty()).as_str());
        };
        let mark = if self.quoted { "\"" } else { "" };
        f.write_str(mark)?;
        for chunk in text.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' if self.quoted => write!(f, "\\{character}")?,
                    character if character.is_control() => f.write_str("?")?,
                    character => write!(f, "{character}")?,
                }
            }
            f.write_str(if chunk.invalid().is_empty() { "" } else { "?" })?;
        }
        f.write_str(mark)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::{Duration, KEYS, Text};
    use super::*;

    fn key(name: &str) -> &'static Key {
        KEYS.iter().find(|key| key.name == name).unwrap()
    }

    #[test]
    fn values_are_shown_in_the_largest_unit_that_is_exact() {
        let quarantine = |bytes| key("quarantine").show(Value::Bytes(bytes)).bare().to_string();
        assert_eq!(quarantine(0), "0B");
        assert_eq!(quarantine(4 << 20), "4MiB");
        assert_eq!(quarantine((4 << 20) + 1024), "4097KiB");
        assert_eq!(quarantine(1000), "1000B");
        assert_eq!(key("hard_limit").show(Value::Bytes(0)).to_string(), "\"none\"");
        assert_eq!(key("cache_total").show(Value::Bytes(AUTOMATIC)).to_string(), "\"automatic\"");
        assert_eq!(key("cache_total").show(Value::Bytes(0)).to_string(), "\"0B\"");
        let delay =
            |ms| key("release_delay").show(Value::Duration(Duration::from_ms(ms))).to_string();
        assert_eq!(delay(500), "\"500ms\"");
        assert_eq!(delay(90_000), "\"90s\"");
        assert_eq!(delay(7_200_000), "\"2h\"");
        assert_eq!(key("zero_on_free").show(Value::Switch(true)).to_string(), "true");
        assert_eq!(key("stats").show(Value::Flags(0b1001)).to_string(), "\"exit+SIGUSR2\"");
        let text = Value::Text(Text::new(br#"a"b\c"#).unwrap());
        assert_eq!(key("stats_file").show(text).to_string(), r#""a\"b\\c""#);
        assert_eq!(key("stats_file").show(text).bare().to_string(), r#"a"b\c"#);
    }

    #[test]
    fn a_text_is_shown_as_a_whole() {
        let shown = |text: &[u8]| {
            key("stats_file").show(Value::Text(Text::new(text).unwrap())).bare().to_string()
        };
        let long = "/".repeat(200);
        assert_eq!(shown(long.as_bytes()), long);
        // What a terminal might obey is none of a text, but for what stands behind ASCII.
        assert_eq!(shown("/tmp/\u{e4}\u{9b}2J".as_bytes()), "/tmp/\u{e4}?2J");
        assert_eq!(shown(b"/tmp/\xff\xfe%p"), "/tmp/??%p");
    }

    #[test]
    fn what_is_shown_is_read_back_as_it_was() {
        for key in &KEYS {
            let mut values = std::vec![(key.get)(&Config::DEFAULT)];
            match key.kind {
                Kind::Bytes { least, most, .. } => {
                    values.extend([least, most, 12345.max(least)].map(Value::Bytes));
                }
                Kind::Duration { least, most, .. } => {
                    values.extend([least, most].map(Value::Duration));
                }
                Kind::Flags(words) => values.extend((0..1 << words.len()).map(Value::Flags)),
                Kind::Choice(words) => values.extend((0..words.len()).map(Value::Choice)),
                _ => {}
            }
            for value in values {
                let shown = key.show(value).bare().to_string();
                assert_eq!(key.kind.read(shown.as_bytes()), Ok(value), "{} {shown}", key.name);
            }
        }
    }
}
