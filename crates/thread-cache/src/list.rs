//! What is found out about lists of free objects on the way: where they end, whether they are whole, whether they lie in order.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{Class, PAGE_SIZE};

/// Objects that are looked at to see whether a list lies in order; batches of fewer are never said not to.
pub(crate) const LOOKED_AT: usize = 16;
/// Of them so many may lie far from the one before, less one: where a span ends, its list goes on in another one.
const JUMPS: usize = 2;
/// What is not further apart than that is near (bytes).
const NEAR: usize = PAGE_SIZE;

/// Whether neighbours in a chain do not lie side by side: what processors fetch ahead is not what the program goes on with then,
/// and each few objects are another page.
///
/// # Safety
/// The chain owns its objects.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
pub(crate) unsafe fn is_scattered(chain: Chain) -> bool {
    if chain.count < LOOKED_AT {
        return false;
    }
    let (mut last, mut jumps) = (chain.head, 0);
    for _ in 1..LOOKED_AT {
        // SAFETY: the chain has as many.
        let next = unsafe { Chain::next(last) };
        let from = (next as usize).wrapping_sub(last as usize);
        jumps += usize::from(from.wrapping_add(NEAR) > 2 * NEAR);
        last = next;
    }
    jumps >= JUMPS
}

/// Walks `count` objects from `head` on, ends the chain there, and returns what was behind it.
///
/// Two mistakes of the program show on the way at an instruction or two for each object. A pointer
/// freed twice makes the list run in circles; a circle within these objects is seen (Brent, "An
/// improved Monte Carlo factorization algorithm", 1980, section 2: compare with a mark that moves on
/// at powers of two, here at every second one and at the last); so is the early end of a list that was
/// cut inside a circle before. A pointer into an object is seen if it is less aligned than the objects are.
///
/// # Safety
/// `head` starts a list of at least `count` objects of the caller's.
#[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
pub(crate) unsafe fn cut(class: Class, head: *mut u8, count: usize) -> Result<*mut u8, Misuse> {
    if count == 0 {
        return Ok(head);
    }
    if head.is_null() {
        return Err(Misuse::DoubleFree(head, class));
    }
    let (mut last, mut step) = (head, 1);
    // By fours, from the largest power of two below the count down.
    let mut grow = 2 - ((count - 1) | 1).ilog2() % 2;
    let mut addresses = head as usize;
    while step < count {
        let mark = last;
        let next_mark = count.min(step << grow);
        grow = 2;
        let mut follow = || {
            // SAFETY: there are `count` objects.
            let next = unsafe { Chain::next(last) };
            if next == mark || next.is_null() {
                return Err(Misuse::DoubleFree(if next.is_null() { last } else { next }, class));
            }
            addresses |= next as usize;
            last = next;
            Ok(())
        };
        // In pairs, for what it costs to count them.
        let mut left = next_mark - step;
        if left % 2 == 1 {
            follow()?;
            left -= 1;
        }
        while left > 0 {
            follow()?;
            follow()?;
            left -= 2;
        }
        step = next_mark;
    }
    if addresses & (alignment(class) - 1) != 0 {
        // SAFETY: as above.
        return Err(unsafe { first_misaligned(class, head, count) });
    }
    // SAFETY: as above.
    unsafe {
        let rest = Chain::next(last);
        if rest == last {
            return Err(Misuse::DoubleFree(last, class));
        }
        Chain::link(last, ptr::null_mut());
        Ok(rest)
    }
}

/// Checks that a list of which `left` objects are left goes on exactly if there are any: one that does
/// not ends in a circle, or was cut inside one, which is what a double free makes of it.
#[inline]
pub(crate) fn ends_with(class: Class, rest: *mut u8, left: usize) -> Result<(), Misuse> {
    if rest.is_null() == (left == 0) { Ok(()) } else { Err(Misuse::DoubleFree(rest, class)) }
}

/// What every object of a class is aligned to, given that spans are aligned to pages.
fn alignment(class: Class) -> usize {
    let size = class.size();
    (size & size.wrapping_neg()).min(PAGE_SIZE)
}

/// # Safety
/// As for [`cut`].
#[cold]
unsafe fn first_misaligned(class: Class, head: *mut u8, count: usize) -> Misuse {
    let mut object = head;
    for _ in 1..count {
        if object as usize % alignment(class) != 0 {
            break;
        }
        // SAFETY: there are `count` objects.
        object = unsafe { Chain::next(object) };
    }
    Misuse::NotAnObject(object, class)
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Objects of 64 bytes in a block of memory, linked in the order of these numbers.
    fn scattered(order: &[usize]) -> bool {
        let mut memory: Vec<[*mut u8; 8]> = Vec::new();
        memory.resize(order.iter().max().unwrap() + 1, [ptr::null_mut(); 8]);
        let mut chain = Chain::EMPTY;
        for &n in order.iter().rev() {
            // SAFETY: the memory is the test's, and each number is there once.
            unsafe { chain.push((&raw mut memory[n]).cast()) };
        }
        // SAFETY: the chain's objects are the test's.
        unsafe { is_scattered(chain) }
    }

    const PAGE: usize = PAGE_SIZE / 64;

    #[test]
    fn neighbours_within_a_page_of_each_other_are_in_order() {
        let up: Vec<usize> = (0..32).collect();
        let down: Vec<usize> = up.iter().rev().copied().collect();
        let wide: Vec<usize> = up.iter().map(|n| n * PAGE).collect();
        let widest: Vec<usize> = up.iter().map(|n| n * (PAGE + 1)).collect();
        assert_eq!(
            [&up, &down, &wide, &widest].map(|order| scattered(order)),
            [false, false, false, true]
        );
    }

    #[test]
    fn an_object_in_the_wrong_place_is_two_jumps_and_the_end_of_a_span_one() {
        // Where the list goes on in another span.
        for far in [2000, 0] {
            let spans: Vec<usize> =
                (0..8).map(|n| 1000 + n).chain((0..24).map(|n| far + n)).collect();
            assert!(!scattered(&spans));
        }
        for at in 1..31 {
            let mut order: Vec<usize> = (1000..1032).collect();
            order[at] = 0;
            // What lies behind the objects that are looked at is not seen.
            assert_eq!(scattered(&order), at + 1 < LOOKED_AT, "{at}");
        }
    }

    #[test]
    fn few_objects_are_in_order() {
        let far = |count: usize| scattered(&(0..count).map(|n| n * 1000).collect::<Vec<_>>());
        assert_eq!([LOOKED_AT - 1, LOOKED_AT].map(far), [false, true]);
    }
}
