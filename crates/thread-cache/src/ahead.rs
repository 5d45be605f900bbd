//! Batches that name their objects ahead, so that whoever takes one can fetch all of it at once.
//!
//! A list is read one object after the other, each when the one before has come. What a long run of frees leaves behind is in no
//! processor's first cache any more, or in another processor's, and whoever takes it waits as many times as it has objects. Its second and third words are
//! free, though. When a batch is cut off the list all of its objects are walked through anyway, so they are made the nodes of a tree as
//! heaps are laid out in arrays (Williams, "Algorithm 232: Heapsort", 1964): object `n` names objects `2n` and `2n + 1`.
//!
//! ```text
//!    0 -> 1 -> 2 -> 3 -> 4 -> ... -> 31        first words: the list
//!         1: 2, 3   2: 4, 5   3: 6, 7 ...      second and third words of 1 to 15
//! ```
//!
//! The first 16 are walked through when the batch is taken, and what they name is asked for: the 32 have come after six waits or seven. The names
//! are hints. Only the list is believed, for a program may have written to what it has freed.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{Class, MAX_BATCH};
use tiermalloc_sync::prefetch;

use crate::list::{alignment, cut, first_misaligned};

/// Objects with less than three words name nothing (bytes).
const THREE_WORDS: usize = 24;

/// Whether so many objects of a class are a batch that can name them.
#[inline(always)]
fn has_names(class: Class, count: usize) -> bool {
    count == MAX_BATCH && class.size() >= THREE_WORDS
}

/// A name of an object's: its second word or its third.
///
/// # Safety
/// The object has three words.
#[inline(always)]
unsafe fn name(object: *mut u8, word: usize) -> *mut *mut u8 {
    // SAFETY: passed on to the caller.
    unsafe { object.cast::<*mut u8>().add(word) }
}

/// [`cut`], of a batch that will wait for long: it names its objects.
///
/// # Safety
/// As for [`cut`].
#[inline]
pub(crate) unsafe fn cut_with_names(
    class: Class,
    head: *mut u8,
    count: usize,
) -> Result<*mut u8, Misuse> {
    // SAFETY: passed on to the caller.
    unsafe {
        match has_names(class, count) {
            true => cut_batch(class, head),
            false => cut(class, head, count),
        }
    }
}

/// The same mistakes show as in [`cut`]: a circle is seen if the first of the objects lies in it or the middle one, or the batch is longer by it than the
/// list was.
///
/// # Safety
/// As for [`cut`], of a batch whose objects have three words.
#[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
unsafe fn cut_batch(class: Class, head: *mut u8) -> Result<*mut u8, Misuse> {
    let next = |object: *mut u8| {
        // SAFETY: an object of the batch; its link is a null where the batch ends early.
        let next = unsafe { Chain::next(object) };
        match next.is_null() || next == object {
            true => Err(Misuse::DoubleFree(object, class)),
            false => Ok(next),
        }
    };
    if head.is_null() {
        return Err(Misuse::DoubleFree(head, class));
    }
    let mut last = next(head)?;
    let (mut parent, mut addresses) = (last, head as usize | last as usize);
    for pairs in [MAX_BATCH / 4 - 1, MAX_BATCH / 4] {
        let mark = last;
        for _ in 0..pairs {
            let left = next(last)?;
            let right = next(left)?;
            if left == mark || right == mark {
                return Err(Misuse::DoubleFree(mark, class));
            }
            addresses |= left as usize | right as usize;
            // SAFETY: a free object of ours, with three words.
            unsafe {
                name(parent, 1).write(left);
                name(parent, 2).write(right);
                parent = Chain::next(parent);
            }
            last = right;
        }
    }
    // SAFETY: there are as many objects as a batch has, and they are ours.
    unsafe {
        if addresses & (alignment(class) - 1) != 0 {
            return Err(first_misaligned(class, head, MAX_BATCH));
        }
        let rest = Chain::next(last);
        if rest == last {
            return Err(Misuse::DoubleFree(last, class));
        }
        Chain::link(last, ptr::null_mut());
        Ok(rest)
    }
}

/// Asks for all objects of a batch that names them; of another one, or of fewer objects, for none.
///
/// # Safety
/// The chain owns its objects, of `class`.
#[inline(always)]
pub(crate) unsafe fn fetch_ahead(class: Class, chain: Chain) {
    // SAFETY: passed on to the caller.
    unsafe { each_named(class, chain, |object| prefetch(object)) }
}

