//! Numbers as people read them.

/// In the largest unit that fits: `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut scaled = n as f64;
    while scaled >= 1023.5 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let places = match scaled {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.places$} {:<3}", UNITS[unit])
}

/// With a comma before every three digits.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The difference between two numbers, in the words that `write` has for one.
pub fn difference(before: u64, after: u64, write: fn(u64) -> String) -> String {
    match after.cmp(&before) {
        std::cmp::Ordering::Equal => "=".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", write(after - before)),
        std::cmp::Ordering::Less => format!("-{}", write(before - after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        for (n, text) in [
            (0, "0 B  "),
            (1023, "1023 B  "),
            (1024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (123 << 20, "123 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(difference(5, 3, grouped), "-2");
        assert_eq!(difference(3, 1003, grouped), "+1,000");
        assert_eq!(difference(3, 3, grouped), "=");
    }
}
