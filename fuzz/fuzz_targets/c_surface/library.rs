//! `libtiermalloc.so`, loaded beside the process's own allocator: its functions by their names.

use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::transmute_copy;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use libc::FILE;

/// glibc's `struct mallinfo2`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Mallinfo2 {
    pub arena: usize,
    pub ordblks: usize,
    pub smblks: usize,
    pub hblks: usize,
    pub hblkhd: usize,
    pub usmblks: usize,
    pub fsmblks: usize,
    pub uordblks: usize,
    pub fordblks: usize,
    pub keepcost: usize,
}

type Pointer = *mut c_void;

/// Declares the library's functions: a field for each, found by its name.
macro_rules! functions {
    ($($name:ident: ($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of the loaded library.
        pub struct Library {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl Library {
            /// # Safety
            /// What the library has under each name is a function of that type.
            unsafe fn find(library: Pointer) -> Self {
                Self {
                    // SAFETY: passed on to the caller; a function's address is as long as a pointer.
                    $($name: unsafe { transmute_copy(&symbol(library, stringify!($name))) },)*
                }
            }
        }
    };
}

functions! {
    malloc: (usize) -> Pointer;
    __libc_malloc: (usize) -> Pointer;
    calloc: (usize, usize) -> Pointer;
    __libc_calloc: (usize, usize) -> Pointer;
    realloc: (Pointer, usize) -> Pointer;
    __libc_realloc: (Pointer, usize) -> Pointer;
    reallocarray: (Pointer, usize, usize) -> Pointer;
    __libc_reallocarray: (Pointer, usize, usize) -> Pointer;
    memalign: (usize, usize) -> Pointer;
    __libc_memalign: (usize, usize) -> Pointer;
    aligned_alloc: (usize, usize) -> Pointer;
    posix_memalign: (*mut Pointer, usize, usize) -> c_int;
    valloc: (usize) -> Pointer;
    pvalloc: (usize) -> Pointer;
    free: (Pointer);
    cfree: (Pointer);
    __libc_free: (Pointer);
    free_sized: (Pointer, usize);
    free_aligned_sized: (Pointer, usize, usize);
    malloc_usable_size: (Pointer) -> usize;
    malloc_trim: (usize) -> c_int;
    mallopt: (c_int, c_int) -> c_int;
    mallinfo: () -> [c_int; 10];
    mallinfo2: () -> Mallinfo2;
    malloc_info: (c_int, *mut FILE) -> c_int;
}

fn last_error() -> String {
    // SAFETY: the text is valid until the next call, and copied here.
    unsafe {
        match libc::dlerror() {
            error if error.is_null() => "no error".into(),
            error => CStr::from_ptr(error).to_string_lossy().into_owned(),
        }
    }
}

fn symbol(library: Pointer, name: &str) -> Pointer {
    let text = CString::new(name).expect("names hold no zero");
    // SAFETY: the library is open.
    let address = unsafe { libc::dlsym(library, text.as_ptr()) };
    assert!(!address.is_null(), "{name}: {}", last_error());
    address
}

/// The library that `TIERMALLOC_LIB` names, loaded at the first call. Its symbols are not those of the
/// process, which goes on with the system's allocator.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let Some(path) = std::env::var_os("TIERMALLOC_LIB") else {
            eprintln!(
                "TIERMALLOC_LIB does not name the library; `cargo xtask fuzz-smoke c_surface` \
                 builds it and does"
            );
            std::process::exit(2);
        };
        let path = CString::new(path.into_vec()).expect("paths hold no zero");
        // SAFETY: the library's constructors do nothing that this process does not expect.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{}", last_error());
        // SAFETY: the library's functions have C's types.
        let found = unsafe { Library::find(library) };
        assert_ne!(
            found.malloc as usize,
            libc::malloc as *const () as usize,
            "a heap beside the process's own"
        );
        found
    })
}