/// Calls for each object that a batch names.
///
/// # Safety
/// As for [`fetch_ahead`].
#[inline(always)]
unsafe fn each_named(class: Class, chain: Chain, mut each: impl FnMut(*mut u8)) {
    if !has_names(class, chain.count) {
        return;
    }
    // SAFETY: the chain has so many objects, with three words each, unless it ends early because one of them was freed once more.
    // What is behind their first words may be anything.
    unsafe {
        let mut object = Chain::next(chain.head);
        if object.is_null() || Chain::next(object) != name(object, 1).read() {
            return;
        }
        each(name(object, 2).read());
        for _ in 2..MAX_BATCH / 2 {
            object = Chain::next(object);
            if object.is_null() {
                return;
            }
            each(name(object, 1).read());
            each(name(object, 2).read());
        }
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::vec::Vec;

    use tiermalloc_size_class::class_of;

    use super::*;

    const CLASS: Class = class_of(64, 8).unwrap();

    #[repr(align(64))]
    struct Object(#[allow(dead_code)] [usize; 8]);

    /// A list of so many objects of 64 bytes, in an order that is not that of their addresses.
    struct List {
        _memory: Vec<Object>,
        objects: Vec<*mut u8>,
    }

    impl List {
        fn new(count: usize) -> Self {
            let mut memory: Vec<_> = (0..count).map(|n| Object([n + 1; 8])).collect();
            let base: *mut u8 = memory.as_mut_ptr().cast();
            let at = |n: usize| base.wrapping_add(n * 37 % count * 64);
            let objects: Vec<_> = (0..count).map(at).collect();
            let nexts = objects.iter().skip(1).copied().chain([ptr::null_mut()]);
            for (&object, next) in objects.iter().zip(nexts) {
                // SAFETY: the memory is the list's.
                unsafe { Chain::link(object, next) };
            }
            Self { _memory: memory, objects }
        }

        fn cut(&self, count: usize) -> Result<*mut u8, Misuse> {
            // SAFETY: the list has as many, or a circle.
            unsafe { cut_with_names(CLASS, self.objects[0], count) }
        }

        fn named(&self, class: Class, count: usize) -> Vec<*mut u8> {
            let mut all = Vec::new();
            // SAFETY: the list has as many.
            unsafe {
                each_named(class, Chain { head: self.objects[0], count }, |object| all.push(object))
            };
            all
        }
    }

    #[test]
    fn a_batch_names_all_that_is_not_reached_in_two_steps() {
        let list = List::new(MAX_BATCH + 3);
        assert_eq!(list.cut(MAX_BATCH), Ok(list.objects[MAX_BATCH]));
        assert_eq!(list.named(CLASS, MAX_BATCH), list.objects[3..MAX_BATCH]);
        // SAFETY: as above.
        unsafe {
            for pair in list.objects[..MAX_BATCH].windows(2) {
                assert_eq!(Chain::next(pair[0]), pair[1], "the list is what it was");
            }
            assert!(Chain::next(list.objects[MAX_BATCH - 1]).is_null(), "and ends there");
        }
    }

    #[test]
    fn of_anything_else_nothing_is_named() {
        let list = List::new(MAX_BATCH);
        assert_eq!(list.named(CLASS, MAX_BATCH), [], "never cut");
        assert_eq!(list.cut(MAX_BATCH), Ok(ptr::null_mut()));
        assert_eq!(list.named(CLASS, MAX_BATCH - 1), [], "no batch");
        for (size, names) in [(16, 0), (24, 29)] {
            let class = class_of(size, 8).unwrap();
            assert_eq!((class.size(), list.named(class, MAX_BATCH).len()), (size, names));
        }
        let other = List::new(MAX_BATCH + 1);
        assert_eq!(other.cut(MAX_BATCH - 1), Ok(other.objects[MAX_BATCH - 1]));
        assert_eq!(other.named(CLASS, MAX_BATCH), []);
    }

    #[test]
    fn a_batch_that_ends_early_when_it_is_taken_names_what_comes_before() {
        for end in 0..MAX_BATCH {
            let list = List::new(MAX_BATCH);
            assert_eq!(list.cut(MAX_BATCH), Ok(ptr::null_mut()));
            // Freed once more, it is the last of another list.
            // SAFETY: the memory is the list's.
            unsafe { Chain::link(list.objects[end], ptr::null_mut()) };
            // Of 2 and later ones the names are read when the list gets there.
            let count = if end < 2 { 0 } else { 2 * end.min(MAX_BATCH / 2 - 1) - 1 };
            assert_eq!(list.named(CLASS, MAX_BATCH), list.objects[3..][..count], "{end}");
        }
    }

    /// What is seen of a list in which the link of one object leads to another one, or to none.
    fn misled(from: usize, to: Option<usize>) -> Result<*mut u8, Misuse> {
        let list = List::new(3 * MAX_BATCH);
        let to = to.map_or(ptr::null_mut(), |to| list.objects[to]);
        // SAFETY: the memory is the list's.
        unsafe { Chain::link(list.objects[from], to) };
        list.cut(MAX_BATCH)
    }

    #[test]
    fn a_list_that_ends_early_or_runs_in_a_short_circle_is_a_double_free() {
        let is_double = |answer| matches!(answer, Err(Misuse::DoubleFree(_, CLASS)));
        for from in 0..MAX_BATCH - 1 {
            assert!(is_double(misled(from, None)), "{from}");
            assert!(is_double(misled(from, Some(from))), "{from}");
            // Circles that the one in the middle lies in, and is come back to.
            for to in from.saturating_sub(MAX_BATCH / 2 - 1)..from.min(MAX_BATCH / 2) {
                assert!(is_double(misled(from, Some(to))), "{from} {to}");
            }
        }
        assert!(is_double(misled(MAX_BATCH - 1, Some(MAX_BATCH - 1))), "behind the last");
    }

    #[test]
    fn what_is_less_aligned_than_objects_are_is_named_in_the_report() {
        for at in 0..MAX_BATCH {
            let mut list = List::new(MAX_BATCH);
            let inside = list.objects[at].wrapping_add(8);
            // SAFETY: the memory is the list's; 48 bytes are left of the object.
            unsafe {
                Chain::link(inside, Chain::next(list.objects[at]));
                match at {
                    0 => list.objects[0] = inside,
                    _ => Chain::link(list.objects[at - 1], inside),
                }
            }
            assert_eq!(list.cut(MAX_BATCH), Err(Misuse::NotAnObject(inside, CLASS)), "{at}");
        }
    }
}
