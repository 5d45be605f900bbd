//! How many processors there are for the calling thread, as the kernel has it.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(tiermalloc_loom)
))]

use std::thread::available_parallelism;

use tiermalloc_sync::sys;

/// The processors of the calling thread, by libc.
fn allowed() -> Vec<usize> {
    // SAFETY: all zero is an empty set, and the call writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set), 0);
        set
    };
    // SAFETY: the numbers are within the set.
    (0..libc::CPU_SETSIZE as usize).filter(|&n| unsafe { libc::CPU_ISSET(n, &set) }).collect()
}

/// Allows the calling thread these and no others. `false`: the kernel will not.
fn allow(processors: &[usize]) -> bool {
    // SAFETY: all zero is an empty set, the numbers are within it, and the call only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.iter().for_each(|&n| libc::CPU_SET(n, &mut set));
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0
    }
}

#[test]
fn there_are_as_many_processors_as_the_thread_may_run_on() {
    assert_eq!(sys::processors(), allowed().len());
    // std also minds what a container may use of them.
    assert!(sys::processors() >= available_parallelism().map_or(1, |n| n.get()));
}

#[test]
fn a_thread_that_is_kept_to_one_processor_has_one_and_the_others_have_all() {
    let all = allowed();
    std::thread::scope(|scope| {
        let kept = scope.spawn(|| {
            for processor in [all[0], all[all.len() - 1]] {
                if !allow(&[processor]) {
                    println!("skipped: threads cannot be kept to a processor here");
                    return;
                }
                assert_eq!(sys::processors(), 1);
            }
            assert!(allow(&all));
            assert_eq!(sys::processors(), all.len());
        });
        kept.join().unwrap();
    });
    assert_eq!(sys::processors(), all.len());
}
