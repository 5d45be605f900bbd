//! Functions of a loaded library, by name: the tables that the loader itself goes by, read with every bound checked.
//!
//! The library's own header says which addresses it takes. All that is read lies in there, whatever the tables say
//! (System V ABI, "Dynamic Linking"; the hash table is GNU's).

/// What a library takes of the process's addresses, and where in there its tables are.
#[derive(Clone, Copy)]
pub(super) struct Library {
    base: usize,
    /// Behind its last byte that is mapped.
    end: usize,
    strings: usize,
    strings_end: usize,
    symbols: usize,
    hash: usize,
    versions: Option<usize>,
    name: usize,
}

const HEADER: [u8; 6] =
    [0x7f, b'E', b'L', b'F', 2, if cfg!(target_endian = "big") { 2 } else { 1 }];
const PROGRAM_HEADER_BYTES: usize = 56;
const SYMBOL_BYTES: usize = 24;
const LOAD: u32 = 1;
/// Where in a symbol's record its value is.
const VALUE: usize = 8;

/// Tags of the dynamic section.
const STRTAB: usize = 5;
const SYMTAB: usize = 6;
const STRSZ: usize = 10;
const SYMENT: usize = 11;
const SONAME: usize = 14;
const GNU_HASH: usize = 0x6fff_fef5;
const VERSYM: usize = 0x6fff_fff0;

/// A symbol that is a function's, and not to be resolved.
const FUNCTION: u8 = 2;
/// Set in the version of a symbol that only old programs see.
const HIDDEN: u16 = 0x8000;

impl Library {
    /// The library that is loaded at `base`, with its dynamic section at `dynamic`.
    ///
    /// # Safety
    /// If a library's header is at `base`, what that says is loaded is mapped, and stays so.
    pub(super) unsafe fn at(base: usize, dynamic: usize) -> Option<Self> {
        // The program itself, where it is at a fixed address, has base 0, and is not what we look for.
        if base == 0 || base % 4096 != 0 {
            return None;
        }
        let mut library = Self {
            base,
            end: base + 64,
            strings: 0,
            strings_end: 0,
            symbols: 0,
            hash: 0,
            versions: None,
            name: 0,
        };
        // SAFETY: passed on to the caller, for the header; `end` is behind what is mapped from then on.
        library.end = unsafe { library.mapped_to()? };
        library.read_dynamic(dynamic)?;
        Some(library)
    }

    /// The end of what is loaded in one piece from the start on.
    ///
    /// # Safety
    /// As for [`at`](Self::at).
    unsafe fn mapped_to(&self) -> Option<usize> {
        let magic: [u8; 6] = self.read(self.base)?;
        if magic != HEADER {
            return None;
        }
        let headers = self.base.checked_add(self.read::<u64>(self.base + 32)? as usize)?;
        let size = self.read::<u16>(self.base + 54)? as usize;
        let count = self.read::<u16>(self.base + 56)? as usize;
        // They follow the header, in its page.
        if size != PROGRAM_HEADER_BYTES || headers.checked_add(count * size)? > self.base + 4096 {
            return None;
        }
        let page = Self { end: self.base + 4096, ..*self };
        let mut end = 0;
        for header in (0..count).map(|n| headers + n * size) {
            if page.read::<u32>(header)? == LOAD {
                let start = page.read::<u64>(header + 16)? as usize;
                end = end.max(start.checked_add(page.read::<u64>(header + 40)? as usize)?);
            }
        }
        self.base.checked_add(end).filter(|&end| end > self.base + 4096)
    }

    fn read_dynamic(&mut self, dynamic: usize) -> Option<()> {
        const MOST: usize = 1000;
        let mut entry_size = 0;
        for entry in (0..MOST).map(|n| dynamic + n * 16) {
            let (tag, value) = (self.read::<usize>(entry)?, self.read::<usize>(entry + 8)?);
            // The loader has made addresses of offsets, where it could write.
            let address = if value < self.base { self.base.checked_add(value)? } else { value };
            match tag {
                0 => break,
                STRTAB => self.strings = address,
                SYMTAB => self.symbols = address,
                GNU_HASH => self.hash = address,
                VERSYM => self.versions = Some(address),
                STRSZ => self.strings_end = value,
                SYMENT => entry_size = value,
                SONAME => self.name = value,
                _ => {}
            }
        }
        self.strings_end = self.strings.checked_add(self.strings_end)?.min(self.end);
        let complete = self.strings != 0 && self.symbols != 0 && self.hash != 0;
        (complete && entry_size == SYMBOL_BYTES).then_some(())
    }

    /// What lies at `address`, if that is in the library.
    fn read<T: Copy>(&self, address: usize) -> Option<T> {
        let end = address.checked_add(size_of::<T>())?;
        // SAFETY: within what is mapped and readable; the types are numbers.
        (address >= self.base && end <= self.end)
            .then(|| unsafe { (address as *const T).read_unaligned() })
    }

    /// Whether the string at an offset into the string table is `text`.
    fn is_string(&self, offset: usize, text: &[u8]) -> bool {
        let Some(start) = self.strings.checked_add(offset) else { return false };
        let Some(end) = start.checked_add(text.len()) else { return false };
        end < self.strings_end
            && text.iter().enumerate().all(|(at, &byte)| self.read(start + at) == Some(byte))
            && self.read(end) == Some(0u8)
    }

