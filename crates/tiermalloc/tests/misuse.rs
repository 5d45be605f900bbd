//! A mistake of the program ends it: SIGABRT, after exactly one line that says what was wrong. Each bug
//! runs in a process of its own. (What C programs can do wrong is in the tests of the `preload` crate.)

mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use support::{each_alone, each_alone_with};
use tiermalloc::{Pool, TierMalloc, raw, trim, verify};

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const MIB: usize = 1 << 20;

/// SIGABRT, and one line that names the allocator and holds `words`.
fn aborts_with(bug: &str, output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    // An emulator adds a word of its own.
    let text: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("qemu: ") && *line != "\n")
        .collect();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{bug}: {}\n{text}", output.status);
    assert_eq!(text.lines().count(), 1, "{bug}: {text}");
    assert!(text.ends_with('\n'), "{bug}: {text}");
    assert!(text.starts_with("tiermalloc: "), "{bug}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{bug}: {words:?} in {text}");
    assert!(text.contains("0x"), "{bug}: the address: {text}");
}

// SAFETY of all that follows: none; the misuse is the point, and the process ends of it.

fn twice(size: usize) {
    let block = raw::malloc(size);
    // SAFETY: none, see above.
    unsafe {
        raw::free(block);
        raw::free(block);
    }
    trim(0);
}

/// Freed again after so many others of its size.
fn twice_after(size: usize, others: usize) {
    let all: Vec<*mut u8> = (0..=others).map(|_| raw::malloc(size)).collect();
    // SAFETY: none, see above.
    unsafe {
        all.iter().for_each(|&block| raw::free(block));
        raw::free(all[0]);
    }
    trim(0);
}

#[test]
fn a_double_free_aborts_when_it_is_seen() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "a_double_free_aborts_when_it_is_seen",
        &[
            ("tiny", || twice(1)),
            ("small", || twice(24)),
            ("a kibibyte", || twice(1024)),
            ("medium", || twice(30_000)),
            ("after one", || twice_after(64, 1)),
            ("after some", || twice_after(64, 20)),
            ("after many", || twice_after(64, 500)),
            ("by the size", || {
                let layout = Layout::from_size_align(40, 8).unwrap();
                // SAFETY: none, see above.
                unsafe {
                    let block = TierMalloc::new().alloc(layout);
                    TierMalloc::new().dealloc(block, layout);
                    TierMalloc::new().dealloc(block, layout);
                }
                verify();
            }),
            ("at the end of a thread", || {
                let thread = std::thread::spawn(|| {
                    let block = raw::malloc(200);
                    // SAFETY: none, see above.
                    unsafe {
                        raw::free(block);
                        raw::free(block);
                    }
                });
                let _ = thread.join();
            }),
        ],
        |bug, output| {
            // Without caches, and where an object is too large to wait in one for nothing, the first free may empty the span,
            // and then nothing is known of the address.
            let no_caches = tiermalloc::config().pool == tiermalloc::Pool::Central
                || matches!(bug, "medium" | "a kibibyte");
            let gone =
                String::from_utf8_lossy(&output.stderr).contains("not the address of a live");
            let words: &[&str] = if no_caches && gone { &[] } else { &["double free"] };
            aborts_with(bug, output, words);
        },
    );
}

#[test]
fn whole_pages_that_are_freed_twice_abort_at_once() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "whole_pages_that_are_freed_twice_abort_at_once",
        &[
            ("300 KiB", || twice(300 * 1024)),
            ("20 MiB", || twice(20 * MIB)),
            ("100 MiB", || twice(100 * MIB)),
            ("by the size", || {
                let layout = Layout::from_size_align(MIB, 8).unwrap();
                // SAFETY: none, see above.
                unsafe {
                    let block = TierMalloc::new().alloc(layout);
                    TierMalloc::new().dealloc(block, layout);
                    TierMalloc::new().dealloc(block, layout);
                }
            }),
        ],
        |bug, output| {
            // That pool knows its blocks for longer.
            let words = match tiermalloc::config().pool {
                Pool::Guarded => "",
                _ => "not the address of a live allocation",
            };
            aborts_with(bug, output, &["free(", words]);
        },
    );
}

#[test]
fn a_pointer_that_is_no_allocations_aborts_at_once() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "a_pointer_that_is_no_allocations_aborts_at_once",
        &[
            ("of the stack", || {
                let mut value = 7u64;
                // SAFETY: none, see above.
                unsafe { raw::free((&raw mut value).cast()) };
            }),
            ("of a static", || {
                static VALUE: u64 = 7;
                // SAFETY: none, see above.
                unsafe { raw::free((&raw const VALUE).cast_mut().cast()) };
            }),
            // SAFETY: none, see above.
            ("of no memory", || unsafe { raw::free(0x10 as *mut u8) }),
            // SAFETY: none, see above.
            ("of the kernel", || unsafe { raw::free((usize::MAX - 4095) as *mut u8) }),
            ("inside a large block", || {
                // SAFETY: none, see above.
                unsafe { raw::free(raw::malloc(MIB).add(8192)) };
            }),
            ("inside a huge block", || {
                // SAFETY: none, see above.
                unsafe { raw::free(raw::malloc(100 * MIB).add(16)) };
            }),
        ],
        |bug, output| {
            // That pool knows its blocks for longer.
            let words = match tiermalloc::config().pool {
                Pool::Guarded => "",
                _ => "not the address of a live allocation",
            };
            aborts_with(bug, output, &["free(", words]);
        },
    );
}

