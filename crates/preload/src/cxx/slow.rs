//! The second half of operator new, in assembly: try, ask the new-handler, try again; throw.
//!
//! Written by hand because exceptions pass through it: the handler may throw one, and we do. Rust has
//! no frame on the stack meanwhile (a library that aborts on panic may not have one there); the frames
//! here describe themselves to the unwinder like any C++ function's. The nothrow half also catches, by
//! a table like the one that C++ compilers emit for `catch (...)`.
//!
//! ```text
//!   tiermalloc_new(size, align):              tiermalloc_new_nothrow(size, align):
//!     while ((p = try(size, align)) == 0)       while ((p = try(size, align)) == 0)
//!       if (h = handler()) h();                   if (h = handler()) try { h(); } catch (...) { return 0; }
//!       else throw bad_alloc;                     else return 0;
//!     return p;                                 return p;
//! ```

use core::arch::global_asm;
use core::ffi::c_void;

use facade::raw;

unsafe extern "C" {
    /// An allocation, or `std::bad_alloc`.
    ///
    /// # Safety
    /// `align` is a power of two. The caller's frame lets exceptions pass: it calls this last.
    pub(super) fn tiermalloc_new(size: usize, align: usize) -> *mut c_void;
    /// An allocation, or null.
    ///
    /// # Safety
    /// `align` is a power of two.
    pub(super) fn tiermalloc_new_nothrow(size: usize, align: usize) -> *mut c_void;
    /// What `new(size, align)` returns, or null if it throws.
    ///
    /// # Safety
    /// `new` is an operator new; one without alignment does not look at the second argument.
    pub(super) fn tiermalloc_new_nothrow_by(size: usize, align: usize, new: usize) -> *mut c_void;
}

/// One try.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.tiermalloc")]
extern "C" fn tiermalloc_cxx_try(size: usize, align: usize) -> *mut c_void {
    if align <= raw::MIN_ALIGN { raw::malloc(size).cast() } else { raw::alloc(size, align).cast() }
}

global_asm!(
    ".hidden tiermalloc_cxx_try",
    ".hidden tiermalloc_cxx_handler",
    ".hidden tiermalloc_cxx_bad_alloc",
    ".hidden tiermalloc_new",
    ".hidden tiermalloc_new_nothrow",
    ".hidden tiermalloc_new_nothrow_by",
);

/// The tables of a function with one call site, one landing pad, one `catch (...)`. Its labels are
/// `.Ltm_NAME` for its start, `_call`, `_called` and `_caught`.
macro_rules! catches_anything {
    ($name:literal) => {
        global_asm!(
            ".pushsection .gcc_except_table.tiermalloc, \"a\", %progbits",
            ".p2align 2",
            concat!(".Ltm_", $name, "_lsda:"),
            ".byte 0xff", // landing pads are relative to the function
            ".byte 0x9b", // types: indirect, relative, four bytes
            concat!(".uleb128 .Ltm_", $name, "_types - .Ltm_", $name, "_types_from"),
            concat!(".Ltm_", $name, "_types_from:"),
            ".byte 0x01", // call sites in uleb128
            concat!(".uleb128 .Ltm_", $name, "_sites_end - .Ltm_", $name, "_sites"),
            concat!(".Ltm_", $name, "_sites:"),
            concat!(".uleb128 .Ltm_", $name, "_call - .Ltm_", $name),
            concat!(".uleb128 .Ltm_", $name, "_called - .Ltm_", $name, "_call"),
            concat!(".uleb128 .Ltm_", $name, "_caught - .Ltm_", $name),
            ".uleb128 1",
            concat!(".Ltm_", $name, "_sites_end:"),
            ".byte 1, 0", // the action: the first type, nothing behind it
            ".p2align 2",
            ".4byte 0", // the first type: anything
            concat!(".Ltm_", $name, "_types:"),
            ".popsection",
        );
    };
}