    /// Whether the library calls itself that.
    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        self.name != 0 && self.is_string(self.name, name)
    }

    /// The address of a function that the library exports under `name`, in the version that new programs get.
    pub(super) fn function(&self, name: &[u8]) -> Option<usize> {
        let record = self.record(name)?;
        self.base.checked_add(self.read::<u64>(record + VALUE)? as usize)
    }

    /// Where the symbol of that function is recorded.
    fn record(&self, name: &[u8]) -> Option<usize> {
        let hash = name
            .iter()
            .fold(5381u32, |hash, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)));
        // Buckets, the first symbol that is in one, words of a filter that is passed over.
        let word = |at: usize| self.read::<u32>(self.hash.checked_add(4 * at)?);
        let (buckets, first, filter) = (word(0)?, word(1)?, word(2)? as usize);
        let start = self.hash.checked_add(16)?.checked_add(filter.checked_mul(8)?)?;
        let chains = start.checked_add((buckets as usize).checked_mul(4)?)?;
        let bucket = hash.checked_rem(buckets)? as usize;
        let mut symbol = self.read::<u32>(start + 4 * bucket)?;
        if symbol < first {
            return None;
        }
        loop {
            let link = self.read::<u32>(chains.checked_add(4 * (symbol - first) as usize)?)?;
            if link | 1 == hash | 1 {
                if let Some(record) = self.record_at(symbol as usize, name) {
                    return Some(record);
                }
            }
            if link & 1 != 0 {
                return None;
            }
            symbol = symbol.checked_add(1)?;
        }
    }

    /// Where a symbol is recorded, if it is that function.
    fn record_at(&self, symbol: usize, name: &[u8]) -> Option<usize> {
        let record = self.symbols.checked_add(symbol.checked_mul(SYMBOL_BYTES)?)?;
        let (text, info) = (self.read::<u32>(record)?, self.read::<u8>(record + 4)?);
        let (section, value) = (self.read::<u16>(record + 6)?, self.read::<u64>(record + VALUE)?);
        let hidden = match self.versions {
            Some(versions) => self.read::<u16>(versions.checked_add(2 * symbol)?)? & HIDDEN != 0,
            None => false,
        };
        let address = self.base.checked_add(value as usize)?;
        let good = !hidden
            && info & 0xf == FUNCTION
            && section != 0
            && (self.base..self.end).contains(&address)
            && self.is_string(text as usize, name);
        good.then_some(record)
    }

    /// Makes the library's symbols of these names stand for other functions, for everybody who looks for them in the
    /// library from now on; what is bound already stays so. Returns how many. Symbols of which a version is asked for
    /// that new programs do not get stay as they are.
    ///
    /// # Safety
    /// Whoever calls the names may as well call these functions, at any time; no other thread does this.
    pub(super) unsafe fn rename(&self, functions: &[(&[u8], usize)]) -> usize {
        let records = || {
            functions.iter().filter_map(|&(name, function)| Some((self.record(name)?, function)))
        };
        let (first, last) =
            records().fold((usize::MAX, 0), |(first, last), (at, _)| (at.min(first), at.max(last)));
        if first > last {
            return 0;
        }
        let Some(protection) = self.protection(first, last) else { return 0 };
        let start = first & !(tiermalloc_sync::sys::os_page_size() - 1);
        let bytes = last + SYMBOL_BYTES - start;
        let protect = |protection| {
            // SAFETY: pages of the loader's, which go on to be readable, and executable if they were.
            unsafe { libc::mprotect(start as *mut libc::c_void, bytes, protection) == 0 }
        };
        let writable = protection & libc::PROT_WRITE != 0;
        if !writable && !protect(protection | libc::PROT_WRITE) {
            return 0;
        }
        let mut count = 0;
        for (record, function) in records() {
            // An address is what is added to where the library lies; beyond it, that wraps.
            let value = function.wrapping_sub(self.base) as u64;
            // SAFETY: within the library, and writable for now; a word that the loader reads whole.
            unsafe { ((record + VALUE) as *mut u64).write_volatile(value) };
            count += 1;
        }
        if !writable {
            protect(protection);
        }
        count
    }

    /// How the part of the library is protected in which both addresses lie, as `mprotect` wants to know it.
    fn protection(&self, first: usize, last: usize) -> Option<libc::c_int> {
        let headers = self.base.checked_add(self.read::<u64>(self.base + 32)? as usize)?;
        let count = self.read::<u16>(self.base + 56)? as usize;
        for header in (0..count).map(|n| headers + n * PROGRAM_HEADER_BYTES) {
            if self.read::<u32>(header)? != LOAD {
                continue;
            }
            let start = self.base.checked_add(self.read::<u64>(header + 16)? as usize)?;
            let end = start.checked_add(self.read::<u64>(header + 40)? as usize)?;
            if first >= start && last.checked_add(SYMBOL_BYTES)? <= end {
                let flags = self.read::<u32>(header + 4)?;
                let of = |flag, protection| if flags & flag != 0 { protection } else { 0 };
                let (read, write) = (of(4, libc::PROT_READ), of(2, libc::PROT_WRITE));
                return Some(read | write | of(1, libc::PROT_EXEC));
            }
        }
        None
    }
}
