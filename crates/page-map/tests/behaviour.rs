//! What the map promises to one thread: exactness, safety for any address, no memory until used.
#![cfg(not(tiermalloc_loom))]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ptr::NonNull;

use tiermalloc_page_map::{EnsureError, MapMemory, PageMap};

const PAGE: usize = 8192;

/// Counts, and refuses after a while when told to.
struct Memory {
    left: Cell<usize>,
    given: Cell<usize>,
}

impl Memory {
    fn new(left: usize) -> Self {
        Self { left: Cell::new(left), given: Cell::new(0) }
    }
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl MapMemory for Memory {
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.left.get() == 0 {
            return None;
        }
        self.left.set(self.left.get() - 1);
        self.given.set(self.given.get() + 1);
        // SAFETY: leaves and roots are not empty.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }
    unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { dealloc(memory.as_ptr(), layout) }
    }
}

/// A map of 8 x 16 pages: small enough to walk to every corner of.
type Small = PageMap<u32, 8, 16>;

static ORDINARY: PageMap<u32> = PageMap::new();

#[test]
fn any_address_at_all_is_not_mine() {
    for bits in 0..64 {
        for delta in [-1i64, 0, 1] {
            let address = ((1u64 << bits) as i64).wrapping_add(delta) as usize;
            assert_eq!(ORDINARY.class_id(address), 0);
            assert_eq!(ORDINARY.span(address), None);
            // SAFETY: nobody writes to this map.
            assert!(unsafe { ORDINARY.home_class_id(address) }.is_none_or(|class| class == 0));
        }
    }
    let on_the_stack = 0u8;
    assert_eq!(ORDINARY.span(&raw const on_the_stack as usize), None);
    assert_eq!(ORDINARY.span(usize::MAX), None);
}

#[test]
fn entries_are_exact_across_leaf_borders_and_the_home_window() {
    let mut value = 7u32;
    let span = NonNull::from(&mut value);
    // The first address decides where the home window lies; try them all.
    for first in 0..8 * 16usize {
        let map = Small::new();
        let memory = Memory::new(usize::MAX);
        map.ensure(first * PAGE, PAGE, &memory).unwrap();
        map.ensure(0, 8 * 16 * PAGE, &memory).unwrap();
        for start in 0..8 * 16 - 5 {
            // SAFETY: nobody else writes to this map.
            unsafe { map.set(start, 5, span, 200) };
            for page in 0..8 * 16usize {
                let inside = (start..start + 5).contains(&page);
                for address in [page * PAGE, page * PAGE + PAGE - 1] {
                    assert_eq!(map.span(address).is_some(), inside, "{first} {start} {page}");
                    assert_eq!(map.class_id(address), if inside { 200 } else { 0 });
                    // SAFETY: as above.
                    if let Some(class) = unsafe { map.home_class_id(address) } {
                        assert_eq!(class, map.class_id(address));
                    }
                }
            }
            // SAFETY: as above.
            unsafe { map.clear(start, 5) };
        }
        assert!((0..8 * 16).all(|page| map.span(page * PAGE).is_none()));
    }
}

#[test]
fn the_first_region_lies_in_the_home_window() {
    let map = Small::new();
    let memory = Memory::new(0);
    map.ensure(40 * PAGE, 2 * PAGE, &memory).unwrap();
    for address in [40 * PAGE, 41 * PAGE] {
        // SAFETY: nobody writes to this map.
        assert!(unsafe { map.home_class_id(address) }.is_some());
    }
    assert_eq!(memory.given.get(), 0);
}

#[test]
fn addresses_beyond_the_first_root_have_roots_of_their_own() {
    let map = Small::new();
    let memory = Memory::new(usize::MAX);
    let mut value = 1u32;
    map.ensure(0, PAGE, &memory).unwrap();
    let far = 8 * 16 * 5 + 3;
    assert_eq!(map.span(far * PAGE), None);
    map.ensure(far * PAGE, 20 * PAGE, &memory).unwrap();
    // SAFETY: nobody else writes to this map.
    unsafe { map.set(far, 20, NonNull::from(&mut value), 3) };
    assert_eq!(map.class_id((far + 19) * PAGE), 3);
    assert_eq!(map.class_id((far + 20) * PAGE), 0);
    assert_eq!(map.class_id((far - 1) * PAGE), 0);
    assert_eq!(map.ensure(usize::MAX - PAGE, PAGE, &memory), Err(EnsureError::OutOfRange));
    assert_eq!(map.ensure(usize::MAX - PAGE, 2 * PAGE, &memory), Err(EnsureError::OutOfRange));
}

#[test]
fn running_out_of_leaves_is_an_answer_and_loses_nothing() {
    let map = Small::new();
    let mut value = 1u32;
    map.ensure(2 * PAGE, PAGE, &Memory::new(0)).unwrap();
    let wanted = 64 * PAGE;
    for refusals in 0..4 {
        assert_eq!(map.ensure(wanted, 64 * PAGE, &Memory::new(1)).is_ok(), refusals == 3);
    }
    map.ensure(wanted, 64 * PAGE, &Memory::new(usize::MAX)).unwrap();
    // SAFETY: nobody else writes to this map.
    unsafe { map.set(64, 64, NonNull::from(&mut value), 9) };
    assert!((64..128).all(|page| map.class_id(page * PAGE) == 9));
}