catches_anything!("nothrow");
catches_anything!("by");

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.tiermalloc_new, \"ax\", @progbits",
    ".p2align 4",
    ".globl tiermalloc_new",
    ".type tiermalloc_new, @function",
    "tiermalloc_new:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "push rbp",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbp, -24",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 32",
    "mov rbx, rdi",
    "mov rbp, rsi",
    "2:",
    "mov rdi, rbx",
    "mov rsi, rbp",
    "call tiermalloc_cxx_try",
    "test rax, rax",
    "jne 4f",
    "call tiermalloc_cxx_handler",
    "test rax, rax",
    "je 3f",
    "call rax",
    "jmp 2b",
    "3:",
    "call tiermalloc_cxx_bad_alloc",
    "mov rdi, rax",
    "mov rsi, qword ptr [rip + tiermalloc_cxx_bad_alloc_type]",
    "mov rdx, qword ptr [rip + tiermalloc_cxx_bad_alloc_end]",
    "call qword ptr [rip + tiermalloc_cxx_throw]",
    "ud2",
    "4:",
    "add rsp, 8",
    ".cfi_def_cfa_offset 24",
    "pop rbp",
    ".cfi_def_cfa_offset 16",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new, . - tiermalloc_new",
    "",
    ".p2align 4",
    ".globl tiermalloc_new_nothrow",
    ".type tiermalloc_new_nothrow, @function",
    "tiermalloc_new_nothrow:",
    ".Ltm_nothrow:",
    ".cfi_startproc",
    ".cfi_personality 0x9b, tiermalloc_cxx_personality",
    ".cfi_lsda 0x1b, .Ltm_nothrow_lsda",
    "push rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbx, -16",
    "push rbp",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbp, -24",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 32",
    "mov rbx, rdi",
    "mov rbp, rsi",
    "2:",
    "mov rdi, rbx",
    "mov rsi, rbp",
    "call tiermalloc_cxx_try",
    "test rax, rax",
    "jne 4f",
    "call tiermalloc_cxx_handler",
    "test rax, rax",
    "je 4f", // null is the answer
    ".Ltm_nothrow_call:",
    "call rax",
    ".Ltm_nothrow_called:",
    "jmp 2b",
    ".Ltm_nothrow_caught:",
    "mov rdi, rax",
    "call qword ptr [rip + tiermalloc_cxx_begin_catch]",
    "call qword ptr [rip + tiermalloc_cxx_end_catch]",
    "xor eax, eax",
    "4:",
    "add rsp, 8",
    ".cfi_def_cfa_offset 24",
    "pop rbp",
    ".cfi_def_cfa_offset 16",
    "pop rbx",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new_nothrow, . - tiermalloc_new_nothrow",
    "",
    ".p2align 4",
    ".globl tiermalloc_new_nothrow_by",
    ".type tiermalloc_new_nothrow_by, @function",
    "tiermalloc_new_nothrow_by:",
    ".Ltm_by:",
    ".cfi_startproc",
    ".cfi_personality 0x9b, tiermalloc_cxx_personality",
    ".cfi_lsda 0x1b, .Ltm_by_lsda",
    "sub rsp, 8",
    ".cfi_def_cfa_offset 16",
    ".Ltm_by_call:",
    "call rdx",
    ".Ltm_by_called:",
    "jmp 2f",
    ".Ltm_by_caught:",
    "mov rdi, rax",
    "call qword ptr [rip + tiermalloc_cxx_begin_catch]",
    "call qword ptr [rip + tiermalloc_cxx_end_catch]",
    "xor eax, eax",
    "2:",
    "add rsp, 8",
    ".cfi_def_cfa_offset 8",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new_nothrow_by, . - tiermalloc_new_nothrow_by",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.tiermalloc_new, \"ax\", %progbits",
    ".p2align 4",
    ".globl tiermalloc_new",
    ".type tiermalloc_new, %function",
    "tiermalloc_new:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-32]!",
    ".cfi_def_cfa_offset 32",
    ".cfi_offset x29, -32",
    ".cfi_offset x30, -24",
    "stp x19, x20, [sp, #16]",
    ".cfi_offset x19, -16",
    ".cfi_offset x20, -8",
    "mov x19, x0",
    "mov x20, x1",
    "2:",
    "mov x0, x19",
    "mov x1, x20",
    "bl tiermalloc_cxx_try",
    "cbnz x0, 4f",
    "bl tiermalloc_cxx_handler",
    "cbz x0, 3f",
    "blr x0",
    "b 2b",
    "3:",
    "bl tiermalloc_cxx_bad_alloc",
    "adrp x8, tiermalloc_cxx_bad_alloc_type",
    "ldr x1, [x8, #:lo12:tiermalloc_cxx_bad_alloc_type]",
    "adrp x8, tiermalloc_cxx_bad_alloc_end",
    "ldr x2, [x8, #:lo12:tiermalloc_cxx_bad_alloc_end]",
    "adrp x8, tiermalloc_cxx_throw",
    "ldr x8, [x8, #:lo12:tiermalloc_cxx_throw]",
    "blr x8",
    "brk 1",
    "4:",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    ".cfi_def_cfa_offset 0",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new, . - tiermalloc_new",
    "",
    ".p2align 4",
    ".globl tiermalloc_new_nothrow",
    ".type tiermalloc_new_nothrow, %function",
    "tiermalloc_new_nothrow:",
    ".Ltm_nothrow:",
    ".cfi_startproc",
    ".cfi_personality 0x9b, tiermalloc_cxx_personality",
    ".cfi_lsda 0x1b, .Ltm_nothrow_lsda",
    "stp x29, x30, [sp, #-32]!",
    ".cfi_def_cfa_offset 32",
    ".cfi_offset x29, -32",
    ".cfi_offset x30, -24",
    "stp x19, x20, [sp, #16]",
    ".cfi_offset x19, -16",
    ".cfi_offset x20, -8",
    "mov x19, x0",
    "mov x20, x1",
    "2:",
    "mov x0, x19",
    "mov x1, x20",
    "bl tiermalloc_cxx_try",
    "cbnz x0, 4f",
    "bl tiermalloc_cxx_handler",
    "cbz x0, 4f", // null is the answer
    ".Ltm_nothrow_call:",
    "blr x0",
    ".Ltm_nothrow_called:",
    "b 2b",
    ".Ltm_nothrow_caught:",
    "adrp x8, tiermalloc_cxx_begin_catch",
    "ldr x8, [x8, #:lo12:tiermalloc_cxx_begin_catch]",
    "blr x8",
    "adrp x8, tiermalloc_cxx_end_catch",
    "ldr x8, [x8, #:lo12:tiermalloc_cxx_end_catch]",
    "blr x8",
    "mov x0, #0",
    "4:",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    ".cfi_def_cfa_offset 0",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new_nothrow, . - tiermalloc_new_nothrow",
    "",
    ".p2align 4",
    ".globl tiermalloc_new_nothrow_by",
    ".type tiermalloc_new_nothrow_by, %function",
    "tiermalloc_new_nothrow_by:",
    ".Ltm_by:",
    ".cfi_startproc",
    ".cfi_personality 0x9b, tiermalloc_cxx_personality",
    ".cfi_lsda 0x1b, .Ltm_by_lsda",
    "stp x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    ".Ltm_by_call:",
    "blr x2",
    ".Ltm_by_called:",
    "b 2f",
    ".Ltm_by_caught:",
    "adrp x8, tiermalloc_cxx_begin_catch",
    "ldr x8, [x8, #:lo12:tiermalloc_cxx_begin_catch]",
    "blr x8",
    "adrp x8, tiermalloc_cxx_end_catch",
    "ldr x8, [x8, #:lo12:tiermalloc_cxx_end_catch]",
    "blr x8",
    "mov x0, #0",
    "2:",
    "ldp x29, x30, [sp], #16",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "ret",
    ".cfi_endproc",
    ".size tiermalloc_new_nothrow_by, . - tiermalloc_new_nothrow_by",
    ".popsection",
);
