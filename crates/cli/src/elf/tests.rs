//! The reader over files of every layout, whole, cut short, and with anything changed in them.

use super::*;

/// A little program: loader, dynamic section, and a symbol table with the hash table over it.
struct Image {
    target: Target,
    bytes: Vec<u8>,
}

/// What [`Image::file`] puts into a file.
#[derive(Clone, Copy)]
struct Parts {
    loader: bool,
    /// The section of the symbol `malloc`: 0 where it is wanted, not given.
    malloc_section: u16,
}

const BASE: u64 = 0x1_0000;
const WHOLE: Parts = Parts { loader: true, malloc_section: 7 };

impl Image {
    fn number(&mut self, n: usize, value: u64) {
        let bytes = value.to_le_bytes();
        if self.target.big {
            self.bytes.extend(bytes[..n].iter().rev());
        } else {
            self.bytes.extend(&bytes[..n]);
        }
    }

    fn words(&mut self, values: &[u64]) {
        let n = self.target.word();
        values.iter().for_each(|&value| self.number(n, value));
    }

    fn segment(&mut self, kind: u32, offset: u64, length: u64) {
        self.number(4, kind.into());
        if self.target.wide {
            self.number(4, 5);
        }
        self.words(&[offset, BASE + offset, BASE + offset, length, length]);
        if !self.target.wide {
            self.number(4, 5);
        }
        self.words(&[1]);
    }

    fn file(wide: bool, big: bool, parts: Parts) -> Vec<u8> {
        let target = Target { wide, big, machine: 62 };
        // The second pass knows where things are.
        let mut places = [0; 6];
        for _ in 0..2 {
            let mut image = Self { target, bytes: Vec::new() };
            image.fill(parts, &mut places);
            if places[5] == image.bytes.len() as u64 {
                return image.bytes;
            }
            places[5] = image.bytes.len() as u64;
        }
        unreachable!("the layout depends on nothing but the parts")
    }

    fn fill(&mut self, parts: Parts, places: &mut [u64; 6]) {
        let target = self.target;
        let [loader, strings, symbols, hash, dynamic, end] = *places;
        let (header, size) = if target.wide { (64, 56) } else { (52, 32) };
        self.bytes.extend(b"\x7fELF");
        self.bytes.extend([1 + target.wide as u8, 1 + target.big as u8, 1]);
        self.bytes.resize(16, 0);
        [3, target.machine.into()].iter().for_each(|&half| self.number(2, half));
        self.number(4, 1);
        self.words(&[0, header, 0]);
        self.number(4, 0);
        let count = 2 + parts.loader as u64;
        [header, size, count, 0, 0, 0].iter().for_each(|&half| self.number(2, half));

        self.segment(Segment::LOAD, 0, end);
        if parts.loader {
            self.segment(Segment::INTERPRETER, loader, 10);
        }
        self.segment(Segment::DYNAMIC, dynamic, end.saturating_sub(dynamic));
        places[0] = self.bytes.len() as u64;
        self.bytes.extend(b"/lib/ld.x\0");
        places[1] = self.bytes.len() as u64;
        self.bytes.extend(b"\0malloc\0libc.so.6\0self.so\0");
        places[2] = self.bytes.len() as u64;
        for (name, section) in [(0, 0), (1, parts.malloc_section)] {
            self.number(4, name);
            if target.wide {
                self.number(2, 0x12);
                self.number(2, section.into());
                self.words(&[0, 0]);
            } else {
                [0, 0, 0x12]
                    .iter()
                    .for_each(|&word| self.number(if word == 0 { 4 } else { 2 }, word));
                self.number(2, section.into());
            }
        }
        places[3] = self.bytes.len() as u64;
        [1, 1, 1, 0].iter().for_each(|&count| self.number(4, count));
        self.words(&[u64::MAX]);
        // Bucket 0 starts at symbol 1, whose hash, with its last bit set, ends the chain.
        let hash_of_malloc = b"malloc".iter().fold(5381u32, |h, &b| h.wrapping_mul(33) + b as u32);
        [1, u64::from(hash_of_malloc | 1)].iter().for_each(|&word| self.number(4, word));
        places[4] = self.bytes.len() as u64;
        self.words(&[1, 8, 14, 18, 5, BASE + strings, 6, BASE + symbols]);
        self.words(&[0x6fff_fef5, BASE + hash, 0, 0]);
    }
}

fn read(bytes: &[u8]) -> Result<Elf, Error> {
    Elf::read(bytes)
}

fn layouts() -> [(bool, bool); 4] {
    [(true, false), (true, true), (false, false), (false, true)]
}

/// xorshift64*, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
}

/// The test program itself: a real file, of which what the reader looks at is at its start.
fn real() -> Vec<u8> {
    std::fs::read(std::env::current_exe().unwrap()).unwrap()
}

#[test]
fn every_layout_is_read() {
    for (wide, big) in layouts() {
        let elf = read(&Image::file(wide, big, WHOLE)).unwrap();
        assert_eq!(elf.target, Target { wide, big, machine: 62 });
        assert_eq!(elf.kind, Kind::Dynamic);
        assert_eq!(elf.interpreter.as_deref(), Some(OsStr::new("/lib/ld.x")));
        assert_eq!(elf.dynamic.needed, ["libc.so.6"]);
        assert_eq!(elf.dynamic.name.as_deref(), Some(OsStr::new("self.so")));
        assert!(elf.dynamic.defines_malloc, "wide {wide}, big {big}");
    }
}

