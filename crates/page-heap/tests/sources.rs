//! The sources that ship: what `PageSource` promises, kept by the kernel and by `memmap2`, and heaps over
//! them.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;

use support::arena::{PAGE, is_zero};
use tiermalloc_page_heap::{OsPages, PageHeap, PageSource, Span, State};
use tiermalloc_page_map::PageMap;
use tiermalloc_sync::{RawFutexMutex, sys};

fn at(place: NonNull<u8>) -> usize {
    place.as_ptr() as usize
}

fn fill(address: usize, bytes: usize, with: u8) {
    // SAFETY: callers own the memory.
    unsafe { (address as *mut u8).write_bytes(with, bytes) };
}

fn holds(address: usize, bytes: usize, what: u8) -> bool {
    // SAFETY: callers own the memory.
    let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, bytes) };
    bytes.iter().all(|&byte| byte == what)
}

/// Bytes in whole pages of ours and of the operating system.
fn whole(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE.max(sys::os_page_size()))
}

/// What any source promises.
fn keeps_its_promises(source: &impl PageSource) {
    assert_eq!(source.os_page_size(), sys::os_page_size());
    let sizes = [1, 3, 16, 100].map(|pages| whole(pages * PAGE));
    let places: Vec<_> = sizes.iter().map(|&bytes| source.reserve(bytes).unwrap()).collect();
    for (&place, &bytes) in places.iter().zip(&sizes) {
        assert_eq!(at(place) % PAGE.max(sys::os_page_size()), 0);
        assert!(is_zero(at(place), bytes));
        fill(at(place), bytes, 0x5a);
    }
    // A part of the last goes back, and reads zero; the rest is as it was.
    let (last, bytes) = (at(places[3]), sizes[3]);
    let part = NonNull::new((last + whole(PAGE)) as *mut u8).unwrap();
    // SAFETY: ours, and nobody needs what it holds.
    assert!(unsafe { source.decommit(part, whole(10 * PAGE)) });
    assert!(is_zero(at(part), whole(10 * PAGE)));
    assert!(holds(last, whole(PAGE), 0x5a));
    let behind = at(part) + whole(10 * PAGE);
    assert!(holds(behind, last + bytes - behind, 0x5a));
    for (&place, &bytes) in places.iter().zip(&sizes) {
        // SAFETY: ours, and not used any more.
        assert!(unsafe { source.release(place, bytes) });
    }
    assert!(source.reserve(1 << 60).is_none());
    let before = source.now_ms();
    assert!(source.now_ms() >= before);
}

#[test]
fn the_kernel_keeps_the_promises_of_a_source() {
    keeps_its_promises(&OsPages::new());
    keeps_its_promises(&&OsPages::new()); // and so does a reference to it
}

#[test]
fn the_kernel_aligns_every_reservation_whatever_lies_around_it() {
    let source = OsPages::new();
    let os = sys::os_page_size();
    let mut others = Vec::new();
    for i in 1..60 {
        // Mappings of odd numbers of OS pages push the next one out of our alignment.
        others
            .push((sys::map_anonymous(0, os * (1 + 2 * (i % 3))).unwrap(), os * (1 + 2 * (i % 3))));
        let bytes = whole(i * PAGE);
        let place = source.reserve(bytes).unwrap();
        assert_eq!(at(place) % PAGE, 0);
        assert!(is_zero(at(place), bytes));
        // Part by part, from the middle: any part of what was reserved may go.
        let middle = at(place) + bytes / 2 / whole(1) * whole(1);
        // SAFETY: ours, and not used any more.
        unsafe {
            if middle > at(place) {
                assert!(source.release(place, middle - at(place)));
            }
            let rest = NonNull::new(middle as *mut u8).unwrap();
            assert!(source.release(rest, at(place) + bytes - middle));
        }
    }
    for (address, bytes) in others {
        // SAFETY: ours, and not used any more.
        assert!(unsafe { sys::unmap(address, bytes) });
    }
}

