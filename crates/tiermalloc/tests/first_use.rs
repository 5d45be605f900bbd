//! The first allocation of a process, which reads the configuration, on a stack of the least size: it leaves `errno` and
//! the table of files alone, and uses a part of the stack.

mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use support::each_alone_with;
use tiermalloc::{TierMalloc, config};

#[global_allocator]
static GLOBAL: TierMalloc = TierMalloc::new();

const STACK: usize = 16 << 10;
const FILL: u8 = 0xa5;

/// What was found: bytes of the stack that were used, the first free number for a file before and after, `errno`.
static USED: AtomicUsize = AtomicUsize::new(0);
static FILES: [AtomicI32; 2] = [const { AtomicI32::new(0) }; 2];
static ERRNO: AtomicI32 = AtomicI32::new(0);

fn free_number() -> i32 {
    // SAFETY: plain calls.
    unsafe {
        let number = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
        libc::close(number);
        number
    }
}

extern "C" fn nothing(_: *mut libc::c_void) -> *mut libc::c_void {
    std::ptr::null_mut()
}

extern "C" fn allocate(_: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the layout is not empty; errno is the thread's own.
    unsafe {
        *libc::__errno_location() = 77;
        let block = GLOBAL.alloc(Layout::from_size_align_unchecked(100, 8));
        ERRNO.store(*libc::__errno_location(), Ordering::Relaxed);
        GLOBAL.dealloc(block, Layout::from_size_align_unchecked(100, 8));
    }
    std::ptr::null_mut()
}

/// Runs `body` in a thread with a small stack, and returns how many bytes of that it has used, what the thread itself
/// takes included.
fn on_small_stack(body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void) -> usize {
    // SAFETY: a fresh mapping with a guard page below, for one thread that ends before it is looked at.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let guard = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let start = libc::mmap(std::ptr::null_mut(), guard + STACK, protection, flags, -1, 0);
        assert!(start != libc::MAP_FAILED && libc::mprotect(start, guard, libc::PROT_NONE) == 0);
        let stack = start.cast::<u8>().add(guard);
        stack.write_bytes(FILL, STACK);
        let mut attributes = std::mem::zeroed::<libc::pthread_attr_t>();
        libc::pthread_attr_init(&raw mut attributes);
        assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, stack.cast(), STACK), 0);
        let mut thread = std::mem::zeroed();
        let made = libc::pthread_create(
            &raw mut thread,
            &raw const attributes,
            body,
            std::ptr::null_mut(),
        );
        assert_eq!(made, 0);
        libc::pthread_join(thread, std::ptr::null_mut());
        let stack = std::slice::from_raw_parts(stack, STACK);
        STACK - stack.iter().take_while(|&&byte| byte == FILL).count()
    }
}

extern "C" fn first() {
    // SAFETY: the name ends with NUL.
    if unsafe { libc::getenv(c"TEST_FIRST".as_ptr()) }.is_null() {
        return;
    }
    let thread = on_small_stack(nothing);
    FILES[0].store(free_number(), Ordering::Relaxed);
    USED.store(on_small_stack(allocate) - thread, Ordering::Relaxed);
    FILES[1].store(free_number(), Ordering::Relaxed);
}

/// Before anything in the process allocates through Rust.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = first;

#[test]
fn the_first_allocation_leaves_errno_and_files_alone_and_fits_a_small_stack() {
    // Where there is an emulator, or something that watches memory, more stack is used.
    if support::is_emulated() {
        println!("skipped: stacks are other ones");
        return;
    }
    let path = std::env::temp_dir().join(format!("tiermalloc-first-use-{}", std::process::id()));
    let lines = "# x\nquarantine = 1_000_000\nx = 1\n[\"an \\\"other\\\"\"]\nthp = never\nconfig = \"print\n";
    std::fs::write(&path, lines.repeat(20)).unwrap();
    let report = || {
        let quarantine = config().quarantine;
        let [before, after] = FILES.each_ref().map(|files| files.load(Ordering::Relaxed));
        let errno = ERRNO.load(Ordering::Relaxed);
        eprintln!("REPORT {} {before} {after} {errno} {quarantine}", USED.load(Ordering::Relaxed));
        std::process::exit(0)
    };
    let variables = [
        ("TEST_FIRST", "1"),
        ("TIERMALLOC_CONF", "config=print,y=1,zero_on_free=1"),
        ("TIERMALLOC_CONF_FILE", path.to_str().unwrap()),
    ];
    let test = "the_first_allocation_leaves_errno_and_files_alone_and_fits_a_small_stack";
    each_alone_with(&variables, test, &[("program", report)], |_, output| {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find_map(|line| line.strip_prefix("REPORT "));
        let words: Vec<usize> = line
            .unwrap_or_else(|| panic!("{text}"))
            .split(' ')
            .map(|word| word.parse().unwrap())
            .collect();
        let &[used, before, after, errno, quarantine] = &words[..] else { panic!("{text}") };
        println!("{used} bytes of stack");
        assert!(used < 12 << 10, "{used} bytes of stack");
        assert_eq!((before, errno), (after, 77));
        assert!(cfg!(feature = "fixed-config") || quarantine == 1_000_000);
    });
    std::fs::remove_file(path).unwrap();
}
