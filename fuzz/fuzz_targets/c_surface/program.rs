//! The program: what it does with each operation, and what has to come of it.

use std::ffi::{c_int, c_void};
use std::ptr;

use tiermalloc_fuzz::live::{self, Live, most};
use tiermalloc_fuzz::request::{Absurd, Size};
use tiermalloc_fuzz::{keeps_errno, pattern, says};

use crate::library::{Library, library};
use crate::{Boundary, Op, Section};

/// Operations of one input.
const OPS: usize = 150;
/// Alignments up to here are served; for more it depends on how many addresses there are.
const SERVED: usize = 1 << 32;
/// What is read of a block from either end to see that it is zero.
const READ: usize = 1 << 20;

pub fn run(sections: &[Section]) {
    let mut program = Program { library: library(), blocks: Vec::new(), left: OPS };
    for section in sections {
        if section.in_a_thread {
            // Joined, which waits for the thread's destructors too; the scope alone does not.
            std::thread::scope(|scope| scope.spawn(|| program.section(section)).join())
                .expect("the thread ends in good order");
        } else {
            program.section(section);
        }
    }
    program.step(Op::FreeMany(u8::MAX));
    program.end();
}

struct Program {
    library: &'static Library,
    blocks: Vec<Live>,
    /// Operations that may still be made.
    left: usize,
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

impl Program {
    fn section(&mut self, section: &Section) {
        for &op in section.ops.iter().take(self.left) {
            self.step(op);
            self.left -= 1;
        }
    }

    fn take(&mut self, pick: u8) -> Option<Live> {
        let count = self.blocks.len();
        (count > 0).then(|| self.blocks.swap_remove(usize::from(pick) % count))
    }

    fn usable(&self, pointer: *mut c_void) -> usize {
        // SAFETY: callers pass live blocks.
        keeps_errno(|| unsafe { (self.library.malloc_usable_size)(pointer) })
    }

    /// A new block: no call that returns one may change errno.
    fn add(&mut self, size: usize, align: usize, call: impl FnOnce(&Library) -> *mut c_void) {
        let pointer = keeps_errno(|| call(self.library));
        assert!(!pointer.is_null(), "{size} bytes at {align}: there is memory");
        // SAFETY: just allocated, so it is ours up to its usable size.
        let block = unsafe { Live::adopt(pointer.cast(), self.usable(pointer), size, align) };
        self.blocks.push(block);
    }

    /// Resizes a block by a call that is given the block.
    fn resize(&mut self, block: Live, size: usize, call: impl FnOnce(*mut c_void) -> *mut c_void) {
        block.leave();
        let pointer = keeps_errno(|| call(block.pointer().cast()));
        assert!(!pointer.is_null(), "{block:x?} to {size}: there is memory");
        // SAFETY: the block is there now, and at least so long.
        let held = unsafe { block.is_held_at(pointer.cast(), size) };
        assert!(held, "A2: {block:x?} to {size}: at {pointer:?} it holds something else");
        // SAFETY: as above, up to its usable size.
        self.blocks.push(unsafe { Live::adopt(pointer.cast(), self.usable(pointer), size, 16) });
    }