#[test]
fn the_kernel_gives_back_no_part_of_an_os_page() {
    let source = OsPages::new();
    let place = source.reserve(whole(PAGE)).unwrap();
    let inside = NonNull::new((at(place) + 512) as *mut u8).unwrap();
    // SAFETY: refused, and else ours and not used.
    unsafe {
        assert!(!source.release(inside, PAGE));
        assert!(!source.release(place, 512));
        assert!(source.release(place, whole(PAGE)));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_kernel_tells_behind_which_pages_there_is_memory() {
    let source = OsPages::new();
    let os = sys::os_page_size();
    let place = source.reserve(whole(8 * PAGE)).unwrap();
    let page = |n: usize| at(place) + n * os;
    assert!(!source.is_resident(page(2)));
    // SAFETY: ours.
    unsafe { (page(2) as *mut u8).write(0) };
    assert!(source.is_resident(page(2)) && source.is_resident(page(3) - 1), "zeroes count too");
    assert!((&&source).is_resident(page(2)));
    assert!(!source.is_resident(page(1)) && !source.is_resident(page(3)));
    // SAFETY: ours, and not used any more.
    unsafe {
        assert!(source.decommit(place, whole(8 * PAGE)));
        assert!(!source.is_resident(page(2)));
        assert!(source.release(place, whole(8 * PAGE)));
    }
    assert!(!source.is_resident(page(2)), "nor where nothing is");
}

#[test]
#[cfg(target_os = "linux")]
fn the_kernel_moves_a_mapping_onto_another_with_its_contents() {
    let source = OsPages::new();
    let (old, new) = (whole(64 * PAGE), whole(200 * PAGE));
    let from = source.reserve(old).unwrap();
    fill(at(from), old, 0x77);
    let target = source.reserve(new).unwrap();
    // SAFETY: both are ours and whole; the old place is not used any more.
    assert!(unsafe { source.move_onto(from, old, target, new) });
    assert!(holds(at(target), old, 0x77));
    assert!(is_zero(at(target) + old, new - old));
    // Shorter where it is, and gone.
    // SAFETY: ours; the end is not used any more.
    unsafe {
        assert!(source.resize_in_place(target, new, old));
        assert!(holds(at(target), old, 0x77));
        assert!(source.release(target, old));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_not_one_mapping_is_not_moved_and_nothing_has_changed() {
    let source = OsPages::new();
    let (old, new) = (8 * whole(PAGE), 20 * whole(PAGE));
    let [from, target] = [old, new].map(|bytes| source.reserve(bytes).unwrap());
    fill(at(from), old, 0x77);
    let hole = NonNull::new((at(from) + whole(PAGE)) as *mut u8).unwrap();
    // SAFETY: both are ours; the hole is not used any more.
    unsafe {
        assert!(source.release(hole, whole(PAGE)));
        assert!(!source.move_onto(from, old, target, new));
        assert!(holds(at(from), whole(PAGE), 0x77));
        assert!(is_zero(at(target), new), "still there");
        assert!(source.release(target, new));
        assert!(source.release(from, whole(PAGE)));
        let rest = NonNull::new((at(from) + 2 * whole(PAGE)) as *mut u8).unwrap();
        assert!(source.release(rest, old - 2 * whole(PAGE)));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_kernel_is_asked_for_regions_next_to_each_other() {
    if std::env::var_os("TIERMALLOC_TEST_RUNNER").is_some() {
        println!("skipped: an emulator places mappings itself");
        return;
    }
    let source = OsPages::new();
    let bytes = whole(16 * PAGE);
    // Gaps of just that length come first, and other tests map memory at the same time: of so many, which all
    // stay, some must come to lie next to the one before.
    let all: Vec<_> = (0..100).map(|_| source.reserve(bytes).unwrap()).collect();
    let neighbours = all.windows(2).any(|pair| at(pair[1]) + bytes == at(pair[0]));
    for region in all {
        // SAFETY: ours, and not used any more.
        assert!(unsafe { source.release(region, bytes) });
    }
    assert!(neighbours);
}

#[test]
fn huge_allocations_grow_move_and_shrink_with_their_contents() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: PageHeap<'static, RawFutexMutex, OsPages> = PageHeap::new(&MAP, OsPages::new());
    let mib = 1 << 20;
    for align in [1, mib, 64 * mib] {
        let span = HEAP.alloc_huge(4 * mib, align).unwrap();
        // SAFETY: ours.
        let (mut now, state) = unsafe { (span.as_ref().address(), span.as_ref().state()) };
        assert_eq!((now % align, state), (0, State::Huge));
        assert!(is_zero(now, 4 * mib));
        fill(now, 4 * mib, 0x33);
        let mut moved = 0;
        for mibs in [5, 40, 300, 299, 7, 5, 64] {
            // SAFETY: ours; the old address is not used when it differs.
            let then = unsafe { HEAP.resize_huge(now, mibs * mib) }.expect("memory");
            if then != now {
                moved += 1;
                assert!(MAP.span(now).is_none(), "the old place is forgotten");
            }
            now = then;
            assert!(holds(now, 4 * mib, 0x33));
            // SAFETY: ours.
            assert_eq!(unsafe { HEAP.large_at(now) }.map(Span::bytes), Some(mibs * mib));
            // SAFETY: the last word is within the allocation.
            assert_eq!(unsafe { ((now + mibs * mib - 8) as *const u64).read() }, 0);
        }
        assert!(moved <= 4);
        // SAFETY: ours, and not used any more.
        unsafe { HEAP.free_large(now) }.unwrap();
        assert_eq!((HEAP.stats().huge_pages, HEAP.stats().huge_spans), (0, 0));
    }
    assert_eq!(HEAP.stats().reserved_pages, 0, "what is huge only passes through");
}

#[test]
#[cfg(target_os = "linux")]
fn guards_lie_on_both_sides_until_there_are_too_many() {
    static MAP: PageMap<Span> = PageMap::new();
    let source = &OsPages::new();
    let heap = PageHeap::<RawFutexMutex, _>::new(&MAP, source);
    let unit = whole(PAGE);
    let guarded = || {
        let span = heap.alloc_guarded(unit, 1)?;
        // SAFETY: ours.
        Some(unsafe { span.as_ref().address() })
    };
    let first = guarded().unwrap();
    fill(first, unit, 1);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let forbidden = |page: usize| {
        maps.lines().any(|line| {
            let mut words = line.split([' ', '-']);
            let mut bound = || usize::from_str_radix(words.next().unwrap(), 16).unwrap();
            (bound()..bound()).contains(&page) && words.next() == Some("")
        })
    };
    assert!(forbidden(first - unit) && forbidden(first + unit) && !forbidden(first));

    let mut rest: Vec<usize> = std::iter::from_fn(guarded).collect();
    assert_eq!((rest.len() + 1, heap.stats().guarded_spans), (8192, 8192));
    // Another comes only once one has gone.
    // SAFETY: ours, and not used any more.
    unsafe { heap.free_large(rest.pop().unwrap()) }.unwrap();
    rest.extend(guarded());
    assert_eq!((rest.len() + 1, guarded()), (8192, None));
    for span in rest.into_iter().chain([first]) {
        // SAFETY: ours, and not used any more.
        unsafe { heap.free_large(span) }.unwrap();
    }
    let stats = heap.stats();
    assert_eq!((stats.guarded_spans, stats.huge_spans, stats.reserved_pages), (0, 0, 0));
}

#[test]
fn big_heaps_cost_addresses_and_not_memory() {
    static MAP: PageMap<Span> = PageMap::new();
    static HEAP: PageHeap<'static, RawFutexMutex, OsPages> = PageHeap::new(&MAP, OsPages::new());
    // 64 GiB in one span, across leaves of the map; where the system does not allow it, that is that.
    let pages = 64 << 17;
    let Some(span) = HEAP.alloc_large(pages, 1) else { return };
    // SAFETY: ours.
    let record = unsafe { span.as_ref() };
    assert!(record.was_zeroed());
    for address in [record.address(), record.address() + record.bytes() - PAGE] {
        fill(address, PAGE, 1);
        assert_eq!(MAP.span(address), Some(span));
    }
    let (start, stats) = (record.address(), HEAP.stats());
    assert_eq!((stats.large_pages, stats.large_spans), (pages, 1));
    // SAFETY: ours; the end is not used any more.
    unsafe {
        assert!(HEAP.resize_large(start, pages / 2));
        assert!(HEAP.resize_large(start, pages));
        HEAP.free_large(start).unwrap();
    }
    assert!(HEAP.release_pages(usize::MAX) >= pages);
    let again = HEAP.alloc_large(pages, 1).unwrap();
    // SAFETY: ours.
    unsafe {
        assert!(again.as_ref().was_zeroed());
        assert!(is_zero(again.as_ref().address(), 4 * PAGE));
        HEAP.free_large(again.as_ref().address()).unwrap();
    }
    assert!(HEAP.unmap_free() >= pages, "addresses and all");
    assert_eq!(HEAP.stats().reserved_pages, 0);
}

#[cfg(feature = "memmap2")]
mod memmap {
    use support::model::{SMALL_LEAF, SMALL_ROOT, boxed_map};
    use tiermalloc_page_heap::MemmapPages;
    use tiermalloc_size_class::class_of;

    use super::*;

    #[test]
    fn memmap2_keeps_the_promises_of_a_source() {
        keeps_its_promises(&MemmapPages::new());
        let source = MemmapPages::default();
        let place = source.reserve(4 * PAGE).unwrap();
        let part = NonNull::new((at(place) + PAGE) as *mut u8).unwrap();
        // SAFETY: refused: this source releases whole reservations only.
        unsafe {
            assert!(!source.release(part, PAGE));
            assert!(!source.release(place, PAGE));
            assert!(!source.decommit(NonNull::new(4096 as *mut u8).unwrap(), PAGE), "not its own");
        }
        fill(at(place), 4 * PAGE, 1); // still there
    }

    #[test]
    fn what_a_map_got_from_a_source_outlives_the_source() {
        // Small leaves, so that the heap needs some: they lie in the source's memory.
        let map = boxed_map::<SMALL_ROOT, SMALL_LEAF>();
        let heap: PageHeap<'_, RawFutexMutex, _, SMALL_ROOT, SMALL_LEAF> =
            PageHeap::new(&map, MemmapPages::new());
        let span = heap.alloc_objects(class_of(PAGE, 8).unwrap()).unwrap();
        // SAFETY: ours.
        let address = unsafe { span.as_ref() }.address();
        let class = map.class_id(address);
        assert!(class > 0);
        drop(heap);
        // Reading the map is safe, whatever has become of the heap.
        assert_eq!((map.class_id(address), map.span(address)), (class, Some(span)));
        assert!((0..512).all(|page| map.class_id(address + page * PAGE) <= 208));
    }

    #[test]
    fn a_heap_over_memmap2_serves_spans_of_every_kind() {
        static MAP: PageMap<Span> = PageMap::new();
        let heap: PageHeap<'_, RawFutexMutex, _> = PageHeap::new(&MAP, MemmapPages::new());
        let objects = heap.alloc_objects(class_of(100, 8).unwrap()).unwrap();
        let large = heap.alloc_large(300, 16).unwrap();
        let huge = heap.alloc_huge(1 << 22, 1 << 21).unwrap();
        for span in [large, huge] {
            // SAFETY: ours.
            let span = unsafe { span.as_ref() };
            assert!(is_zero(span.address(), span.bytes()));
            fill(span.address(), span.bytes(), 9);
        }
        // SAFETY: ours.
        assert_eq!(unsafe { huge.as_ref() }.address() % (1 << 21), 0);
        // SAFETY: ours, and not used any more.
        unsafe {
            heap.free_objects(objects);
            heap.free_large(large.as_ref().address()).unwrap();
            heap.free_large(huge.as_ref().address()).unwrap();
        }
        let stats = heap.stats();
        assert_eq!((stats.huge_pages, stats.free_pages), (0, stats.reserved_pages));
        assert!(
            stats.dirty_pages >= 300 + (1 << 22) / PAGE,
            "what it cannot unmap, the heap keeps"
        );
        heap.release_pages(usize::MAX);
        assert_eq!(heap.stats().dirty_pages, 0);
        let again = heap.alloc_large((1 << 22) / PAGE, 1).unwrap();
        // SAFETY: ours.
        let again = unsafe { again.as_ref() };
        assert!(again.was_zeroed() && is_zero(again.address(), again.bytes()));
        assert_eq!(heap.stats().reserved_pages, stats.reserved_pages);
    }
}
