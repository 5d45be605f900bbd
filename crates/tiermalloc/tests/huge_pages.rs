//! Huge pages are asked for where the program fills them, and nowhere else; or as the configuration says.

mod support;

use support::{configured, resident};
use tiermalloc::{raw, stats, trim};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The flags that the kernel has for the mapping of an address.
fn flags_at(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("Linux has it");
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((range, _)) = line.split_once(' ') {
            if let Some((from, to)) = range.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
                inside = (number(from)..number(to)).contains(&address);
            }
        }
        if inside && line.starts_with("VmFlags:") {
            return line.split_whitespace().skip(1).map(str::to_owned).collect();
        }
    }
    panic!("{address:x} is not mapped");
}

/// Minor faults of this process so far.
fn faults() -> i64 {
    // SAFETY: all zero is a value of it, and it is writable.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage.ru_minflt
    }
}

/// Touches 256 MiB, half of it in one block and half in many; the flags of both, and the faults.
fn touch() -> ([Vec<String>; 2], i64) {
    let before = faults();
    let huge = raw::malloc(128 * MIB);
    // SAFETY: live, and as long as that.
    unsafe { huge.write_bytes(1, 128 * MIB) };
    let many: Vec<usize> = (0..128).map(|_| raw::malloc(MIB) as usize).collect();
    // SAFETY: as above.
    many.iter().for_each(|&block| unsafe { (block as *mut u8).write_bytes(1, MIB) });
    let faults = faults() - before;
    let flags = [flags_at(huge as usize), flags_at(many[64])];
    println!("{faults} faults for 256 MiB");
    // SAFETY: live, and not used any more.
    unsafe {
        many.iter().for_each(|&block| raw::free(block as *mut u8));
        raw::free(huge);
    }
    (flags, faults)
}

fn has_huge_pages() -> bool {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let has = enabled.is_ok_and(|text| !text.contains("[never]"));
    if !has {
        println!("skipped: no huge pages here");
    }
    has
}

#[test]
fn huge_pages_that_are_asked_for_are_asked_for_everywhere_and_save_faults() {
    let test = "huge_pages_that_are_asked_for_are_asked_for_everywhere_and_save_faults";
    configured("thp=advise", test, || {
        if !has_huge_pages() {
            return;
        }
        let (flags, faults) = touch();
        assert!(flags.iter().all(|flags| flags.iter().any(|flag| flag == "hg")), "{flags:?}");
        // 65,536 pages of 4 KiB. What memory there is in pieces of 2 MiB is the machine's to say.
        assert!(faults < 40_000, "{faults}");
        let (block, _) = grown(64 * MIB, 1);
        assert!(is_asked_for(block as usize), "also of what was too short at first");
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
        let block = raw::malloc(70 * MIB);
        assert_eq!(block as usize % (2 * MIB), 0, "a block can consist of them");
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
        trim(0);
        assert_eq!(stats().free_dirty, 0);
    });
}

#[test]
fn huge_pages_that_are_not_wanted_are_forbidden_everywhere() {
    let test = "huge_pages_that_are_not_wanted_are_forbidden_everywhere";
    configured("thp=never", test, || {
        if !has_huge_pages() {
            return;
        }
        let (flags, faults) = touch();
        assert!(flags.iter().all(|flags| flags.iter().any(|flag| flag == "nh")), "{flags:?}");
        assert!(faults > 60_000, "{faults}");
    });
}

#[test]
fn nobody_is_asked_about_huge_pages_where_the_system_decides() {
    configured("thp=system", "nobody_is_asked_about_huge_pages_where_the_system_decides", || {
        let (flags, _) = touch();
        let asked = |flag: &String| flag == "hg" || flag == "nh";
        assert!(!flags.iter().flatten().any(asked), "{flags:?}");
    });
}

/// Takes so many blocks and writes all of each; their addresses.
fn fill(count: usize, bytes: usize) -> Vec<usize> {
    let take = |_| {
        let block = raw::malloc(bytes);
        // SAFETY: live, and as long as that.
        unsafe { block.write_bytes(1, bytes) };
        block as usize
    };
    (0..count).map(take).collect()
}

fn is_asked_for(address: usize) -> bool {
    flags_at(address).iter().any(|flag| flag == "hg")
}

#[test]
fn huge_pages_are_asked_for_where_the_heap_is_full_and_given_up_with_what_goes_back() {
    let test = "huge_pages_are_asked_for_where_the_heap_is_full_and_given_up_with_what_goes_back";
    configured("thp=demand,background=off", test, || {
        if !has_huge_pages() {
            return;
        }
        let small = fill(4000, 1000);
        assert!(!small.iter().any(|&block| is_asked_for(block)), "4 MiB are little");
        let before = faults();
        let many = fill(64_000, 1000);
        // 16,000 pages of 4 KiB.
        assert!(faults() - before < 8_000, "{} faults", faults() - before);
        let asked = many.iter().step_by(500).filter(|&&block| is_asked_for(block)).count();
        assert!(asked > 60, "{asked} of 128");
        let resident = resident();
        let kept = many.iter().step_by(1000).copied().collect::<Vec<_>>();
        for block in many.into_iter().filter(|block| !kept.contains(block)).chain(small) {
            // SAFETY: live, and not used any more.
            unsafe { raw::free(block as *mut u8) };
        }
        trim(0);
        let left = support::resident();
        assert!(left + 56 * MIB < resident, "{left} of {resident}");
        let asked = kept.iter().filter(|&&block| is_asked_for(block)).count();
        assert!(
            asked <= kept.len() / 8,
            "{asked} of {}: the system would fill them again",
            kept.len()
        );
    });
}

