//! The end of a program that is wrong: one line on standard error, then abort.

use tiermalloc_size_class::Class;
use tiermalloc_thread_cache::Misuse;

use crate::line::Line;

/// Ends a program whose mistake shows when objects come back.
#[cold]
#[inline(never)]
pub(crate) fn misuse(misuse: Misuse) -> ! {
    let line = Line::new().text("free(");
    match misuse {
        Misuse::DoubleFree(object, class) => {
            line.pointer(object as usize).text("): double free").class(class).abort()
        }
        Misuse::NotAnObject(object, class) => line
            .pointer(object as usize)
            .text("): not the start of an allocation")
            .class(class)
            .abort(),
        Misuse::Foreign(object, class) => line
            .pointer(object as usize)
            .text("): memory is corrupted, this is no object of its list")
            .class(class)
            .abort(),
        _ => line.text("?): misuse").abort(),
    }
}

/// Ends a program that frees an object a second time.
#[cold]
#[inline(never)]
pub(crate) fn double_free(object: *mut u8, class: Class) -> ! {
    misuse(Misuse::DoubleFree(object, class))
}

/// Ends a program that passes `call` a pointer at which no allocation starts.
#[cold]
#[inline(never)]
pub(crate) fn not_an_allocation(call: &str, address: usize) -> ! {
    Line::new()
        .text(call)
        .text("(")
        .pointer(address)
        .text("): not the address of a live allocation")
        .abort()
}

/// Ends a program at its hard limit.
#[cold]
#[inline(never)]
pub(crate) fn hard_limit(wanted: usize, limit: usize, used: usize) -> ! {
    Line::new()
        .text("hard_limit of ")
        .digits(limit, 10)
        .text(" bytes reached: ")
        .digits(wanted, 10)
        .text(" bytes more are wanted, ")
        .digits(used, 10)
        .text(" are in use")
        .abort()
}

/// Ends a program that frees with another size, or another alignment, than it has allocated with.
#[cold]
#[inline(never)]
pub(crate) fn wrong_size(object: *mut u8, freed_as: Option<Class>, allocated: Option<Class>) -> ! {
    let line = Line::new().text("free(").pointer(object as usize).text("): freed as ");
    let line = size(line, freed_as).text(", but allocated as ");
    size(line, allocated).abort()
}

/// Ends a program that frees with an alignment that the allocation has not.
#[cold]
#[inline(never)]
pub(crate) fn wrong_align(object: *mut u8, align: usize) -> ! {
    Line::new()
        .text("free(")
        .pointer(object as usize)
        .text("): freed as aligned to ")
        .digits(align, 10)
        .text(" bytes, which it is not")
        .abort()
}

fn size(line: Line, class: Option<Class>) -> Line {
    match class {
        Some(class) => line.digits(class.size(), 10).text(" bytes"),
        None => line.text("whole pages"),
    }
}

/// Ends a program that has written to an object after it had freed it, or past the end of the one
/// before it.
#[cold]
#[inline(never)]
pub(crate) fn written_after_free(object: *mut u8, offset: usize, class: Class) -> ! {
    Line::new()
        .pointer(object as usize)
        .text(": free memory was written to, ")
        .digits(offset, 10)
        .text(" bytes behind the start of the object")
        .class(class)
        .abort()
}

/// Ends a program that passes `call` a pointer into a block of `bytes` bytes that starts elsewhere.
#[cold]
#[inline(never)]
pub(crate) fn not_the_start(call: &str, pointer: *mut u8, start: usize, bytes: usize) -> ! {
    let line = Line::new().text(call).text("(").pointer(pointer as usize);
    of_block(line.text("): not the start of an allocation, which is ").pointer(start), bytes)
}

/// Ends a program that passes `call` a pointer to a block of `bytes` bytes that it has freed.
#[cold]
#[inline(never)]
pub(crate) fn freed_before(call: &str, pointer: *mut u8, bytes: usize) -> ! {
    let line = Line::new().text(call).text("(").pointer(pointer as usize);
    of_block(line.text(if call == "free" { "): double free" } else { "): freed before" }), bytes)
}

/// Ends a program that frees a block of `bytes` bytes as one of another size.
#[cold]
#[inline(never)]
pub(crate) fn wrong_bytes(pointer: *mut u8, claimed: usize, bytes: usize) -> ! {
    let line = Line::new().text("free(").pointer(pointer as usize).text("): freed as ");
    line.digits(claimed, 10)
        .text(" bytes, but allocated as ")
        .digits(bytes, 10)
        .text(" bytes")
        .abort()
}

/// Ends a program that has written behind a block of `bytes` bytes, or in front of it; `offset` is from its start.
#[cold]
#[inline(never)]
pub(crate) fn written_around(pointer: *mut u8, offset: isize, bytes: usize) -> ! {
    let line = Line::new().text("free(").pointer(pointer as usize).text("): written to, ");
    let line = line.digits(offset.unsigned_abs(), 10);
    let side = if offset < 0 { " bytes before its start" } else { " bytes behind its start" };
    of_block(line.text(side), bytes)
}

fn of_block(line: Line, bytes: usize) -> ! {
    line.text(" (block of ").digits(bytes, 10).text(" bytes)").abort()
}