#[test]
fn a_malloc_that_is_only_wanted_is_not_defined() {
    for (wide, big) in layouts() {
        let parts = Parts { malloc_section: 0, ..WHOLE };
        assert!(!read(&Image::file(wide, big, parts)).unwrap().dynamic.defines_malloc);
    }
}

#[test]
fn without_a_loader_it_is_static() {
    for (wide, big) in layouts() {
        let parts = Parts { loader: false, ..WHOLE };
        assert_eq!(read(&Image::file(wide, big, parts)).unwrap().interpreter, None);
    }
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_real_program_is_read() {
    let elf = Elf::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
    assert_eq!(elf.target.wide, cfg!(target_pointer_width = "64"));
    assert_eq!(elf.target.big, cfg!(target_endian = "big"));
    assert!(elf.interpreter.is_some());
    assert!(elf.dynamic.needed.iter().any(|name| name.as_bytes().starts_with(b"libc.so.6")));
    assert!(!elf.dynamic.defines_malloc);
    let same = read(&real()).unwrap();
    assert_eq!(format!("{same:?}"), format!("{elf:?}"));
}

#[test]
fn no_truncation_is_read_as_something_else() {
    for (wide, big) in layouts() {
        let bytes = Image::file(wide, big, WHOLE);
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Ok(elf) => {
                    // The headers were whole: then they are what they were.
                    assert_eq!(elf.target, Target { wide, big, machine: 62 }, "{end}");
                    assert_eq!(elf.interpreter.as_deref(), Some(OsStr::new("/lib/ld.x")), "{end}");
                }
                Err(Error::NotElf) => assert!(end < 4, "{end}"),
                Err(Error::Damaged(_)) => assert!(end >= 4, "{end}"),
                Err(Error::Read(error)) => panic!("{end}: {error}"),
            }
        }
    }
}

#[test]
fn every_truncation_of_a_real_header_is_judged() {
    let bytes = real();
    let whole = read(&bytes).unwrap();
    for end in 0..bytes.len().min(8192) {
        match read(&bytes[..end]) {
            Ok(elf) => {
                assert_eq!((elf.target, elf.kind), (whole.target, whole.kind), "{end}");
                assert_eq!(elf.interpreter, whole.interpreter, "{end}");
            }
            Err(error) => assert_eq!(matches!(error, Error::NotElf), end < 4, "{end}: {error}"),
        }
    }
}

#[test]
fn any_bit_may_be_wrong() {
    for (wide, big) in layouts() {
        let mut bytes = Image::file(wide, big, WHOLE);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = read(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn many_bytes_may_be_wrong() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..40_000 {
        let (wide, big) = layouts()[round % 4];
        let mut bytes = Image::file(wide, big, WHOLE);
        for _ in 0..1 + random.below(12) {
            let at = random.below(bytes.len());
            // All ones and zeros are what overflows; the rest is noise.
            bytes[at] = [0, 0xff, 0x7f, 0x80, random.next() as u8][random.below(5)];
        }
        let _ = read(&bytes);
    }
}

#[test]
fn garbage_is_never_a_panic() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    for round in 0..40_000 {
        let mut bytes: Vec<u8> = (0..random.below(512)).map(|_| random.next() as u8).collect();
        // Most garbage must get further than the first four bytes.
        let start = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0";
        if round % 8 != 0 && bytes.len() > start.len() {
            bytes[..start.len()].copy_from_slice(start);
            bytes[4] = 1 + (round as u8 & 1);
            bytes[5] = 1 + (round as u8 >> 1 & 1);
        }
        let _ = read(&bytes);
    }
}

#[test]
fn counts_in_a_file_do_not_make_the_reader_read_without_end() {
    /// An endless file: every offset has the same byte.
    struct Endless(Vec<u8>, u8);
    impl Source for Endless {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            buffer.fill(self.1);
            let n = self.0.as_slice().read_at(buffer, offset)?;
            buffer[n..].fill(self.1);
            Ok(buffer.len())
        }
    }
    for filler in [0, 1, 2, 0x40, 0xfe, 0xff] {
        for (wide, big) in layouts() {
            let bytes = Image::file(wide, big, WHOLE);
            for end in (4..bytes.len()).step_by(3) {
                let _ = Elf::read(&Endless(bytes[..end].to_vec(), filler));
            }
        }
    }
}

#[test]
fn other_kinds_of_files_are_named() {
    let mut bytes = Image::file(true, false, WHOLE);
    for (kind, name) in [(1, "an object file"), (4, "a core dump"), (9, "an ELF file of type 9")] {
        bytes[16] = kind;
        assert_eq!(read(&bytes).unwrap().kind.to_string(), name);
    }
}

#[test]
fn targets_are_named_for_people() {
    let name = |wide, big, machine| Target { wide, big, machine }.to_string();
    assert_eq!(name(true, false, 62), "64-bit x86-64");
    assert_eq!(name(false, false, 62), "32-bit x86-64");
    assert_eq!(name(true, true, 22), "64-bit S/390 big-endian");
    assert_eq!(name(true, false, 9999), "64-bit machine 9999");
}