#[test]
fn long_blocks_are_filled_where_they_have_been_and_not_where_they_have_not() {
    let test = "long_blocks_are_filled_where_they_have_been_and_not_where_they_have_not";
    configured("thp=demand,background=off", test, || {
        if !has_huge_pages() {
            return;
        }
        // Whether it was asked for, and what is resident after one page in so many was written.
        let touched = |bytes: usize, each: usize| {
            let block = raw::malloc(bytes);
            let asked = is_asked_for(block as usize + bytes / 2);
            let before = resident();
            // SAFETY: live, and as long as that; freed at once.
            unsafe {
                (0..bytes).step_by(4096 * each).for_each(|at| block.add(at).write_volatile(1));
                let grown = resident() - before;
                raw::free(block);
                trim(0);
                (asked, grown)
            }
        };
        let sparse = |bytes| {
            let (asked, grown) = touched(bytes, 64);
            !asked && grown < bytes / 32
        };
        assert!((0..4).all(|_| sparse(40 * MIB)));
        assert!(!touched(40 * MIB, 1).0);
        assert_eq!(
            (0..16).filter(|_| touched(40 * MIB, 1).0).count(),
            15,
            "one does without, to see how it goes"
        );
        assert!(sparse(1200 * MIB), "this is another thing");
        assert!((0..2).any(|_| touched(70 * MIB, 1).0), "a mapping of its own, not twice as long");
        for _ in 0..16 {
            touched(40 * MIB, 64);
        }
        assert!((0..4).all(|_| sparse(40 * MIB) && sparse(70 * MIB)));
    });
}

/// Grows a block from 64 KiB to so much by doubling, and writes one of so many pages each time. The block, and faults.
fn grown(to: usize, each: usize) -> (*mut u8, i64) {
    let before = faults();
    let (mut block, mut written, mut bytes) = (raw::malloc(64 * KIB), 0, 64 * KIB);
    loop {
        // SAFETY: live, and as long as that.
        (written..bytes)
            .step_by(4096 * each)
            .for_each(|at| unsafe { block.add(at).write_volatile(1) });
        if bytes == to {
            return (block, faults() - before);
        }
        written = bytes;
        bytes *= 2;
        // SAFETY: live, and not used by its old address any more.
        block = unsafe { raw::realloc(block, bytes) };
        assert!(!block.is_null());
    }
}

#[test]
fn a_block_that_grows_is_filled_if_it_was_full() {
    configured("background=off", "a_block_that_grows_is_filled_if_it_was_full", || {
        if !has_huge_pages() {
            return;
        }
        let before = resident();
        let (block, faults) = grown(32 * MIB, 1);
        assert!(is_asked_for(block as usize + 30 * MIB));
        // 8,192 pages of 4 KiB. What memory there is in pieces of 2 MiB is the machine's to say.
        assert!(faults < 5_000, "{faults}");
        assert!(resident() - before < 36 * MIB, "{}", resident() - before);
        // SAFETY: live, and every page was written.
        (0..32 * MIB).step_by(4096).for_each(|at| unsafe { assert_eq!(block.add(at).read(), 1) });
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
    });
}

#[test]
fn a_block_that_was_filled_and_grows_without_measure_is_not_filled() {
    let test = "a_block_that_was_filled_and_grows_without_measure_is_not_filled";
    configured("background=off", test, || {
        if !has_huge_pages() {
            return;
        }
        let (block, _) = grown(16 * MIB, 1);
        let before = resident();
        // SAFETY: live, and not used by its old address any more; as long as that.
        let block = unsafe {
            let block = raw::realloc(block, 1024 * MIB);
            assert!(!block.is_null());
            (16 * MIB..1024 * MIB).step_by(2 * MIB).for_each(|at| block.add(at).write_volatile(1));
            block
        };
        let more = resident() - before;
        assert!(more < 16 * MIB, "{more} bytes for 504 pages");
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
    });
}

#[test]
fn a_block_that_grows_is_not_filled_if_it_was_not_full() {
    configured("background=off", "a_block_that_grows_is_not_filled_if_it_was_not_full", || {
        if !has_huge_pages() {
            return;
        }
        let before = resident();
        let (block, _) = grown(64 * MIB, 4);
        assert!(!is_asked_for(block as usize + 60 * MIB));
        assert!(resident() - before < 20 * MIB, "{}", resident() - before);
        // SAFETY: live, and not used any more.
        unsafe { raw::free(block) };
    });
}

#[test]
fn buffers_of_which_one_page_is_used_take_no_more() {
    configured("background=off", "buffers_of_which_one_page_is_used_take_no_more", || {
        let small = fill(20_000, 1000);
        let before = resident();
        for _ in 0..8000 {
            for (bytes, used) in [(16 * KIB, 600), (300, 300)] {
                let block = raw::malloc(bytes);
                // SAFETY: live, and as long as that; never freed.
                unsafe { block.write_bytes(1, used) };
            }
        }
        let grown = resident() - before;
        assert!(grown < 48 * MIB, "{grown} bytes beside {} small ones", small.len());
    });
}

#[test]
fn stacks_and_tables_that_are_hardly_touched_stay_so() {
    configured("background=off", "stacks_and_tables_that_are_hardly_touched_stay_so", || {
        let small = fill(20_000, 1000);
        let before = resident();
        for bytes in [60 * KIB, 200 * KIB, 512 * KIB] {
            for _ in 0..(64 << 20) / bytes {
                let block = raw::malloc(bytes);
                // SAFETY: live, and as long as that; never freed.
                unsafe { block.write_bytes(1, 4096) };
            }
        }
        let grown = resident() - before;
        assert!(grown < 24 * MIB, "{grown} bytes for {} small ones and 192 MiB", small.len());
    });
}
