//! Reading the ELF header of programs and libraries: as much as decides whether the dynamic loader
//! will preload one into the other.
//!
//! Files are not trusted. Every read is bounds-checked, no count in a file makes us read or keep more
//! than a fixed limit (E1), every loop is bounded by one (E2), and nothing panics (E3); the tests
//! feed it every truncation of real files, flipped bits and garbage. Where the kernel has a limit,
//! ours is the same: what it would not load is damaged here.

mod dynamic;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

pub use dynamic::Dynamic;

/// Most bytes of program headers that the kernel reads.
const MAX_HEADERS: usize = 64 * 1024;
/// Longest interpreter path that the kernel takes (`PATH_MAX`).
const MAX_INTERPRETER: u64 = 4096;

/// What an ELF file is, as far as preloading goes.
#[derive(Debug)]
pub struct Elf {
    /// The machine it is for.
    pub target: Target,
    /// Its kind.
    pub kind: Kind,
    /// The dynamic loader that it asks for; a static program asks for none.
    pub interpreter: Option<OsString>,
    /// What its dynamic section tells; empty where there is none, or where it makes no sense.
    pub dynamic: Dynamic,
}

/// What a program and a library must have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// 64-bit addresses.
    pub wide: bool,
    /// Big-endian.
    pub big: bool,
    /// `e_machine`.
    pub machine: u16,
}

/// `e_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An object file.
    Relocatable,
    /// A program at a fixed address.
    Executable,
    /// A shared object, or a program at any address.
    Dynamic,
    /// A core dump.
    Core,
    /// Anything else.
    Other(u16),
}

/// Why a file could not be read as ELF.
#[derive(Debug)]
pub enum Error {
    /// It does not start as an ELF file does.
    NotElf,
    /// It starts like one and makes no sense.
    Damaged(&'static str),
    /// The system could not read it.
    Read(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("it is not an ELF file"),
            Self::Damaged(what) => write!(f, "it is a damaged ELF file ({what})"),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relocatable => f.write_str("an object file"),
            Self::Executable => f.write_str("a program"),
            Self::Dynamic => f.write_str("a shared object"),
            Self::Core => f.write_str("a core dump"),
            Self::Other(kind) => write!(f, "an ELF file of type {kind}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.machine {
            2 | 18 | 43 => "SPARC",
            3 => "x86",
            8 => "MIPS",
            20 => "PowerPC",
            21 => "PowerPC64",
            22 => "S/390",
            40 => "ARM",
            62 => "x86-64",
            183 => "AArch64",
            243 => "RISC-V",
            258 => "LoongArch",
            machine => return write!(f, "{}-bit machine {machine}{}", self.bits(), self.order()),
        };
        write!(f, "{}-bit {name}{}", self.bits(), self.order())
    }
}

impl Target {
    fn bits(self) -> u8 {
        if self.wide { 64 } else { 32 }
    }

    fn order(self) -> &'static str {
        if self.big { " big-endian" } else { "" }
    }

    /// Bytes of an address.
    fn word(self) -> usize {
        if self.wide { 8 } else { 4 }
    }
}

/// Something that bytes are read from at an offset.
pub trait Source {
    /// Fills as much of `buffer` as there is, and returns how much that was.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let Some(at) = offset.checked_add(done as u64) else { break };
            // The kernel's offsets are signed; beyond them is beyond every file.
            if i64::try_from(at).is_err() {
                break;
            }
            match FileExt::read_at(self, &mut buffer[done..], at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl Source for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// Reads numbers one after the other from bytes of `target`'s layout.
struct Fields<'a> {
    bytes: &'a [u8],
    target: Target,
}

impl Fields<'_> {
    /// The next `n` bytes as a number; 0 beyond the end.
    fn number(&mut self, n: usize) -> u64 {
        let Some((field, rest)) = self.bytes.split_at_checked(n) else { return 0 };
        self.bytes = rest;
        let fold = |value, byte: &u8| value << 8 | u64::from(*byte);
        if self.target.big { field.iter().fold(0, fold) } else { field.iter().rev().fold(0, fold) }
    }

    fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }

    /// A number as wide as an address.
    fn word(&mut self) -> u64 {
        self.number(self.target.word())
    }
}

/// A program header, without what nobody asks for.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    /// Bytes in the file.
    length: u64,
}

impl Segment {
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const INTERPRETER: u32 = 3;

    fn size(target: Target) -> usize {
        if target.wide { 56 } else { 32 }
    }

    fn read(bytes: &[u8], target: Target) -> Self {
        let mut fields = Fields { bytes, target };
        let kind = fields.u32();
        if target.wide {
            let _flags = fields.u32();
        }
        let (offset, address, _physical) = (fields.word(), fields.word(), fields.word());
        Self { kind, offset, address, length: fields.word() }
    }
}

impl Elf {
    /// Reads what is known about the file from its start.
    pub fn read<S: Source + ?Sized>(source: &S) -> Result<Self, Error> {
        let mut header = [0u8; 64];
        let length = source.read_at(&mut header, 0).map_err(Error::Read)?;
        if length < 4 || !header.starts_with(b"\x7fELF") {
            return Err(Error::NotElf);
        }
        let wide = match header[4] {
            1 => false,
            2 => true,
            _ => return Err(Error::Damaged("neither 32 nor 64 bits")),
        };
        let big = match header[5] {
            1 => false,
            2 => true,
            _ => return Err(Error::Damaged("no byte order")),
        };
        if length < if wide { 64 } else { 52 } {
            return Err(Error::Damaged("it ends within its header"));
        }
        let mut target = Target { wide, big, machine: 0 };
        let mut fields = Fields { bytes: &header[16..], target };
        let kind = match fields.u16() {
            1 => Kind::Relocatable,
            2 => Kind::Executable,
            3 => Kind::Dynamic,
            4 => Kind::Core,
            other => Kind::Other(other),
        };
        target.machine = fields.u16();
        let mut elf = Self { target, kind, interpreter: None, dynamic: Dynamic::default() };
        if !matches!(kind, Kind::Executable | Kind::Dynamic) {
            return Ok(elf);
        }
        let (_version, _entry) = (fields.u32(), fields.word());
        let headers_at = fields.word();
        let (_sections, _flags, _header_size) = (fields.word(), fields.u32(), fields.u16());
        let (size, count) = (usize::from(fields.u16()), usize::from(fields.u16()));

        let segments = segments(source, target, headers_at, size, count)?;
        elf.interpreter = segments
            .iter()
            .find(|segment| segment.kind == Segment::INTERPRETER)
            .map(|segment| interpreter(source, *segment))
            .transpose()?;
        elf.dynamic = Dynamic::read(source, target, &segments).unwrap_or_default();
        Ok(elf)
    }
}

/// Reads the program headers.
fn segments<S: Source + ?Sized>(
    source: &S,
    target: Target,
    offset: u64,
    size: usize,
    count: usize,
) -> Result<Vec<Segment>, Error> {
    if size != Segment::size(target) {
        return Err(Error::Damaged("program headers of a wrong size"));
    }
    if count == 0 || count * size > MAX_HEADERS {
        return Err(Error::Damaged("no program headers, or too many"));
    }
    let mut bytes = vec![0; count * size];
    let length = source.read_at(&mut bytes, offset).map_err(Error::Read)?;
    if length != bytes.len() {
        return Err(Error::Damaged("it ends within its program headers"));
    }
    Ok(bytes.chunks_exact(size).map(|bytes| Segment::read(bytes, target)).collect())
}

/// Reads the path of the dynamic loader.
fn interpreter<S: Source + ?Sized>(source: &S, segment: Segment) -> Result<OsString, Error> {
    if !(2..=MAX_INTERPRETER).contains(&segment.length) {
        return Err(Error::Damaged("the name of its loader has a wrong length"));
    }
    let mut bytes = vec![0; segment.length as usize];
    let length = source.read_at(&mut bytes, segment.offset).map_err(Error::Read)?;
    if length != bytes.len() || bytes.pop() != Some(0) {
        return Err(Error::Damaged("the name of its loader has no end"));
    }
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Ok(OsStr::from_bytes(&bytes[..end]).to_owned())
}
