//! The kinds of values, and how each is written.

/// A number of bytes that goes by the machine.
pub const AUTOMATIC: usize = usize::MAX;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any of these words, joined by `+`; `off` for none of them.
    Flags(&'static [&'static str]),
    /// `true` or `false`; also `on`, `off`, `yes`, `no`, `1`, `0`.
    Switch,
    /// A number of bytes, with or without a unit (`64KiB`, `1.5MiB`, `4096`), in this range.
    Bytes {
        /// The least that makes sense.
        least: usize,
        /// The most that makes sense.
        most: usize,
        /// Whether `none`, or 0, says that there is no such thing.
        none: bool,
        /// Whether `automatic` leaves it to the machine: [`AUTOMATIC`] as a number.
        automatic: bool,
    },
    /// A time with a unit (`500ms`, `1.5s`, `10min`), in this range.
    Duration {
        /// The least that makes sense.
        least: Duration,
        /// The most that makes sense.
        most: Duration,
        /// Whether `none`, or 0, says that there is no such thing.
        none: bool,
    },
    /// At most [`Text::MOST`] bytes of printable text.
    Text,
}

/// A span of time, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(u64);

impl Duration {
    /// No time.
    pub const NONE: Self = Self(0);

    /// So many milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// In milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }
}

/// A short text, kept by value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; Self::MOST],
    used: u8,
}

impl Text {
    /// The most bytes of a text.
    pub const MOST: usize = 200;
    /// Nothing.
    pub const EMPTY: Self = Self { bytes: [0; Self::MOST], used: 0 };

    /// `None` if there are more than [`MOST`](Self::MOST) bytes, or some that cannot be printed.
    pub const fn new(text: &[u8]) -> Option<Self> {
        if text.len() > Self::MOST {
            return None;
        }
        let mut new = Self::EMPTY;
        let mut at = 0;
        while at < text.len() {
            if text[at] < b' ' || text[at] == 0x7f {
                return None;
            }
            new.bytes[at] = text[at];
            at += 1;
        }
        new.used = at as u8;
        Some(new)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }
}

impl core::fmt::Debug for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A value, as far as its key's kind gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// The number of a word in [`Kind::Choice`].
    Choice(usize),
    /// A switch.
    Switch(bool),
    /// Bytes.
    Bytes(usize),
    /// A bit for each word in [`Kind::Flags`].
    Flags(u32),
    /// A time.
    Duration(Duration),
    /// A text.
    Text(Text),
}

/// Why a text is no value of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It cannot be read as one.
    Unreadable,
    /// It can, but is too small or too large.
    OutOfRange,
}

/// Units of bytes. Those of a thousand are there because people write them.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Units of time, in milliseconds.
const TIMES: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("sec", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000)];

impl Kind {
    /// Reads a text, capital letters or not.
    ///
    /// # Errors
    /// The text is no value of this kind.
    pub fn read(&self, text: &[u8]) -> Result<Value, Refusal> {
        match *self {
            Self::Choice(words) => words
                .iter()
                .position(|word| is(text, word))
                // Where one may choose between on and off, the other words for these do as well.
                .or_else(|| {
                    let word = if switch(text)? { "on" } else { "off" };
                    words.iter().position(|other| *other == word)
                })
                .map(Value::Choice)
                .ok_or(Refusal::Unreadable),
            Self::Flags(words) => flags(text, words).map(Value::Flags).ok_or(Refusal::Unreadable),
            Self::Switch => switch(text).map(Value::Switch).ok_or(Refusal::Unreadable),
            Self::Bytes { least, most, none, automatic } => {
                if none && is(text, "none") {
                    return Ok(Value::Bytes(0));
                }
                if automatic && is(text, "automatic") {
                    return Ok(Value::Bytes(AUTOMATIC));
                }
                let bytes = scaled(text, UNITS).ok_or(Refusal::Unreadable)?;
                match usize::try_from(bytes) {
                    Ok(0) if none => Ok(Value::Bytes(0)),
                    Ok(bytes) if (least..=most).contains(&bytes) => Ok(Value::Bytes(bytes)),
                    _ => Err(Refusal::OutOfRange),
                }
            }
            Self::Duration { least, most, none } => {
                if none && (is(text, "none") || text == b"0") {
                    return Ok(Value::Duration(Duration::NONE));
                }
                let time = Duration(scaled(text, TIMES).ok_or(Refusal::Unreadable)?);
                if (least..=most).contains(&time) || (none && time == Duration::NONE) {
                    return Ok(Value::Duration(time));
                }
                Err(Refusal::OutOfRange)
            }
            Self::Text => Text::new(text).map(Value::Text).ok_or(Refusal::Unreadable),
        }
    }

    /// Whether a value, as a program may have made it, is one of this kind.
    pub fn holds(&self, value: &Value) -> bool {
        match (*self, *value) {
            (Self::Choice(words), Value::Choice(n)) => n < words.len(),
            (Self::Flags(words), Value::Flags(bits)) => bits >> words.len() == 0,
            (Self::Bytes { least, most, none, automatic }, Value::Bytes(bytes)) => {
                (none && bytes == 0)
                    || (automatic && bytes == AUTOMATIC)
                    || (least..=most).contains(&bytes)
            }
            (Self::Duration { least, most, none }, Value::Duration(time)) => {
                (none && time == Duration::NONE) || (least..=most).contains(&time)
            }
            (Self::Switch, Value::Switch(_)) | (Self::Text, Value::Text(_)) => true,
            _ => false,
        }
    }
}

