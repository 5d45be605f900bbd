//! What is found out about lists of free objects on the way: where they end, whether they are whole, whether they lie in order.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::{Class, MAX_BATCH, PAGE_SIZE};

use crate::{ObjectSource, ThreadCache};

/// Objects of a batch of those that are to lie in order (528 bytes at most): of longer ones processors fetch ahead the lines
/// that they have themselves.
const SHORT: usize = MAX_BATCH;
/// Batches of a class that wait at the source where nobody takes them,
const ENOUGH: usize = 16;
/// while caches hold so much altogether (2 MiB): less is in the processor's own cache, in whatever order it lies.
const MUCH: usize = 2 << 20;

/// Objects of a list that are few.
const FEW: usize = 4;
/// Objects that are looked at to see whether a list lies in order; batches of fewer are never said not to.
const LOOKED_AT: usize = 16;

/// When a list is scattered.
#[derive(Clone, Copy)]
pub(crate) struct Scattered {
    /// What is not further apart than that is near (bytes).
    near: usize,
    /// From so many on that lie far from the one before.
    jumps: usize,
    /// Among the first so many.
    among: usize,
}

impl Scattered {
    /// Each few objects are another page, of which one may be the end of a span.
    const BY_PAGES: Self = Self { near: PAGE_SIZE, jumps: 2, among: LOOKED_AT };

    /// Any object lies elsewhere than beside the one before, or beside that.
    #[inline(always)]
    fn by_objects(class: Class) -> Self {
        Self { near: 2 * class.size(), jumps: 1, among: MAX_BATCH }
    }
}

impl ThreadCache {
    /// Whether a batch that goes to the source is better taken apart: it is [scattered](is_scattered), and more of its class waits there than anybody
    /// has use for. Where other caches are at work also more of all classes than a processor has at hand.
    ///
    /// Lists give out objects in the order of the frees, backwards: what a program scatters comes scattered again, and the next run of
    /// frees scatters it further, whereas out of spans objects come in order of address, and programs walk through what they allocate. The way home
    /// costs twice as much as the one into the source and out again; where several threads have objects in the same spans, much more, for each of these goes from
    /// processor to processor, and whoever waits for a batch would not have it.
    ///
    /// # Errors
    /// The chain ends early, as far as it is looked at.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[inline]
    pub(crate) unsafe fn goes_home(
        &self,
        class: Class,
        first: Chain,
        source: &impl ObjectSource,
    ) -> Result<bool, Misuse> {
        if class.batch() != SHORT || source.waiting(class) < ENOUGH {
            return Ok(false);
        }
        if self.is_alone() {
            // SAFETY: passed on to the caller.
            return unsafe { is_scattered(class, first, Scattered::by_objects(class)) };
        }
        // SAFETY: passed on to the caller.
        unsafe {
            Ok(self.used.get().saturating_add(source.cached_bytes()) >= MUCH
                && is_scattered(class, first, Scattered::BY_PAGES)?
                && source.is_own(first))
        }
    }
}

/// Whether neighbours in a chain do not lie side by side: what processors fetch ahead is not what the program goes on with then,
/// and each few objects are another page.
///
/// # Errors
/// The chain ends among those that are looked at: there was a circle, which an object freed twice makes of it.
/// Once it is known to be scattered no more are looked at.
///
/// # Safety
/// The chain owns its objects.
#[inline(never)]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
pub(crate) unsafe fn is_scattered(
    class: Class,
    chain: Chain,
    when: Scattered,
) -> Result<bool, Misuse> {
    if chain.count < LOOKED_AT {
        return Ok(false);
    }
    if chain.head.is_null() {
        return Err(Misuse::DoubleFree(chain.head, class));
    }
    let (mut last, mut left) = (chain.head, when.jumps);
    for _ in 1..when.among.min(chain.count) {
        // SAFETY: the chain has as many, and ends where it does not.
        let next = unsafe { Chain::next(last) };
        if next.is_null() {
            return Err(Misuse::DoubleFree(last, class));
        }
        let from = (next as usize).wrapping_sub(last as usize);
        if from.wrapping_add(when.near) > 2 * when.near {
            left -= 1;
            if left == 0 {
                return Ok(true);
            }
        }
        last = next;
    }
    Ok(false)
}