#[test]
fn a_pointer_into_an_object_aborts_when_it_is_seen() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "a_pointer_into_an_object_aborts_when_it_is_seen",
        &[
            ("odd", || {
                let all: Vec<*mut u8> = (0..100).map(|_| raw::malloc(64)).collect();
                // SAFETY: none, see above.
                all.into_iter().for_each(|block| unsafe { raw::free(block.add(1)) });
                trim(0);
            }),
            ("a word behind its start", || {
                // SAFETY: none, see above.
                unsafe { raw::free(raw::malloc(1000).add(8)) };
                trim(0);
            }),
            ("in the middle", || {
                // SAFETY: none, see above.
                unsafe { raw::free(raw::malloc(5000).add(2048)) };
                trim(0);
            }),
            ("seen by verify", || {
                // SAFETY: none, see above.
                unsafe { raw::free(raw::malloc(5000).add(2048)) };
                verify();
            }),
        ],
        |bug, output| aborts_with(bug, output, &["not the start of an allocation"]),
    );
}

#[test]
fn a_wrong_size_aborts_when_it_is_seen() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "a_wrong_size_aborts_when_it_is_seen",
        &[
            ("smaller", || {
                // SAFETY: none, see above.
                unsafe { raw::free_sized(raw::malloc(1000), 100, 16) };
                trim(0);
            }),
            ("larger", || {
                // SAFETY: none, see above.
                unsafe { raw::free_sized(raw::malloc(100), 1000, 16) };
                trim(0);
            }),
            ("small as whole pages", || {
                // SAFETY: none, see above.
                unsafe { raw::free_sized(raw::malloc(100), MIB, 16) };
            }),
            ("whole pages as small", || {
                // SAFETY: none, see above.
                unsafe { raw::free_sized(raw::malloc(MIB), 100, 16) };
                trim(0);
            }),
        ],
        |bug, output| aborts_with(bug, output, &["free("]),
    );
}

#[test]
fn other_calls_say_their_own_name() {
    if support::skipped_in(&[Pool::System], "what it sees is its own affair") {
        return;
    }
    each_alone(
        "other_calls_say_their_own_name",
        &[
            ("realloc", || {
                // SAFETY: none, see above.
                let moved = unsafe { raw::realloc(0x1000 as *mut u8, 10) };
                assert!(moved.is_null());
            }),
            ("malloc_usable_size", || {
                // SAFETY: none, see above.
                let size = unsafe { raw::usable_size(0x1000 as *mut u8) };
                assert_eq!(size, 0);
            }),
            ("GlobalAlloc::realloc", || {
                let layout = Layout::from_size_align(MIB, 8).unwrap();
                // SAFETY: none, see above.
                let moved =
                    unsafe { TierMalloc::new().realloc(0x1000 as *mut u8, layout, 2 * MIB) };
                assert!(moved.is_null());
            }),
        ],
        |bug, output| aborts_with(bug, output, &[bug, "not the address of a live allocation"]),
    );
}

/// Frees a block of `size` bytes at `align` with another layout.
fn freed_as(size: usize, align: usize, as_size: usize, as_align: usize) {
    let layout = |size, align| Layout::from_size_align(size, align).unwrap();
    // SAFETY: none, see above.
    unsafe {
        let block = TierMalloc::new().alloc(layout(size, align));
        TierMalloc::new().dealloc(block, layout(as_size, as_align));
    }
}

#[test]
fn a_dealloc_with_another_layout_aborts_at_once_in_the_hardened_pool() {
    each_alone_with(
        &[("TIERMALLOC_CONF", "pool=hardened")],
        "a_dealloc_with_another_layout_aborts_at_once_in_the_hardened_pool",
        &[
            ("smaller", || freed_as(1000, 8, 100, 8)),
            ("bigger", || freed_as(100, 8, 1000, 8)),
            ("other alignment", || freed_as(100, 8, 100, 256)),
            ("large as small", || freed_as(MIB, 8, 100, 8)),
            ("small as large", || freed_as(100, 8, MIB, 8)),
        ],
        |bug, output| aborts_with(bug, output, &["freed as ", "but allocated as "]),
    );
}

#[test]
fn what_is_done_to_free_memory_is_seen_in_the_hardened_pool() {
    each_alone_with(
        &[("TIERMALLOC_CONF", "pool=hardened")],
        "what_is_done_to_free_memory_is_seen_in_the_hardened_pool",
        &[
            ("in the quarantine", || {
                let block = raw::malloc(100);
                // SAFETY: none, see above.
                unsafe {
                    raw::free(block);
                    block.add(99).write(0);
                }
                verify();
            }),
            ("in its span", || {
                let (block, other) = (raw::malloc(100), raw::malloc(100));
                // SAFETY: none, see above.
                unsafe { raw::free(block) };
                // Out of the quarantine, while its span lives.
                trim(0);
                // SAFETY: none, see above.
                unsafe { block.write(1) };
                while raw::malloc(100) != block {}
                // SAFETY: live.
                unsafe { raw::free(other) };
            }),
        ],
        |bug, output| aborts_with(bug, output, &["free memory was written to"]),
    );
}