/// Whether a text is that word, capital letters or not.
#[inline(always)]
fn is(text: &[u8], word: &str) -> bool {
    let word = word.as_bytes();
    text.len() == word.len()
        && text.iter().zip(word).all(|(a, b)| a == b || a.eq_ignore_ascii_case(b))
}

/// A bit for each of the words that stand in `text`, joined by `+`.
fn flags(text: &[u8], words: &[&str]) -> Option<u32> {
    if is(text, "off") || is(text, "none") {
        return Some(0);
    }
    text.split(|&byte| byte == b'+').map(<[u8]>::trim_ascii).try_fold(0, |bits, part| {
        let at = words.iter().position(|word| is(part, word))?;
        Some(bits | 1 << at)
    })
}

fn switch(text: &[u8]) -> Option<bool> {
    let any = |words: [&str; 4]| words.iter().any(|word| is(text, word));
    if any(["true", "on", "yes", "1"]) {
        return Some(true);
    }
    any(["false", "off", "no", "0"]).then_some(false)
}

/// A decimal number with an optional fraction and a unit. What is more than a `u64` holds is the most
/// that it holds: that is out of every range.
fn scaled(text: &[u8], units: &[(&str, u64)]) -> Option<u64> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut whole, mut rest) = (0u64, text);
    while let Some((&digit @ b'0'..=b'9', behind)) = rest.split_first() {
        whole = whole.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
        rest = behind;
    }
    if rest.len() == text.len() {
        return None;
    }
    let mut fraction: &[u8] = &[];
    if let Some(behind) = rest.strip_prefix(b".") {
        let places = digits(behind);
        if places == 0 {
            return None;
        }
        (fraction, rest) = behind.split_at(places);
    }
    let unit = rest.trim_ascii();
    let scale = units.iter().find(|(name, _)| is(unit, name))?.1;
    if fraction.is_empty() {
        return Some(whole.saturating_mul(scale));
    }
    // Ten places say more than any unit holds.
    let (mut parts, mut tenth) = (0u128, u128::from(scale));
    for &digit in fraction.iter().take(10) {
        tenth *= 10;
        parts = parts * 10 + u128::from(digit - b'0') * u128::from(scale);
    }
    let parts = parts / (tenth / u128::from(scale));
    Some(whole.saturating_mul(scale).saturating_add(parts as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Kind = Kind::Bytes { least: 0, most: usize::MAX, none: false, automatic: false };

    #[test]
    fn bytes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 65536),
            ("64 KiB", 65536),
            ("64KB", 64_000),
            ("1.5MiB", 3 << 19),
            ("0.25g", 1 << 28),
            ("2tib", 2 << 40),
            ("1.9999999999999999b", 1),
        ] {
            assert_eq!(ANY.read(text.as_bytes()), Ok(Value::Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_bytes_is_refused() {
        for text in
            ["", "k", "-1", "+1", "1.", ".5", "1..2", "1 2", "0x10", "1kk", "1e3", "\u{661}"]
        {
            assert_eq!(ANY.read(text.as_bytes()), Err(Refusal::Unreadable), "{text}");
        }
    }

    #[test]
    fn a_range_is_kept_at_both_ends_and_beyond_all_numbers() {
        let kind = Kind::Bytes { least: 10, most: 20, none: false, automatic: false };
        assert_eq!(kind.read(b"10"), Ok(Value::Bytes(10)));
        assert_eq!(kind.read(b"20"), Ok(Value::Bytes(20)));
        for text in ["9", "21", "99999999999999999999999999999999", "99999999999999999999tib"] {
            assert_eq!(kind.read(text.as_bytes()), Err(Refusal::OutOfRange), "{text}");
        }
    }

    #[test]
    fn what_goes_by_the_machine_is_a_word_and_no_number() {
        let kind = |automatic| Kind::Bytes { least: 0, most: 20, none: false, automatic };
        assert_eq!(kind(true).read(b"Automatic"), Ok(Value::Bytes(AUTOMATIC)));
        assert_eq!(kind(true).read(b"18446744073709551615"), Err(Refusal::OutOfRange));
        assert_eq!(kind(false).read(b"automatic"), Err(Refusal::Unreadable));
        assert!(kind(true).holds(&Value::Bytes(AUTOMATIC)));
        assert!(!kind(false).holds(&Value::Bytes(AUTOMATIC)));
        assert!(!kind(true).holds(&Value::Bytes(AUTOMATIC - 1)));
    }

    #[test]
    fn switches_and_words_are_read_in_any_case() {
        assert_eq!(Kind::Switch.read(b"On"), Ok(Value::Switch(true)));
        assert_eq!(Kind::Switch.read(b"0"), Ok(Value::Switch(false)));
        assert_eq!(Kind::Switch.read(b"maybe"), Err(Refusal::Unreadable));
        let words = Kind::Choice(&["one", "two"]);
        assert_eq!(words.read(b"TWO"), Ok(Value::Choice(1)));
        assert_eq!(words.read(b"tw"), Err(Refusal::Unreadable));
    }
}
