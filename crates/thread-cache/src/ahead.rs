//! Batches that name their objects ahead, so that whoever takes one can fetch all of it at once.
//!
//! A list is read one object after the other, each when the one before has come. What a long run of frees leaves behind is in no
//! processor's first cache any more, or in another processor's, and whoever takes it waits as many times as it has objects. When a batch is cut
//! off the list all of its objects are walked through anyway, so they are made the nodes of a tree as
//! heaps are laid out in arrays (Williams, "Algorithm 232: Heapsort", 1964): the second word of object `n` names objects `2n` and `2n + 1`.
//!
//! ```text
//!    0 -> 1 -> 2 -> 3 -> 4 -> ... -> 31        first words: the list
//!         1: 2, 3   2: 4, 5   3: 6, 7 ...      second words of 1 to 15
//! ```
//!
//! The first 16 are walked through when the batch is taken, and what they name is asked for: the 32 have come after six waits or seven. The names
//! are hints, for a program may have written to what it has freed: nothing is read that the list does not lead to, and behind the second object no more of the
//! list than what the names say as well.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{Class, MAX_BATCH};
use tiermalloc_sync::prefetch;

use crate::list::{alignment, cut, cut_behind, first_misaligned};

/// Objects with one word name nothing (bytes).
const TWO_WORDS: usize = 16;
/// Objects of a batch that name others: all below, but for the first, whose second word may be somebody else's.
const NAMING: usize = MAX_BATCH / 2;

/// Whether so many objects of a class are a batch that can name them.
#[inline(always)]
fn has_names(class: Class, count: usize) -> bool {
    count == MAX_BATCH && class.size() >= TWO_WORDS
}

/// The second word of an object.
///
/// # Safety
/// The object has two words.
#[inline(always)]
unsafe fn second(object: *mut u8) -> *mut u64 {
    // SAFETY: passed on to the caller.
    unsafe { object.cast::<u64>().add(1) }
}

/// Two objects in a word, as seen from a third one: their distances in words of 8 bytes, which are right up to 8 and 16 GiB. It is odd, so that nobody takes
/// it for an address: where an object is free twice, it may be the first one of a batch that waits, whose second word leads to the next batch.
#[inline(always)]
fn names(from: *mut u8, left: *mut u8, right: *mut u8) -> u64 {
    let distance = |to: *mut u8| (to as usize).wrapping_sub(from as usize);
    u64::from((distance(left) >> 2) as u32 | 1) | u64::from((distance(right) >> 3) as u32) << 32
}

/// What was put in by [`names`], or anything.
#[inline(always)]
fn named(from: *mut u8, names: u64) -> (*mut u8, *mut u8) {
    let (left, right) = (names as i32, (names >> 32) as i32);
    (from.wrapping_offset((left as isize >> 1) << 3), from.wrapping_offset((right as isize) << 3))
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

/// The same mistakes show as in [`cut`]: of a circle of half a batch at most, if the first objects lie in it or those from the middle
/// on; of others mostly that the batch is longer than the list was. An address that is less aligned than the objects
/// are is not written to, for the second word there may be another object's first. Of objects that are not aligned to two words, which C has none of, the last
/// word is as much aligned as they are: if a program frees that, the object behind it is written to.
///
/// # Safety
/// As for [`cut`], of a batch whose objects have two words.
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
    let inside = alignment(class) - 1;
    // SAFETY: there are as many objects as a batch has, up to those that were looked at.
    let misaligned = || unsafe { first_misaligned(class, head, MAX_BATCH) };
    if head.is_null() {
        return Err(Misuse::DoubleFree(head, class));
    }
    let mut last = next(head)?;
    if (head as usize | last as usize) & inside != 0 {
        return Err(misaligned());
    }
    let mut parent = last;
    for pairs in [NAMING / 2 - 1, NAMING / 2] {
        let mark = last;
        for _ in 0..pairs {
            let left = next(last)?;
            let right = next(left)?;
            if left == mark || right == mark {
                return Err(Misuse::DoubleFree(mark, class));
            }
            if (left as usize | right as usize) & inside != 0 {
                return Err(misaligned());
            }
            // SAFETY: a free object of ours, with two words.
            unsafe {
                second(parent).write(names(parent, left, right));
                parent = Chain::next(parent);
            }
            last = right;
        }
    }
    // SAFETY: as above.
    unsafe { cut_behind(class, last) }
}

/// Asks for all objects of a batch that names them; of another one, or of fewer objects, for none.
///
/// # Safety
/// The chain owns its objects, of `class`.
#[inline(always)]
pub(crate) unsafe fn fetch_ahead(class: Class, chain: Chain) {
    // SAFETY: passed on to the caller.
    unsafe {
        if let Some(object) = root(class, chain) {
            fetch_from(object);
        }
    }
}