/// Walks `count` objects from `head` on, ends the chain there, and returns what was behind it.
///
/// Two mistakes of the program show on the way at an instruction or two for each object. A pointer
/// freed twice makes the list run in circles; a circle that a mark lies in is seen, and of any other the rest ends early (after Brent, "An
/// improved Monte Carlo factorization algorithm", 1980, section 2: compare with a mark that moves on, here once, at half of the
/// objects); so is the early end of a list that was cut inside a circle before. A pointer into an object is seen if it is less aligned than the objects are.
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
    let (last, addresses) = match count <= FEW {
        // SAFETY: passed on to the caller.
        true => unsafe { walk_few(class, head, count)? },
        // SAFETY: as above.
        false => unsafe { walk(class, head, count)? },
    };
    if addresses & (alignment(class) - 1) != 0 {
        // SAFETY: as above.
        return Err(unsafe { first_misaligned(class, head, count) });
    }
    // SAFETY: as above.
    unsafe { cut_behind(class, last) }
}

/// Ends a list at `last`, and returns what was behind it.
///
/// # Safety
/// `last` is an object of the caller's, on a list.
#[inline(always)]
pub(crate) unsafe fn cut_behind(class: Class, last: *mut u8) -> Result<*mut u8, Misuse> {
    // SAFETY: passed on to the caller.
    unsafe {
        let rest = Chain::next(last);
        if rest == last {
            return Err(Misuse::DoubleFree(last, class));
        }
        Chain::link(last, ptr::null_mut());
        Ok(rest)
    }
}

/// Walks to the last of `count` objects; returns it, and the bits that any of the addresses has.
///
/// # Safety
/// As for [`cut`], with one object at least.
#[inline(always)]
unsafe fn walk(class: Class, head: *mut u8, count: usize) -> Result<(*mut u8, usize), Misuse> {
    let (mut last, mut step, mut addresses) = (head, 1, head as usize);
    while step < count {
        let mark = last;
        let end = if step == 1 { count / 2 } else { count };
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
        let mut left = end - step;
        if left % 2 == 1 {
            follow()?;
            left -= 1;
        }
        while left > 0 {
            follow()?;
            follow()?;
            left -= 2;
        }
        step = end;
    }
    Ok((last, addresses))
}

/// [`walk`] for up to [`FEW`], which sees any circle.
///
/// # Safety
/// As for [`walk`].
#[inline(always)]
unsafe fn walk_few(class: Class, head: *mut u8, count: usize) -> Result<(*mut u8, usize), Misuse> {
    let (mut before, mut last, mut addresses) = (head, head, head as usize);
    for _ in 1..count {
        // SAFETY: there are `count` objects.
        let next = unsafe { Chain::next(last) };
        // With those before and the first one these are all that there are.
        if next.is_null() || next == last || next == before || next == head {
            return Err(Misuse::DoubleFree(if next.is_null() { last } else { next }, class));
        }
        addresses |= next as usize;
        (before, last) = (last, next);
    }
    Ok((last, addresses))
}

/// Checks that a list of which `left` objects are left goes on exactly if there are any: one that does
/// not ends in a circle, or was cut inside one, which is what a double free makes of it.
#[inline]
pub(crate) fn ends_with(class: Class, rest: *mut u8, left: usize) -> Result<(), Misuse> {
    if rest.is_null() == (left == 0) { Ok(()) } else { Err(Misuse::DoubleFree(rest, class)) }
}

/// What every object of a class is aligned to, given that spans are aligned to pages.
pub(crate) fn alignment(class: Class) -> usize {
    let size = class.size();
    (size & size.wrapping_neg()).min(PAGE_SIZE)
}

