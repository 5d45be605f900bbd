//! What the futex lock and the system calls promise, with real threads and the real kernel.
#![cfg(not(tiermalloc_loom))]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tiermalloc_sync::{
    CachePadded, DefaultRawMutex, Mutex, Patience, RawFutexMutex, force_unlock, leak_locked,
    lock_within, spin_hint, sys, waits,
};

type Lock<T> = Mutex<RawFutexMutex, T>;

#[test]
fn the_lock_is_eight_bytes_and_unlocked_when_zero() {
    assert_eq!(size_of::<RawFutexMutex>(), 8);
    // SAFETY: the lock is two numbers, and all zero is what its documentation says is unlocked.
    let zeroed: RawFutexMutex = unsafe { std::mem::zeroed() };
    assert!(lock_api::RawMutex::try_lock(&zeroed));
    assert!(lock_api::RawMutex::is_locked(&zeroed));
    // SAFETY: locked above.
    unsafe { lock_api::RawMutex::unlock(&zeroed) };
    assert!(!lock_api::RawMutex::is_locked(&zeroed));
}

#[test]
fn threads_exclude_each_other() {
    static COUNT: Lock<usize> = Lock::new(0);
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let mut count = COUNT.lock();
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    *count += 1;
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(*COUNT.lock(), 80_000);
}

#[test]
fn whoever_finds_the_lock_taken_is_counted_and_nobody_else() {
    let lock: Lock<()> = Lock::new(());
    for _ in 0..10 {
        drop(lock.lock());
        drop(lock.try_lock());
    }
    assert_eq!(waits(&lock), 0);
    std::thread::scope(|scope| {
        let guard = lock.lock();
        assert!(lock.try_lock().is_none(), "which does not wait");
        for _ in 0..3 {
            scope.spawn(|| drop(lock.lock()));
        }
        while waits(&lock) < 3 {
            std::thread::yield_now();
        }
        drop(guard);
    });
    assert_eq!(waits(&lock), 3);
}

#[test]
fn patience_ends_and_is_shared_by_all_locks() {
    let locks: [Lock<u8>; 2] = [Lock::new(1), Lock::new(2)];
    let mut patience = Patience::ms(20);
    assert_eq!(lock_within(&locks[0], &mut patience).as_deref(), Some(&1));
    assert_eq!(patience, Patience::ms(20), "a free lock costs none");
    leak_locked(&locks[0]);
    assert!(lock_within(&locks[0], &mut patience).is_none());
    assert_eq!(patience, Patience::ms(0));
    assert!(lock_within(&locks[0], &mut patience).is_none());
    assert_eq!(lock_within(&locks[1], &mut patience).as_deref(), Some(&2));
    assert!(!patience.is_endless() && Patience::ENDLESS.is_endless());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            // SAFETY: locked above, and kept.
            unsafe { force_unlock(&locks[0]) };
        });
        let mut endless = Patience::ENDLESS;
        assert_eq!(lock_within(&locks[0], &mut endless).as_deref(), Some(&1));
    });
}

#[test]
fn those_who_sleep_are_woken_one_after_another() {
    // The holder sleeps, so that the others do too: spinning does not get them through.
    let lock: Lock<Vec<usize>> = Lock::new(Vec::new());
    std::thread::scope(|scope| {
        let guard = lock.lock();
        for i in 0..8 {
            let lock = &lock;
            scope.spawn(move || {
                let mut entered = lock.lock();
                entered.push(i);
                std::thread::sleep(Duration::from_millis(1));
            });
        }
        std::thread::sleep(Duration::from_millis(30));
        assert!(lock.is_locked());
        assert!(lock.try_lock().is_none());
        drop(guard);
    });
    let mut entered = lock.into_inner();
    entered.sort_unstable();
    assert_eq!(entered, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_lock_kept_over_a_fork_is_given_up_by_hand() {
    let lock: Lock<u8> = Lock::new(1);
    leak_locked(&lock);
    assert!(lock.is_locked());
    assert!(lock.try_lock().is_none());
    // SAFETY: locked through `leak_locked` by this thread.
    unsafe { force_unlock(&lock) };
    assert_eq!(*lock.lock(), 1);
}

#[test]
fn the_default_lock_locks() {
    let lock: Mutex<DefaultRawMutex, u8> = Mutex::new(5);
    let guard = lock.lock();
    assert_eq!((*guard, lock.try_lock().is_none()), (5, true));
}

#[test]
fn padded_values_do_not_share_a_cache_line() {
    let pair = [CachePadded::new(1u8), CachePadded::new(2u8)];
    let apart = &raw const pair[1] as usize - &raw const pair[0] as usize;
    assert!(apart >= 64, "{apart}");
    spin_hint();
}

#[test]
fn a_futex_wait_returns_when_the_word_is_another_or_somebody_wakes_it() {
    let word = AtomicU32::new(7);
    sys::futex_wait(&word, 8); // not equal: returns at once
    sys::futex_wake_one(&word); // nobody sleeps: nothing happens
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while word.load(Ordering::Acquire) == 7 {
                sys::futex_wait(&word, 7);
            }
        });
        std::thread::sleep(Duration::from_millis(20));
        word.store(9, Ordering::Release);
        sys::futex_wake_one(&word);
    });
}

