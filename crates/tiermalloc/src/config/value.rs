//! The kinds of values, and how each is written.

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`; also `on`, `off`, `yes`, `no`, `1`, `0`.
    Switch,
    /// A number of bytes, with or without a unit (`64KiB`, `1.5MiB`, `4096`), in this range.
    Bytes {
        /// The least that makes sense.
        least: usize,
        /// The most that makes sense.
        most: usize,
    },
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

impl Kind {
    /// Reads a text, capital letters or not.
    ///
    /// # Errors
    /// The text is no value of this kind.
    pub fn read(&self, text: &[u8]) -> Result<Value, Refusal> {
        match *self {
            Self::Choice(words) => words
                .iter()
                .position(|word| text.eq_ignore_ascii_case(word.as_bytes()))
                .map(Value::Choice)
                .ok_or(Refusal::Unreadable),
            Self::Switch => switch(text).map(Value::Switch).ok_or(Refusal::Unreadable),
            Self::Bytes { least, most } => {
                let bytes = scaled(text, UNITS).ok_or(Refusal::Unreadable)?;
                match usize::try_from(bytes) {
                    Ok(bytes) if (least..=most).contains(&bytes) => Ok(Value::Bytes(bytes)),
                    _ => Err(Refusal::OutOfRange),
                }
            }
        }
    }
}

fn switch(text: &[u8]) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|w| text.eq_ignore_ascii_case(w.as_bytes()));
    if is(["true", "on", "yes", "1"]) {
        return Some(true);
    }
    is(["false", "off", "no", "0"]).then_some(false)
}

/// A decimal number with an optional fraction and a unit. What is more than a `u64` holds is the most
/// that it holds: that is out of every range.
fn scaled(text: &[u8], units: &[(&str, u64)]) -> Option<u64> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    if whole == 0 {
        return None;
    }
    let (number, mut rest) = text.split_at(whole);
    let mut fraction: &[u8] = &[];
    if let Some(behind) = rest.strip_prefix(b".") {
        let places = digits(behind);
        if places == 0 {
            return None;
        }
        (fraction, rest) = behind.split_at(places);
    }
    let unit = rest.trim_ascii();
    let scale = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name.as_bytes()))?.1;
    let whole = number
        .iter()
        .fold(0u64, |n, &digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
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

    const ANY: Kind = Kind::Bytes { least: 0, most: usize::MAX };

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
        let kind = Kind::Bytes { least: 10, most: 20 };
        assert_eq!(kind.read(b"10"), Ok(Value::Bytes(10)));
        assert_eq!(kind.read(b"20"), Ok(Value::Bytes(20)));
        for text in ["9", "21", "99999999999999999999999999999999", "99999999999999999999tib"] {
            assert_eq!(kind.read(text.as_bytes()), Err(Refusal::OutOfRange), "{text}");
        }
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
