//! What is counted: the entries of `benches/instructions/pairs.c` and of `benches/global/pairs`, and
//! the most that each may cost on tiermalloc.

/// One entry point, as one of the two programs calls it.
pub struct Entry {
    /// Its name on the program's command line.
    pub name: &'static str,
    /// What a round does, for the table.
    pub about: &'static str,
    /// Rounds that are counted.
    pub rounds: u64,
    /// By what the count of a round is divided: the objects it allocates and frees, or its calls.
    pub per: u64,
    /// The most that one of those may cost on tiermalloc, in instructions.
    ///
    /// About one in a hundred above what was counted when the entry was last improved. What copies or
    /// clears memory has more room, for the C library does that differently on different processors.
    pub bar: f64,
}

/// An entry whose round is one pair of calls.
const fn pair(name: &'static str, about: &'static str, bar: f64) -> Entry {
    Entry { name, about, rounds: 100_000, per: 1, bar }
}

/// An entry whose round is so many pairs or calls.
const fn many(name: &'static str, about: &'static str, rounds: u64, per: u64, bar: f64) -> Entry {
    Entry { name, about, rounds, per, bar }
}

/// Through `libtiermalloc.so`, preloaded.
pub const C: &[Entry] = &[
    pair("pair-16", "free + malloc, 16 bytes", 42.1),
    pair("pair-32", "free + malloc, 32 bytes", 42.1),
    pair("pair-100", "free + malloc, 100 bytes", 42.1),
    pair("pair-1000", "free + malloc, 1000 bytes", 42.1),
    pair("pair-4096", "free + malloc, 4096 bytes", 54.1),
    pair("pair-20000", "free + malloc, 20000 bytes", 54.1),
    many("pair-300000", "free + malloc, 300000 bytes", 10_000, 1, 163.0),
    pair("sized-32", "free_sized + malloc, 32 bytes", 43.1),
    pair("calloc-32", "free + calloc, 32 bytes", 70.1),
    pair("calloc-1000", "free + calloc, 1000 bytes", 134.4),
    many("calloc-100000", "free + calloc, 100000 bytes", 1_000, 1, 105083.0),
    pair("realloc", "realloc in place, 1001 to 1004 bytes", 46.1),
    many("realloc-grow", "realloc from 16 B to 64 KiB, a doubling", 1_000, 12, 5045.0),
    pair("memalign-64", "free + posix_memalign, 64 at 64", 93.1),
    pair("memalign-4096", "free + posix_memalign, 4096 at 4096", 105.1),
    pair("new-32", "delete + new, 32 bytes", 42.1),
    pair("new-sized-32", "sized delete + new, 32 bytes", 46.1),
    many("bulk-32-fifo", "4000 malloc of 32 bytes, free in order", 50, 4000, 43.1),
    many("bulk-32-lifo", "4000 malloc of 32 bytes, free in reverse", 50, 4000, 44.1),
    many("bulk-32-random", "4000 malloc of 32 bytes, free at random", 50, 4000, 44.1),
    many("bulk-4096-fifo", "4000 malloc of 4096 bytes, free in order", 50, 4000, 203.0),
    many("bulk-4096-lifo", "4000 malloc of 4096 bytes, free in reverse", 50, 4000, 204.0),
    many("bulk-4096-random", "4000 malloc of 4096 bytes, free at random", 50, 4000, 204.0),
    many("handed", "1000 malloc, free on another thread", 200, 1000, 69.0),
];

/// Through `GlobalAlloc`, linked in.
pub const RUST: &[Entry] = &[
    pair("pair-24", "dealloc + alloc, 24 bytes", 27.1),
    pair("pair-unknown", "dealloc + alloc, size known at run time", 40.1),
    pair("pair-1000", "dealloc + alloc, 1000 bytes", 27.1),
    pair("pair-4096", "dealloc + alloc, 4096 bytes", 27.1),
    pair("pair-20000", "dealloc + alloc, 20000 bytes", 27.1),
    many("pair-300000", "dealloc + alloc, 300000 bytes", 10_000, 1, 127.0),
    pair("zeroed-24", "dealloc + alloc_zeroed, 24 bytes", 29.1),
    pair("zeroed-1000", "dealloc + alloc_zeroed, 1000 bytes", 105.0),
    many("zeroed-100000", "dealloc + alloc_zeroed, 100000 bytes", 1_000, 1, 105049.0),
    pair("realloc", "realloc in place, 1001 to 1004 bytes", 58.6),
    many("realloc-grow", "realloc from 16 B to 64 KiB, a doubling", 1_000, 12, 4466.0),
    pair("aligned-64", "dealloc + alloc, 64 at 64", 27.1),
    pair("aligned-4096", "dealloc + alloc, 4096 at 4096", 27.1),
    many("bulk-32-fifo", "4000 alloc of 32 bytes, dealloc in order", 50, 4000, 27.1),
    many("bulk-32-lifo", "4000 alloc of 32 bytes, dealloc in reverse", 50, 4000, 26.1),
    many("bulk-32-random", "4000 alloc of 32 bytes, dealloc at random", 50, 4000, 30.1),
    many("bulk-4096-fifo", "4000 alloc of 4096 bytes, dealloc in order", 50, 4000, 174.0),
    many("bulk-4096-lifo", "4000 alloc of 4096 bytes, dealloc in reverse", 50, 4000, 174.0),
    many("bulk-4096-random", "4000 alloc of 4096 bytes, dealloc at random", 50, 4000, 177.0),
    many("handed", "1000 alloc, dealloc on another thread", 200, 1000, 51.2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_in_each_table_and_every_entry_has_a_bar() {
        for entries in [C, RUST] {
            let mut names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), entries.len());
            assert!(entries.iter().all(|entry| entry.bar > 0.0));
        }
    }
}