    fn free(&self, block: Live, name: u8) {
        block.leave();
        let pointer = block.pointer().cast();
        let l = self.library;
        // SAFETY: the block is live and not used any more. The sizes are not believed.
        keeps_errno(|| unsafe {
            match name % 6 {
                0 => (l.free)(pointer),
                1 => (l.cfree)(pointer),
                2 => (l.__libc_free)(pointer),
                3 => (l.free_sized)(pointer, name.into()),
                4 => (l.free_aligned_sized)(pointer, name.into(), block.usable()),
                _ => (l.free_sized)(pointer, block.usable()),
            }
        });
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Malloc { size, libc_name } => {
                let size = size.bytes(most());
                // SAFETY: any size may be asked for.
                self.add(size, 16, |l| unsafe {
                    if libc_name { (l.__libc_malloc)(size) } else { (l.malloc)(size) }
                });
            }
            Op::Calloc { size, count, libc_name } => self.calloc(size, count.into(), libc_name),
            Op::Realloc { pick, size, libc_name } => {
                let size = size.bytes(most()).max(1);
                let (l, block) = (self.library, self.take(pick));
                let call = if libc_name { l.__libc_realloc } else { l.realloc };
                if let Some(block) = block {
                    // SAFETY: the block is live, and not used any more where it was.
                    self.resize(block, size, |pointer| unsafe { call(pointer, size) });
                }
            }
            Op::ReallocArray { pick, count, size, libc_name } => {
                let count = usize::from(count).max(1);
                let size = (size.bytes(most()) / count).max(1);
                let l = self.library;
                let call = if libc_name { l.__libc_reallocarray } else { l.reallocarray };
                if let Some(block) = self.take(pick) {
                    // SAFETY: as above.
                    self.resize(block, count * size, |pointer| unsafe {
                        call(pointer, count, size)
                    });
                }
            }
            Op::ReallocNull(size) => {
                let size = size.bytes(most());
                // SAFETY: null is a new block.
                self.add(size, 16, |l| unsafe { (l.realloc)(ptr::null_mut(), size) });
            }
            Op::ReallocZero(pick) => {
                if let Some(block) = self.take(pick) {
                    block.leave();
                    let call = self.library.realloc;
                    // SAFETY: the block is live and not used any more.
                    let gone = keeps_errno(|| unsafe { call(block.pointer().cast(), 0) });
                    assert!(gone.is_null(), "realloc to zero frees");
                }
            }
            Op::Memalign { boundary, size, name } => self.memalign(boundary, size, name),
            Op::PosixMemalign { boundary, size } => self.posix_memalign(boundary, size),
            Op::Valloc(size) => {
                let size = size.bytes(most());
                // SAFETY: any size may be asked for.
                self.add(size, page_size(), |l| unsafe { (l.valloc)(size) });
            }
            Op::Pvalloc(size) => {
                let (size, page) = (size.bytes(most()), page_size());
                // All of the last page is the program's.
                let whole = size.next_multiple_of(page);
                // SAFETY: any size may be asked for.
                self.add(whole, page, |l| unsafe { (l.pvalloc)(size) });
            }
            Op::Free { pick, name } => {
                if let Some(block) = self.take(pick) {
                    self.free(block, name);
                }
            }
            Op::FreeMany(count) => {
                let from = self.blocks.len().saturating_sub(count.into());
                for block in self.blocks.split_off(from) {
                    self.free(block, 0);
                }
            }
            Op::Many(size, count) => {
                for _ in 0..count {
                    let size = size.bytes(most().min(20_000));
                    // SAFETY: any size may be asked for.
                    self.add(size, 16, |l| unsafe { (l.malloc)(size) });
                }
            }
            Op::Check(pick) => {
                if let Some(block) = self.take(pick) {
                    block.check();
                    assert_eq!(self.usable(block.pointer().cast()), block.usable());
                    self.blocks.push(block);
                }
            }
            Op::InVain { size, boundary } => self.in_vain(size.bytes(), boundary),
            Op::ReallocInVain { pick, size } => self.realloc_in_vain(pick, size),
            Op::Overflow { pick, count, size } => {
                self.overflow(pick, count as usize, size as usize);
            }
            Op::Trim(keep) => {
                // SAFETY: nothing is asked of the caller.
                let gone = keeps_errno(|| unsafe { (self.library.malloc_trim)(keep as usize) });
                assert!(matches!(gone, 0 | 1));
            }
            Op::Figures => self.figures(),
            Op::Info(options) => self.info(c_int::from(options % 3)),
            Op::Options(parameter, value) => {
                // SAFETY: nothing is asked of the caller.
                let taken = keeps_errno(|| unsafe {
                    (self.library.mallopt)(parameter.into(), value.into())
                });
                assert_eq!(taken, 1, "as glibc says to parameters that it does not know");
            }
        }
    }

