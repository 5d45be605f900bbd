//! Configuration files that are wrong in all kinds of ways, the same ones each time.

/// A file that is right, to be broken.
const WHOLE: &str = "\
# a comment
pool = \"central\"
background = off # another
quarantine = 1_048_576
zero_on_free = true

[redis-server]
release_delay = '500ms'
soft_limit = \"64MiB\"
[\"my prog\"]
stats_file = \"/tmp/%p \\\"stats\\\" \\\\\"
";

/// A generator of numbers, good enough for mischief (Marsaglia, 2003).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }

    /// Fewer bytes than that.
    fn bytes(&mut self, end: usize) -> Vec<u8> {
        let length = self.below(end);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// The file of that number. Each is broken in one to four ways.
pub fn file(number: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(number + 1);
    let mut text = WHOLE.as_bytes().to_vec();
    for _ in 0..=numbers.below(4) {
        break_once(&mut text, &mut numbers);
    }
    text
}

fn break_once(text: &mut Vec<u8>, numbers: &mut Numbers) {
    let at = numbers.below(text.len() + 1);
    let insert = |text: &mut Vec<u8>, what: &[u8]| drop(text.splice(at..at, what.iter().copied()));
    match numbers.below(16) {
        // Cut in the middle.
        0 => text.truncate(at),
        1 => drop(text.drain(..at)),
        // Bytes lost, changed, added.
        2 => drop(text.drain(at..(at + 1 + numbers.below(20)).min(text.len()))),
        3 => text.iter_mut().skip(at).step_by(7).for_each(|byte| *byte ^= 1 << numbers.below(8)),
        4 => insert(text, &numbers.bytes(40)),
        // Things that mean something, in the wrong place.
        5 => {
            const MARKS: &[&str] = &[
                "[", "]", "\"", "'", "=", "#", "\\", ",", "\n", "\r", "\0", "\t", "[[x]]",
                "\u{feff}",
            ];
            insert(text, MARKS[numbers.below(MARKS.len())].as_bytes());
        }
        // Settings that are none.
        6 => {
            const SETTINGS: &[&str] = &[
                "pool = fast",
                "pol = central",
                "quarantine = 9GiB",
                "quarantine = -1",
                "quarantine = 4 parsecs",
                "release_delay = 5",
                "zero_on_free = maybe",
                "arena = 3",
                "= 3",
                "pool =",
                "pool",
                "[",
                "[]",
                "[\"x]",
                "a.b = 1",
                "pool = [1, 2]",
                "pool = { a = 1 }",
                "stats = exit+SIGKILL",
                "hard_limit = 1e9",
                "quarantine = 99999999999999999999999999",
                "pool = \"\"\"central\"\"\"",
                "\"pool = 1",
            ];
            let line = format!("\n{}\n", SETTINGS[numbers.below(SETTINGS.len())]);
            insert(text, line.as_bytes());
        }
        // Much of it.
        7 => insert(text, &b"nonsense = 1\n".repeat(numbers.below(100))),
        8 => insert(text, &vec![b'x'; numbers.below(4000)]),
        9 => insert(text, &vec![b'#'; numbers.below(4000)]),
        10 => *text = text.repeat(1 + numbers.below(300)),
        // Another kind of file.
        11 => *text = text.iter().flat_map(|&byte| [byte, 0]).collect(),
        12 => *text = numbers.bytes(5000),
        13 => *text = b"\x7fELF\x02\x01\x01".iter().copied().chain(numbers.bytes(2000)).collect(),
        14 => text.retain(|&byte| byte != b'\n'),
        _ => {
            let crlf = String::from_utf8_lossy(text).replace('\n', "\r\n");
            *text = crlf.into_bytes();
        }
    }
}