#[test]
fn mapped_memory_is_zero_again_after_a_decommit_and_gone_after_an_unmap() {
    let os = sys::os_page_size();
    let bytes = 16 * os;
    let address = sys::map_anonymous(0, bytes).unwrap();
    assert_eq!(address % os, 0);
    // SAFETY: the mapping is ours, of that length, and readable.
    let all_zero = |at: usize, len: usize| unsafe {
        std::slice::from_raw_parts(at as *const u8, len).iter().all(|&byte| byte == 0)
    };
    assert!(all_zero(address, bytes));
    // SAFETY: the mapping is ours and writable; what is decommitted and unmapped is not used again.
    unsafe {
        (address as *mut u8).write_bytes(0xa5, bytes);
        assert!(sys::decommit(address + os, 2 * os));
        assert!(all_zero(address + os, 2 * os));
        assert_eq!(*((address + 3 * os) as *const u8), 0xa5);
        assert_eq!(*(address as *const u8), 0xa5);
        // A part may go, and then the rest.
        assert!(sys::unmap(address + 8 * os, 8 * os));
        assert_eq!(*((address + 7 * os) as *const u8), 0xa5);
        assert!(sys::unmap(address, 8 * os));
    }
}

#[test]
fn a_hint_that_is_taken_does_not_replace_what_is_there() {
    let os = sys::os_page_size();
    let first = sys::map_anonymous(0, os).unwrap();
    let second = sys::map_anonymous(first, os).unwrap();
    assert_ne!(first, second);
    // SAFETY: both are ours and not used any more.
    unsafe {
        assert!(sys::unmap(first, os));
        assert!(sys::unmap(second, os));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn remapping_moves_the_contents_and_the_new_end_is_zero() {
    let os = sys::os_page_size();
    let old = sys::map_anonymous(0, 2 * os).unwrap();
    let target = sys::map_anonymous(0, 8 * os).unwrap();
    // SAFETY: both mappings are ours; the old one is not used after it has moved.
    unsafe {
        (old as *mut u8).write_bytes(0x5a, 2 * os);
        assert!(sys::remap_onto(old, 2 * os, 8 * os, target));
        let bytes = std::slice::from_raw_parts(target as *const u8, 8 * os);
        assert!(bytes[..2 * os].iter().all(|&byte| byte == 0x5a));
        assert!(bytes[2 * os..].iter().all(|&byte| byte == 0));
        // Shrinking always works where it is.
        assert!(sys::remap_in_place(target, 8 * os, os));
        assert_eq!(*(target as *const u8), 0x5a);
        assert!(sys::unmap(target, os));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_place_is_mapped_only_if_it_is_vacant() {
    let os = sys::os_page_size();
    let start = sys::map_anonymous(0, 3 * os).unwrap();
    assert!(!sys::map_if_vacant(start + os, os), "taken");
    // SAFETY: ours, and not used any more; the two pages around stay.
    assert!(unsafe { sys::unmap(start + os, os) });
    // Another thread may have been faster: then it is taken again.
    if sys::map_if_vacant(start + os, os) {
        // SAFETY: ours, fresh.
        unsafe {
            assert_eq!(((start + os) as *const u8).read(), 0);
            ((start + os) as *mut u8).write(1);
            assert!(sys::unmap(start, 3 * os));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn whether_a_mapping_may_move_is_found_out_without_moving_it() {
    let os = sys::os_page_size();
    let start = sys::map_anonymous(0, 4 * os).unwrap();
    // SAFETY: the mapping is ours.
    unsafe {
        (start as *mut u8).write_bytes(7, 2 * os);
        // The first half has the second one behind it: no room, and it could move.
        assert!(sys::may_move(start, 2 * os, 8 * os));
        assert_eq!(((start + os) as *const u8).read(), 7);
        // A hole is no mapping.
        assert!(sys::unmap(start + os, os));
        assert!(!sys::may_move(start, 2 * os, 8 * os));
        assert!(sys::unmap(start, os) && sys::unmap(start + 2 * os, 2 * os));
        // With room behind it (unless another thread takes that meanwhile) it could move as well.
        let start = sys::map_anonymous(0, 8 * os).unwrap();
        assert!(sys::unmap(start + 2 * os, 6 * os));
        assert!(sys::may_move(start, 2 * os, 8 * os));
        assert!(sys::unmap(start, 2 * os));
    }
}

#[test]
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn every_thread_is_reached_by_a_pointer_of_its_own() {
    let mine = sys::thread_pointer();
    let theirs = std::thread::spawn(sys::thread_pointer).join().unwrap();
    assert!(mine != 0 && theirs != 0 && mine != theirs);
    assert_eq!(sys::thread_pointer(), mine);
}

#[test]
#[cfg(target_os = "linux")]
fn calls_that_fail_say_so_and_leave_errno_alone() {
    // SAFETY: errno's place is valid for this thread.
    let errno = || unsafe { *libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = 4711 };
    assert_eq!(sys::map_anonymous(0, 0), None);
    assert_eq!(sys::map_anonymous(0, 1 << 62), None);
    // SAFETY: none of these addresses is a page, so nothing is touched.
    unsafe {
        assert!(!sys::unmap(1, 1));
        assert!(!sys::decommit(1, 1));
        assert!(!sys::remap_in_place(1, 4096, 8192));
        assert!(!sys::remap_onto(1, 4096, 8192, 1));
    }
    sys::write_stderr(b"");
    assert_eq!(errno(), 4711);
}

#[test]
fn the_page_size_is_the_kernels_and_the_clock_goes_forward() {
    // SAFETY: sysconf has no preconditions.
    let asked = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    assert_eq!(sys::os_page_size() as i64, asked);
    let before = sys::now_ms();
    std::thread::sleep(Duration::from_millis(30));
    let passed = sys::now_ms() - before;
    assert!((10..10_000).contains(&passed), "{passed} ms");
    let (before, asked, after) = (sys::now_ms(), sys::now_ms_once(), sys::now_ms());
    assert!((before..=after).contains(&asked), "{before} {asked} {after}");
}

#[test]
fn any_address_may_be_fetched_ahead() {
    let own = 7u64;
    for address in
        [core::ptr::null(), (&raw const own).cast(), usize::MAX as *const u8, 4096 as *const u8]
    {
        tiermalloc_sync::prefetch(address);
    }
    assert_eq!(own, 7);
}

#[test]
fn the_process_has_its_number_sleeps_and_takes_signals() {
    assert_eq!(tiermalloc_sync::sys::process(), std::process::id());
    let began = std::time::Instant::now();
    tiermalloc_sync::sys::sleep(20);
    assert!(began.elapsed().as_millis() >= 15);
    // No signal: whether one could be sent.
    tiermalloc_sync::sys::signal_process(0);
    assert!(!tiermalloc_sync::futex::State::default().is_locked());
}

#[test]
fn forbidden_pages_end_who_touches_them() {
    let page = tiermalloc_sync::sys::os_page_size();
    let start = tiermalloc_sync::sys::map_anonymous(0, page).unwrap();
    // SAFETY: mapped here, and touched by nobody but the child.
    unsafe {
        assert!(tiermalloc_sync::sys::forbid(start, page));
        let child = libc::fork();
        if child == 0 {
            (start as *mut u8).write_volatile(1);
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFSIGNALED(status), "{status}");
        tiermalloc_sync::sys::unmap(start, page);
    }
}

mod files {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use tiermalloc_sync::sys::files::{File, NoFile, link_target};

    fn path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("tiermalloc-sync-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_file_is_read_to_its_end_in_pieces() {
        let here = scratch("file");
        std::fs::write(&here, b"twelve bytes").unwrap();
        let file = File::open(&path(&here)).unwrap();
        let (mut all, mut piece) = (Vec::new(), [0; 5]);
        loop {
            let length = file.read(&mut piece).unwrap();
            if length == 0 {
                break;
            }
            all.extend_from_slice(&piece[..length]);
        }
        assert_eq!(all, b"twelve bytes");
        std::fs::remove_file(here).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        assert_eq!(File::open(c"/").unwrap_err(), NoFile::NotRegular);
        assert_eq!(File::open(c"/dev/null").unwrap_err(), NoFile::NotRegular);
        assert_eq!(File::open(c"/nowhere/at/all").unwrap_err(), NoFile::Error(libc::ENOENT));
        assert_eq!(File::open(c"").unwrap_err(), NoFile::Error(libc::ENOENT));
    }

    #[test]
    fn a_link_is_read_if_it_fits_for_certain() {
        let here = scratch("link");
        std::os::unix::fs::symlink("twelve bytes", &here).unwrap();
        assert_eq!(link_target(&path(&here), &mut [0; 13]), Some(&b"twelve bytes"[..]));
        assert_eq!(link_target(&path(&here), &mut [0; 12]), None);
        assert_eq!(link_target(c"/", &mut [0; 12]), None);
        std::fs::remove_file(here).unwrap();
    }
}

#[test]
fn whether_huge_pages_come_unasked_is_what_the_system_says() {
    let text = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let said = text.ok().map(|text| text.contains("[always]"));
    assert_eq!(sys::makes_huge_pages_unasked(), said);
}
