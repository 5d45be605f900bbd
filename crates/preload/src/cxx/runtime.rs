//! What the library uses of the C++ runtime, if the program has one.
//!
//! Weak references: a program in C pays nothing and needs nothing. A C++ library that a C program
//! loads later brings its runtime too late for them (and out of sight, with `RTLD_LOCAL`); for that
//! case the loaded runtime is asked by name, when an exception is about to be thrown and not before.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_void};

use crate::dl;

/// One word for each thing that is used; 0 while it is not there. `slow` reads them by their names.
macro_rules! words {
    ($($word:ident = $symbol:literal),* $(,)?) => {
        global_asm!(
            ".pushsection .data.tiermalloc_cxx, \"aw\", %progbits",
            ".p2align 3",
            $(
                concat!(".weak ", $symbol),
                concat!(".globl ", stringify!($word)),
                concat!(".hidden ", stringify!($word)),
                concat!(stringify!($word), ":"),
                concat!(".8byte ", $symbol),
            )*
            ".popsection",
        );
        unsafe extern "C" {
            $(static $word: Word;)*
        }
    };
}

/// A word that is written at most once by every thread, always with the same value.
#[repr(transparent)]
struct Word(UnsafeCell<*mut c_void>);

// SAFETY: accessed through volatile reads and writes of a whole word only.
unsafe impl Sync for Word {}

impl Word {
    fn get(&self) -> *mut c_void {
        // SAFETY: the word is valid; see above.
        unsafe { self.0.get().read_volatile() }
    }
    fn set(&self, value: *mut c_void) {
        // SAFETY: the word is valid and writable; see above.
        unsafe { self.0.get().write_volatile(value) }
    }
}

words! {
    tiermalloc_cxx_allocate_exception = "__cxa_allocate_exception",
    tiermalloc_cxx_throw = "__cxa_throw",
    tiermalloc_cxx_begin_catch = "__cxa_begin_catch",
    tiermalloc_cxx_end_catch = "__cxa_end_catch",
    tiermalloc_cxx_personality = "__gxx_personality_v0",
    tiermalloc_cxx_bad_alloc_type = "_ZTISt9bad_alloc",
    tiermalloc_cxx_bad_alloc_table = "_ZTVSt9bad_alloc",
    tiermalloc_cxx_bad_alloc_end = "_ZNSt9bad_allocD1Ev",
    tiermalloc_cxx_get_new_handler = "_ZSt15get_new_handlerv",
}

/// The runtimes that exist, by the names under which they are loaded.
const RUNTIMES: [&CStr; 2] = [c"libstdc++.so.6", c"libc++abi.so.1"];

/// Looks a runtime up that was loaded after this library.
#[cold]
#[unsafe(link_section = ".text.warm.tiermalloc")]
fn find_runtime() {
    let Some(open) = dl::open() else { return };
    // SAFETY: the words are valid; names are strings.
    unsafe {
        for name in RUNTIMES {
            let runtime = open(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if runtime.is_null() {
                continue;
            }
            let all = [
                (&tiermalloc_cxx_allocate_exception, c"__cxa_allocate_exception"),
                (&tiermalloc_cxx_begin_catch, c"__cxa_begin_catch"),
                (&tiermalloc_cxx_end_catch, c"__cxa_end_catch"),
                (&tiermalloc_cxx_personality, c"__gxx_personality_v0"),
                (&tiermalloc_cxx_bad_alloc_type, c"_ZTISt9bad_alloc"),
                (&tiermalloc_cxx_bad_alloc_table, c"_ZTVSt9bad_alloc"),
                (&tiermalloc_cxx_bad_alloc_end, c"_ZNSt9bad_allocD1Ev"),
                (&tiermalloc_cxx_get_new_handler, c"_ZSt15get_new_handlerv"),
                (&tiermalloc_cxx_throw, c"__cxa_throw"),
            ];
            for (word, name) in all {
                if word.get().is_null() {
                    word.set(dl::look(runtime, name) as *mut c_void);
                }
            }
            return;
        }
    }
}

/// The program's new-handler, or null. Also looks for a runtime that was loaded late.
#[unsafe(no_mangle)]
extern "C" fn tiermalloc_cxx_handler() -> *mut c_void {
    type Get = unsafe extern "C" fn() -> *mut c_void;
    // SAFETY: the words are valid; get_new_handler has this type.
    unsafe {
        if tiermalloc_cxx_throw.get().is_null() {
            find_runtime();
        }
        let get = tiermalloc_cxx_get_new_handler.get();
        if get.is_null() {
            return get;
        }
        core::mem::transmute::<*mut c_void, Get>(get)()
    }
}

/// A `std::bad_alloc`, ready to be thrown. Ends the program when there is no runtime to throw it.
#[unsafe(no_mangle)]
extern "C" fn tiermalloc_cxx_bad_alloc() -> *mut c_void {
    type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
    // SAFETY: the words are valid and have the types of the C++ ABI ("Itanium C++ ABI: Exception
    // Handling", section 2.4); an exception object of 8 bytes holds a bad_alloc, which is nothing but
    // its table pointer, 16 bytes into the table.
    unsafe {
        let allocate = tiermalloc_cxx_allocate_exception.get();
        let table = tiermalloc_cxx_bad_alloc_table.get();
        if allocate.is_null() || table.is_null() || tiermalloc_cxx_throw.get().is_null() {
            const LINE: &[u8] = b"tiermalloc: operator new: out of memory, and no C++ runtime to throw std::bad_alloc\n";
            libc::write(2, LINE.as_ptr().cast(), LINE.len());
            libc::abort();
        }
        let exception = core::mem::transmute::<*mut c_void, Allocate>(allocate)(8);
        exception.cast::<*mut c_void>().write(table.byte_add(16));
        exception
    }
}
