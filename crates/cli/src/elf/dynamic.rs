//! The dynamic section: which libraries an ELF file needs, its own name, and whether it defines
//! `malloc`.
//!
//! Nothing here makes a file unusable: what does not make sense is as if it were not there, and the
//! dynamic loader will say what it thinks of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{Fields, Segment, Source, Target};

/// Most entries of a dynamic section that are read.
const MAX_ENTRIES: usize = 4096;
/// Most libraries that are listed.
const MAX_NEEDED: usize = 1024;
/// Longest name of a library.
const MAX_NAME: usize = 512;
/// Most symbols of one hash bucket that are compared.
const MAX_CHAIN: u32 = 1 << 16;

/// What a dynamic section tells.
#[derive(Debug, Default)]
pub struct Dynamic {
    /// The libraries that it names, in order (`DT_NEEDED`).
    pub needed: Vec<OsString>,
    /// Its own name (`DT_SONAME`).
    pub name: Option<OsString>,
    /// It exports a `malloc` of its own. In a program that one is found before any preloaded one.
    pub defines_malloc: bool,
}

impl Dynamic {
    pub(super) fn read<S: Source + ?Sized>(
        source: &S,
        target: Target,
        segments: &[Segment],
    ) -> Option<Self> {
        let section = segments.iter().find(|segment| segment.kind == Segment::DYNAMIC)?;
        let entry = 2 * target.word();
        let length = usize::try_from(section.length).ok()?.min(MAX_ENTRIES * entry);
        let mut bytes = vec![0; length];
        let length = source.read_at(&mut bytes, section.offset).ok()?;
        let file = Image { source, target, segments };

        let (mut needed, mut name) = (Vec::new(), None);
        let (mut strings, mut symbols, mut hash) = (None, None, None);
        for bytes in bytes[..length].chunks_exact(entry) {
            let mut fields = Fields { bytes, target };
            let (tag, value) = (fields.word(), fields.word());
            match tag {
                0 => break,
                1 if needed.len() < MAX_NEEDED => needed.push(value),
                5 => strings = file.offset(value),
                6 => symbols = file.offset(value),
                14 => name = Some(value),
                0x6fff_fef5 => hash = file.offset(value),
                _ => {}
            }
        }
        let strings = strings?;
        let string = |at: u64| file.string(strings.checked_add(at)?);
        let defines_malloc = symbols
            .zip(hash)
            .and_then(|(symbols, hash)| file.defines(b"malloc", strings, symbols, hash))
            .unwrap_or(false);
        Some(Self {
            needed: needed.into_iter().filter_map(string).collect(),
            name: name.and_then(string),
            defines_malloc,
        })
    }
}

/// A file together with the way from addresses to offsets in it.
struct Image<'a, S: ?Sized> {
    source: &'a S,
    target: Target,
    segments: &'a [Segment],
}

impl<S: Source + ?Sized> Image<'_, S> {
    /// Where in the file the byte is that will be loaded at `address`.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.kind == Segment::LOAD).find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            if within < segment.length { segment.offset.checked_add(within) } else { None }
        })
    }

    /// `n` bytes (at most 8) at `offset` as a number.
    fn number(&self, offset: u64, n: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..n)?;
        (self.source.read_at(bytes, offset).ok()? == n)
            .then(|| Fields { bytes, target: self.target }.number(n))
    }

    /// Element `index` of an array of 32-bit numbers.
    fn element(&self, array: u64, index: u64) -> Option<u32> {
        Some(self.number(array.checked_add(index.checked_mul(4)?)?, 4)? as u32)
    }

    /// The string at `offset`, unless it is longer than a name can be.
    fn string(&self, offset: u64) -> Option<OsString> {
        let mut bytes = [0; MAX_NAME];
        let length = self.source.read_at(&mut bytes, offset).ok()?;
        let end = bytes[..length].iter().position(|&byte| byte == 0)?;
        Some(OsStr::from_bytes(&bytes[..end]).to_owned())
    }

    /// Whether the symbol table defines `name`, by the table that the loader itself uses
    /// (`DT_GNU_HASH`): four counts, a Bloom filter, the buckets, and a chain of hashes whose last one
    /// in a bucket is odd.
    fn defines(&self, name: &[u8], strings: u64, symbols: u64, table: u64) -> Option<bool> {
        let buckets = u64::from(self.element(table, 0)?);
        let first = self.element(table, 1)?;
        let filter = u64::from(self.element(table, 2)?) * self.target.word() as u64;
        let buckets_at = table.checked_add(16 + filter)?;
        let chain_at = buckets_at.checked_add(4 * buckets)?;
        let wanted =
            name.iter().fold(5381u32, |h, &byte| h.wrapping_mul(33).wrapping_add(byte.into()));
        let start = self.element(buckets_at, u64::from(wanted).checked_rem(buckets)?)?;
        for index in start..start.saturating_add(MAX_CHAIN) {
            let hash = self.element(chain_at, u64::from(index.checked_sub(first)?))?;
            if hash | 1 == wanted | 1 && self.defined(symbols, index, strings, name)? {
                return Some(true);
            }
            if hash & 1 == 1 {
                break;
            }
        }
        Some(false)
    }

    /// Whether symbol `index` is called `name` and has a section, that is, is not wanted but given.
    fn defined(&self, symbols: u64, index: u32, strings: u64, name: &[u8]) -> Option<bool> {
        let (size, section) = if self.target.wide { (24, 6) } else { (16, 14) };
        let symbol = symbols.checked_add(u64::from(index) * size)?;
        let called = strings.checked_add(self.number(symbol, 4)?)?;
        let given = self.number(symbol.checked_add(section)?, 2)? != 0;
        Some(given && self.string(called)?.as_bytes() == name)
    }
}