    fn calloc(&mut self, size: Size, count: usize, libc_name: bool) {
        let size = size.bytes(most()) / count.max(1);
        let bytes = count * size;
        self.add(bytes, 16, |l| {
            let call = if libc_name { l.__libc_calloc } else { l.calloc };
            // SAFETY: any size may be asked for.
            let pointer = unsafe { call(count, size) };
            if !pointer.is_null() {
                let read = bytes.min(READ);
                // SAFETY: just allocated with that size.
                let zero = unsafe {
                    let start = pointer.cast::<u8>();
                    pattern::is_zero(start, read) && pattern::is_zero(start.add(bytes - read), read)
                };
                assert!(zero, "calloc({count}, {size}) is not zero");
            }
            pointer
        });
    }

    /// `memalign` and `aligned_alloc`: any boundary, rounded up to a power of two.
    fn memalign(&mut self, boundary: Boundary, size: Size, name: u8) {
        let (boundary, size) = (boundary.bytes(), size.bytes(most()));
        let l = self.library;
        let call = [l.memalign, l.__libc_memalign, l.aligned_alloc][usize::from(name % 3)];
        // SAFETY: any size and any boundary may be asked for.
        let call = || unsafe { call(boundary, size) };
        match boundary.checked_next_power_of_two() {
            None => assert!(says(libc::EINVAL, call).is_null(), "memalign({boundary:#x})"),
            Some(align) if align > SERVED => {
                // SAFETY: what was allocated here is not used.
                unsafe { (l.free)(call()) };
            }
            Some(align) => self.add(size, align.max(16), |_| call()),
        }
    }

    fn posix_memalign(&mut self, boundary: Boundary, size: Size) {
        let (boundary, size) = (boundary.bytes(), size.bytes(most()));
        let before = ptr::without_provenance_mut::<c_void>(0x4711);
        let mut pointer = before;
        // It reports by its result, and leaves errno alone whatever happens.
        let result = keeps_errno(|| {
            // SAFETY: the pointer is writable.
            unsafe { (self.library.posix_memalign)(&raw mut pointer, boundary, size) }
        });
        if !boundary.is_power_of_two() || boundary % size_of::<usize>() != 0 {
            assert_eq!((result, pointer), (libc::EINVAL, before), "a boundary of {boundary:#x}");
        } else if result != 0 {
            assert!(boundary > SERVED, "a boundary of {boundary:#x} gives {result}");
            assert_eq!((result, pointer), (libc::ENOMEM, before), "a boundary of {boundary:#x}");
        } else if boundary > SERVED {
            assert_eq!(pointer as usize % boundary, 0);
            // SAFETY: what was allocated here is not used.
            unsafe { (self.library.free)(pointer) };
        } else {
            self.add(size, boundary.max(16), |_| pointer);
        }
    }

    /// What nobody can have: null and `ENOMEM`, from whichever entry point.
    fn in_vain(&mut self, size: usize, boundary: Boundary) {
        let l = self.library;
        // SAFETY: any size may be asked for.
        unsafe {
            assert!(says(libc::ENOMEM, || (l.malloc)(size)).is_null());
            assert!(says(libc::ENOMEM, || (l.calloc)(1, size)).is_null());
            assert!(says(libc::ENOMEM, || (l.calloc)(size, 1)).is_null());
            assert!(says(libc::ENOMEM, || (l.realloc)(ptr::null_mut(), size)).is_null());
            assert!(says(libc::ENOMEM, || (l.valloc)(size)).is_null());
            assert!(says(libc::ENOMEM, || (l.pvalloc)(size)).is_null());
            let boundary = boundary.bytes();
            let bad = boundary.checked_next_power_of_two().is_none();
            let error = if bad { libc::EINVAL } else { libc::ENOMEM };
            assert!(says(error, || (l.memalign)(boundary, size)).is_null());
            assert!(says(error, || (l.aligned_alloc)(boundary, size)).is_null());
        }
    }

    /// A resize that cannot be had leaves the block as it is.
    fn realloc_in_vain(&mut self, pick: u8, size: Absurd) {
        let Some(block) = self.take(pick) else { return };
        let (l, pointer) = (self.library, block.pointer().cast());
        // SAFETY: the block is live.
        unsafe {
            assert!(says(libc::ENOMEM, || (l.realloc)(pointer, size.bytes())).is_null());
            assert!(says(libc::ENOMEM, || (l.reallocarray)(pointer, 1, size.bytes())).is_null());
        }
        block.check();
        self.blocks.push(block);
    }