/// The object of a batch by which all others are named, if it names them.
///
/// # Safety
/// As for [`fetch_ahead`].
#[inline(always)]
unsafe fn root(class: Class, chain: Chain) -> Option<*mut u8> {
    if !has_names(class, chain.count) {
        return None;
    }
    // SAFETY: the chain has so many objects, with two words each, unless one of them was freed once more since they were named.
    unsafe {
        let object = Chain::next(chain.head);
        if object.is_null() {
            return None;
        }
        let next = Chain::next(object);
        let is_root = next == named(object, second(object).read()).0 && !next.is_null();
        is_root.then_some(object)
    }
}

/// # Safety
/// The object is the [`root`] of a batch.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
unsafe fn fetch_from(root: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe { each_named(root, |object| prefetch(object)) }
}

/// Calls for each object that a batch names, up to where its list is not what it names any more.
///
/// # Safety
/// The object is the [`root`] of the batch.
#[inline(always)]
unsafe fn each_named(root: *mut u8, mut each: impl FnMut(*mut u8)) {
    let mut object = root;
    let mut expected = [ptr::null_mut(); MAX_BATCH];
    for n in 1..NAMING {
        // SAFETY: an object of the batch: the list has led to it, and the one that names it.
        let (next, (left, right)) =
            unsafe { (Chain::next(object), named(object, second(object).read())) };
        (expected[2 * n], expected[2 * n + 1]) = (left, right);
        if n + 1 < NAMING && (next != expected[n + 1] || next.is_null()) {
            return;
        }
        if n > 1 {
            each(left);
        }
        each(right);
        object = next;
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
                if let Some(root) = root(class, Chain { head: self.objects[0], count }) {
                    each_named(root, |object| all.push(object));
                }
            }
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
        for (size, names) in [(8, 0), (16, 29)] {
            let class = class_of(size, 8).unwrap();
            assert_eq!((class.size(), list.named(class, MAX_BATCH).len()), (size, names));
        }
        let other = List::new(MAX_BATCH + 1);
        assert_eq!(other.cut(MAX_BATCH - 1), Ok(other.objects[MAX_BATCH - 1]));
        assert_eq!(other.named(CLASS, MAX_BATCH), []);
    }

    #[test]
    fn names_are_right_up_to_8_and_16_gib_and_wrong_beyond_and_no_addresses() {
        let from = ptr::without_provenance_mut::<u8>(1 << 46);
        const GIB: isize = 1 << 30;
        for (left, right) in
            [(8, -8), (-64, 4096), (8 * GIB - 8, -16 * GIB), (-8 * GIB, 16 * GIB - 8)]
        {
            let (left, right) = (from.wrapping_offset(left), from.wrapping_offset(right));
            assert_eq!(named(from, names(from, left, right)), (left, right));
            assert_eq!(names(from, left, right) % 2, 1);
        }
        for far in [8 * GIB, -8 * GIB - 8] {
            let far = from.wrapping_offset(far);
            assert_ne!(named(from, names(from, far, from)).0, far);
        }
    }

    #[test]
    fn a_list_that_leads_elsewhere_than_the_names_is_not_followed() {
        for from in 1..NAMING - 1 {
            let list = List::new(MAX_BATCH);
            assert_eq!(list.cut(MAX_BATCH), Ok(ptr::null_mut()));
            // What a program writes there; nothing lies at that address.
            // SAFETY: the memory is the list's.
            unsafe { Chain::link(list.objects[from], ptr::without_provenance_mut(0x1234)) };
            let count = (2 * from).saturating_sub(3);
            assert_eq!(list.named(CLASS, MAX_BATCH), list.objects[3..][..count], "{from}");
        }
    }

    #[test]
    fn a_batch_that_ends_early_when_it_is_taken_names_what_comes_before() {
        for end in 0..MAX_BATCH {
            let list = List::new(MAX_BATCH);
            assert_eq!(list.cut(MAX_BATCH), Ok(ptr::null_mut()));
            // Freed once more, it is the last of another list.
            // SAFETY: the memory is the list's.
            unsafe { Chain::link(list.objects[end], ptr::null_mut()) };
            // The names of those before it are followed.
            let last = if end < NAMING - 1 { end } else { NAMING };
            let count = (2 * last).saturating_sub(3);
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
            // SAFETY: the memory is the list's; 56 bytes are left of the object.
            unsafe {
                Chain::link(inside, Chain::next(list.objects[at]));
                match at {
                    0 => list.objects[0] = inside,
                    _ => Chain::link(list.objects[at - 1], inside),
                }
            }
            let behind = inside.wrapping_add(8).cast::<usize>();
            // SAFETY: as above.
            let before = unsafe { behind.read() };
            assert_eq!(list.cut(MAX_BATCH), Err(Misuse::NotAnObject(inside, CLASS)), "{at}");
            // SAFETY: as above.
            assert_eq!(unsafe { behind.read() }, before, "it is somebody's");
        }
    }
}
