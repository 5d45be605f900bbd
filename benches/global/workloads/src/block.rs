//! A block of raw memory, as programs in C have them, without `unsafe`.

/// So many bytes, touched at both ends and on every page in between, and checked when it goes.
pub struct Block(Vec<u8>);

/// Distance of the bytes that are written: a block of many pages has them all in memory.
const STRIDE: usize = 4096;

impl Block {
    /// A block of exactly `size` bytes (at least 1) marked with `tag`. The memory is asked for as it
    /// is, not zeroed.
    pub fn new(size: usize, tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(size);
        bytes.push(tag);
        let rest = bytes.spare_capacity_mut();
        for page in rest.chunks_mut(STRIDE) {
            if let Some(last) = page.last_mut() {
                last.write(tag);
            }
        }
        Self(bytes)
    }

    /// The bytes asked for.
    pub fn size(&self) -> usize {
        self.0.capacity()
    }

    /// The mark, read from the memory.
    pub fn tag(&self) -> u8 {
        self.0[0]
    }

    /// Marks it anew.
    pub fn set_tag(&mut self, tag: u8) {
        self.0[0] = tag;
    }

    /// What a block adds to a checksum.
    pub fn digest(&self) -> u64 {
        (self.size() as u64) << 8 | u64::from(self.tag())
    }
}