    /// A product that does not fit is `ENOMEM`, and no block is touched.
    fn overflow(&mut self, pick: u8, count: usize, size: usize) {
        if count.checked_mul(size).is_some() {
            return;
        }
        let l = self.library;
        let block = self.take(pick);
        let pointer = block.as_ref().map_or(ptr::null_mut(), |block| block.pointer().cast());
        // SAFETY: the block is live, or null.
        unsafe {
            assert!(says(libc::ENOMEM, || (l.calloc)(count, size)).is_null());
            assert!(says(libc::ENOMEM, || (l.reallocarray)(pointer, count, size)).is_null());
        }
        if let Some(block) = block {
            block.check();
            self.blocks.push(block);
        }
    }

    /// `mallinfo2` is exact where nobody else allocates, and `mallinfo` the same in 32 bits.
    fn figures(&self) {
        // SAFETY: nothing is asked of the caller.
        let (long, short) =
            keeps_errno(|| unsafe { ((self.library.mallinfo2)(), (self.library.mallinfo)()) });
        assert_eq!(long.uordblks + long.hblkhd, live::bytes(), "{long:?}");
        assert!(long.arena >= long.uordblks + long.fordblks, "{long:?}");
        assert!(long.fordblks >= long.keepcost + long.fsmblks, "{long:?}");
        assert!((long.hblks == 0) == (long.hblkhd == 0), "{long:?}");
        let all = [
            long.arena,
            long.ordblks,
            long.smblks,
            long.hblks,
            long.hblkhd,
            long.usmblks,
            long.fsmblks,
            long.uordblks,
            long.fordblks,
            long.keepcost,
        ];
        assert_eq!(short, all.map(|n| c_int::try_from(n).unwrap_or(c_int::MAX)));
        // SAFETY: null is no block.
        assert_eq!(unsafe { (self.library.malloc_usable_size)(ptr::null_mut()) }, 0);
        // SAFETY: as above.
        keeps_errno(|| unsafe { (self.library.free)(ptr::null_mut()) });
    }

    fn info(&self, options: c_int) {
        let (mut text, mut length) = (ptr::null_mut(), 0);
        // SAFETY: both live until the stream is closed, and the text is freed by whom it came from.
        let written = unsafe {
            let stream = libc::open_memstream(&raw mut text, &raw mut length);
            assert!(!stream.is_null());
            let result = (self.library.malloc_info)(options, stream);
            assert_eq!(libc::fclose(stream), 0);
            assert_eq!(result, if options == 0 { 0 } else { libc::EINVAL });
            let written = std::slice::from_raw_parts(text.cast::<u8>(), length).to_vec();
            libc::free(text.cast());
            written
        };
        let written = String::from_utf8(written).expect("text");
        if options == 0 {
            let begins = written.starts_with("<malloc version=\"1\">\n");
            assert!(begins && written.ends_with("</malloc>\n"), "{written}");
            let live = format!("<bytes of=\"live\" value=\"{}\"/>", live::bytes());
            assert!(written.contains(&live), "{} bytes live: {written}", live::bytes());
        } else {
            assert_eq!(written, "");
        }
    }

    /// Everything is freed, and goes back.
    fn end(mut self) {
        for block in std::mem::take(&mut self.blocks) {
            self.free(block, 0);
        }
        self.figures();
        // SAFETY: nothing is asked of the caller.
        unsafe {
            (self.library.malloc_trim)(0);
            let info = (self.library.mallinfo2)();
            assert_eq!((info.uordblks, info.hblkhd, info.fsmblks), (0, 0, 0), "{info:?}");
            if page_size() <= 8192 {
                assert_eq!(info.keepcost, 0, "nothing is left that could go back: {info:?}");
                assert_eq!((self.library.malloc_trim)(0), 0, "nor is it said to go");
            }
        }
    }
}
