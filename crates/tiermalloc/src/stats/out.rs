//! Text into a sink, piece by piece: without allocation, formatting machinery or panic.

/// Bytes that are collected before the sink gets them.
const PIECE: usize = 512;

/// A text on its way to a sink.
pub(crate) struct Out<'a> {
    sink: &'a mut dyn FnMut(&[u8]),
    bytes: [u8; PIECE],
    used: usize,
}

/// The digits of a number, and where they begin.
fn digits(mut n: u64) -> ([u8; 20], usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 || at == 0 {
            return (digits, at);
        }
    }
}

/// Out of line: the formats call these hundreds of times, and inlined they were a quarter of the library.
impl<'a> Out<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(&[u8])) -> Self {
        Self { sink, bytes: [0; PIECE], used: 0 }
    }

    pub(crate) fn byte(&mut self, byte: u8) -> &mut Self {
        if self.used >= PIECE {
            self.flush();
        }
        if let Some(slot) = self.bytes.get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
        self
    }

    /// What has been collected goes to the sink.
    #[inline(never)]
    pub(crate) fn flush(&mut self) {
        if let Some(bytes) = self.bytes.get(..self.used) {
            if !bytes.is_empty() {
                (self.sink)(bytes);
            }
        }
        self.used = 0;
    }

    #[inline(never)]
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        text.bytes().for_each(|byte| {
            self.byte(byte);
        });
        self
    }

    /// Blanks, then the text, in `width` columns at least.
    #[inline(never)]
    pub(crate) fn right(&mut self, text: &[u8], width: usize) -> &mut Self {
        (text.len()..width).for_each(|_| {
            self.byte(b' ');
        });
        text.iter().for_each(|&byte| {
            self.byte(byte);
        });
        self
    }

    /// The text, then blanks, in `width` columns at least.
    #[inline(never)]
    pub(crate) fn left(&mut self, text: &str, width: usize) -> &mut Self {
        self.text(text);
        (text.len()..width).for_each(|_| {
            self.byte(b' ');
        });
        self
    }

    #[inline(never)]
    pub(crate) fn number(&mut self, n: u64) -> &mut Self {
        let (digits, at) = digits(n);
        self.right(digits.get(at..).unwrap_or_default(), 0)
    }

    /// Without commas, in `width` columns at least.
    #[inline(never)]
    pub(crate) fn number_right(&mut self, n: u64, width: usize) -> &mut Self {
        let (digits, at) = digits(n);
        self.right(digits.get(at..).unwrap_or_default(), width)
    }

    /// With a comma before every three digits.
    #[inline(never)]
    pub(crate) fn grouped(&mut self, n: u64, width: usize) -> &mut Self {
        let (digits, at) = digits(n);
        let mut text = Short::new();
        for (place, &digit) in digits.iter().enumerate().skip(at) {
            if place > at && (digits.len() - place) % 3 == 0 {
                text.add(b',');
            }
            text.add(digit);
        }
        self.right(text.as_bytes(), width)
    }

    /// In the largest unit that fits, with three digits at least: `12.3 MiB`.
    #[inline(never)]
    pub(crate) fn bytes(&mut self, n: u64, width: usize) -> &mut Self {
        const UNITS: [&[u8; 4]; 7] =
            [b" B  ", b" KiB", b" MiB", b" GiB", b" TiB", b" PiB", b" EiB"];
        let mut unit = 0;
        while unit + 1 < UNITS.len() && n >> (10 * unit) >= 1024 {
            unit += 1;
        }
        let mut text = Short::new();
        let shift = 10 * unit as u32;
        let whole = n >> shift;
        let places = if unit == 0 || whole >= 100 { 0 } else { 1 + u32::from(whole < 10) };
        // Rounded to so many places. What is lost of the last bits of an exabyte is less than a place.
        let scale = 10u64.pow(places);
        let scaled = (((u128::from(n) * u128::from(scale)) >> shift.saturating_sub(1)) as u64
            + u64::from(shift > 0))
            >> u32::from(shift > 0);
        let (digits, at) = digits(scaled / scale);
        digits.iter().skip(at).for_each(|&digit| text.add(digit));
        if places > 0 {
            text.add(b'.');
            if places == 2 {
                text.add(b'0' + (scaled / 10 % 10) as u8);
            }
            text.add(b'0' + (scaled % 10) as u8);
        }
        UNITS.get(unit).into_iter().flat_map(|unit| unit.iter()).for_each(|&b| text.add(b));
        self.right(text.as_bytes(), width)
    }

    /// A string as JSON, and as a label of OpenMetrics, has it; what is not ASCII or cannot be printed becomes
    /// a question mark.
    #[inline(never)]
    pub(crate) fn quoted(&mut self, text: &[u8]) -> &mut Self {
        self.byte(b'"');
        for &byte in text {
            match byte {
                b'"' | b'\\' => self.byte(b'\\').byte(byte),
                b' '..=b'~' => self.byte(byte),
                _ => self.byte(b'?'),
            };
        }
        self.byte(b'"')
    }
}

/// Some characters that are measured before they are written.
struct Short {
    bytes: [u8; 32],
    used: usize,
}

impl Short {
    fn new() -> Self {
        Self { bytes: [0; 32], used: 0 }
    }

    fn add(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn written(write: impl FnOnce(&mut Out<'_>)) -> String {
        let mut all = Vec::new();
        let mut sink = |bytes: &[u8]| all.extend_from_slice(bytes);
        let mut out = Out::new(&mut sink);
        write(&mut out);
        out.flush();
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (n, plain, grouped, bytes) in [
            (0, "0", "0", "0 B  "),
            (999, "999", "999", "999 B  "),
            (1000, "1000", "1,000", "1000 B  "),
            (1024, "1024", "1,024", "1.00 KiB"),
            (1536, "1536", "1,536", "1.50 KiB"),
            (1_048_576, "1048576", "1,048,576", "1.00 MiB"),
            (12_898_304, "12898304", "12,898,304", "12.3 MiB"),
            (123 << 20, "128974848", "128,974,848", "123 MiB"),
            (u64::MAX, "18446744073709551615", "18,446,744,073,709,551,615", "16.0 EiB"),
        ] {
            assert_eq!(written(|out| _ = out.number(n)), plain);
            assert_eq!(written(|out| _ = out.grouped(n, 0)), grouped);
            assert_eq!(written(|out| _ = out.bytes(n, 0)), bytes);
            assert_eq!(written(|out| _ = out.bytes(n, 12)).len(), 12);
        }
    }

    #[test]
    fn what_is_longer_than_a_piece_arrives_whole() {
        let text = "0123456789".repeat(500);
        assert_eq!(written(|out| _ = out.text(&text)), text);
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(written(|out| _ = out.quoted(b"a\"b\\c\n\xff")), "\"a\\\"b\\\\c??\"");
    }
}