#[test]
fn real_addresses_of_the_ordinary_map() {
    static MAP: PageMap<u32> = PageMap::new();
    let memory = Memory::new(usize::MAX);
    let mut value = 1u32;
    let span = NonNull::from(&mut value);
    for address in [0x7f12_3456_0000usize, 0x5555_5555_0000, 0x7fff_ffff_0000, 1 << 55] {
        MAP.ensure(address, 64 * PAGE, &memory).unwrap();
        // SAFETY: nobody else writes to this map.
        unsafe { MAP.set(address / PAGE, 3, span, 77) };
        assert_eq!(MAP.class_id(address), 77);
        assert_eq!(MAP.span(address + 3 * PAGE - 1), Some(span));
        assert_eq!(MAP.class_id(address + 3 * PAGE), 0);
    }
}

#[test]
fn whoever_finds_the_leaf_made_meanwhile_gives_its_memory_back() {
    /// Makes sure of the same page while it is asked for memory for it: the inner one wins.
    struct Meanwhile<'a> {
        map: &'a Small,
        memory: &'a Memory,
        returned: Cell<usize>,
    }
    // SAFETY: passed on.
    unsafe impl MapMemory for Meanwhile<'_> {
        fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.map.ensure(20 * PAGE, PAGE, self.memory).unwrap();
            self.memory.alloc_zeroed(layout)
        }
        unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
            self.returned.set(self.returned.get() + 1);
            // SAFETY: passed on to the caller.
            unsafe { self.memory.free(memory, layout) }
        }
    }
    let (map, memory) = (Small::new(), Memory::new(usize::MAX));
    map.ensure(100 * PAGE, PAGE, &memory).unwrap();
    let meanwhile = Meanwhile { map: &map, memory: &memory, returned: Cell::new(0) };
    map.ensure(20 * PAGE, PAGE, &meanwhile).unwrap();
    assert_eq!((memory.given.get(), meanwhile.returned.get()), (2, 1));
    let mut value = 3u32;
    // SAFETY: nobody else writes to this map.
    unsafe { map.set(20, 1, NonNull::from(&mut value), 4) };
    assert_eq!(map.class_id(20 * PAGE), 4);
}

#[test]
fn a_loser_of_the_race_for_a_leaf_gives_its_memory_back() {
    // More threads than one ask for the same leaves at once, again and again.
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Shared(AtomicUsize);
    // SAFETY: std's allocator keeps the promises of the trait.
    unsafe impl MapMemory for Shared {
        fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            // SAFETY: leaves and roots are not empty.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        }
        unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: passed on to the caller.
            unsafe { dealloc(memory.as_ptr(), layout) }
        }
    }

    for _ in 0..50 {
        let (map, memory, start) = (Small::new(), Shared::default(), Barrier::new(4));
        map.ensure(7 * 16 * PAGE, PAGE, &memory).unwrap();
        let values = [10u32, 11, 12, 13];
        std::thread::scope(|scope| {
            for (i, value) in values.iter().enumerate() {
                let (map, memory, start) = (&map, &memory, &start);
                scope.spawn(move || {
                    start.wait();
                    map.ensure(0, 64 * PAGE, memory).unwrap();
                    for page in (i..64).step_by(4) {
                        // SAFETY: this thread is the page's one writer.
                        unsafe { map.set(page, 1, NonNull::from(value), 1 + i as u8) };
                    }
                });
            }
        });
        for page in 0..64 {
            assert_eq!(map.class_id(page * PAGE), 1 + page % 4);
            assert_eq!(map.span(page * PAGE), Some(NonNull::from(&values[page % 4])));
        }
        assert_eq!(memory.0.load(Ordering::Relaxed), 4, "a leaf per 16 pages");
    }
}

#[cfg(feature = "alloc")]
#[test]
fn a_boxed_map_is_empty_and_serves() {
    let map: Box<PageMap<u32>> = PageMap::boxed();
    assert_eq!(map.span(0x7f00_0000_0000), None);
    let mut value = 1u32;
    map.ensure(0x7f00_0000_0000, PAGE, &Memory::new(0)).unwrap();
    // SAFETY: nobody else writes to this map.
    unsafe { map.set(0x7f00_0000_0000 / PAGE, 1, NonNull::from(&mut value), 9) };
    assert_eq!(map.class_id(0x7f00_0000_0000), 9);
}

/// Pages of `[start, start + bytes)` that are in memory, as far as the kernel tells.
#[cfg(target_os = "linux")]
fn resident(start: usize, bytes: usize) -> Option<usize> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open("/proc/self/pagemap").ok()?;
    let page = tiermalloc_sync::sys::os_page_size();
    let (first, last) = (start / page, (start + bytes).div_ceil(page));
    let mut entries = vec![0u8; (last - first) * 8];
    file.read_exact_at(&mut entries, first as u64 * 8).ok()?;
    Some(entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count())
}

#[cfg(target_os = "linux")]
#[test]
fn the_map_costs_no_memory_until_it_is_used() {
    static MAP: PageMap<u32> = PageMap::new();
    // Where the kernel backs any aligned 2 MiB with a huge page, there is nothing to count.
    let huge = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if huge.is_ok_and(|mode| mode.contains("[always]")) {
        return;
    }
    let (start, bytes) = (&raw const MAP as usize, size_of_val(&MAP));
    let Some(before) = resident(start, bytes) else { return };
    // Its first and last page may be shared with a neighbour in the executable.
    assert!(before <= 2, "{before}");
    let mut value = 1u32;
    MAP.ensure(0x7f00_0000_0000, 8 * PAGE, &Memory::new(0)).unwrap();
    // SAFETY: nobody else writes to this map.
    unsafe { MAP.set(0x7f00_0000_0000 / PAGE, 8, NonNull::from(&mut value), 9) };
    let after = resident(start, bytes).unwrap();
    // The window's address, class bytes, pointers, each at a border perhaps, and the shared ends.
    assert!(after <= 8, "{before} {after}");
}