/// # Safety
/// As for [`cut`].
#[cold]
pub(crate) unsafe fn first_misaligned(class: Class, head: *mut u8, count: usize) -> Misuse {
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

    const CLASS: Class = Class::from_id(1).unwrap();

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
        unsafe { is_scattered(CLASS, chain, Scattered::BY_PAGES) }.unwrap()
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
    fn where_nobody_else_is_at_work_any_gap_of_two_objects_is_seen() {
        let alone = |order: &[usize]| {
            let mut memory: Vec<[*mut u8; 2]> = Vec::new();
            memory.resize(100, [ptr::null_mut(); 2]);
            let mut chain = Chain::EMPTY;
            for &n in order.iter().rev() {
                // SAFETY: the memory is the test's, and each number is there once.
                unsafe { chain.push((&raw mut memory[n]).cast()) };
            }
            let class = CLASS;
            assert_eq!(class.size(), 16);
            // SAFETY: the chain's objects are the test's.
            unsafe { is_scattered(class, chain, Scattered::by_objects(class)) }.unwrap()
        };
        for step in 1..4 {
            let up: Vec<usize> = (0..32).map(|n| n * step).collect();
            let down: Vec<usize> = up.iter().rev().copied().collect();
            assert_eq!([up, down].map(|order| alone(&order)), [step > 2; 2]);
        }
        for at in 1..32 {
            let gap: Vec<usize> = (0..32).map(|n| if n < at { n } else { n + 2 }).collect();
            assert!(alone(&gap), "{at}");
        }
        let few: Vec<usize> = (0..LOOKED_AT - 1).map(|n| 3 * n).collect();
        assert!(!alone(&few));
        let enough: Vec<usize> = (0..LOOKED_AT).map(|n| 3 * n).collect();
        assert!(alone(&enough));
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
    fn a_chain_that_ends_early_has_a_circle() {
        for count in 1..40 {
            let mut memory = [[ptr::null_mut::<u8>(); 8]; 40];
            let mut chain = Chain::EMPTY;
            for object in memory.iter_mut().take(count).rev() {
                // SAFETY: the memory is the test's.
                unsafe { chain.push((&raw mut *object).cast()) };
            }
            let last = (&raw mut memory[count - 1]).cast();
            // SAFETY: as above; the chain ends where it does.
            let answer =
                unsafe { is_scattered(CLASS, Chain { count: 40, ..chain }, Scattered::BY_PAGES) };
            let short = Err(Misuse::DoubleFree(last, CLASS));
            assert_eq!(answer, if count < LOOKED_AT { short } else { Ok(false) });
        }
    }

    #[test]
    fn any_circle_of_few_objects_is_seen_and_no_other_list() {
        for count in 1..=FEW {
            #[derive(Clone, Copy)]
            #[repr(align(16))]
            struct Object([*mut u8; 2]);
            let mut memory = [Object([ptr::null_mut(); 2]); FEW + 1];
            let objects: Vec<*mut u8> = memory.iter_mut().map(|o| (&raw mut o.0).cast()).collect();
            let link_all = || {
                for two in objects.windows(2) {
                    // SAFETY: the memory is the test's.
                    unsafe { Chain::link(two[0], two[1]) };
                }
            };
            for from in 0..count {
                for to in 0..=from {
                    link_all();
                    // SAFETY: as above.
                    let answer = unsafe {
                        Chain::link(objects[from], objects[to]);
                        cut(CLASS, objects[0], count)
                    };
                    // What the last one leads to is the next cut's, but for itself.
                    match from + 1 == count && to < from {
                        true => assert_eq!(answer, Ok(objects[to])),
                        false => assert_eq!(answer, Err(Misuse::DoubleFree(objects[to], CLASS))),
                    }
                }
            }
            link_all();
            // SAFETY: as above.
            assert_eq!(unsafe { cut(CLASS, objects[0], count) }, Ok(objects[count]));
        }
    }

    #[test]
    fn few_objects_are_in_order() {
        let far = |count: usize| scattered(&(0..count).map(|n| n * 1000).collect::<Vec<_>>());
        assert_eq!([LOOKED_AT - 1, LOOKED_AT].map(far), [false, true]);
    }
}
