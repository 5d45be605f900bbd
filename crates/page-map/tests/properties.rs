//! Any sequence of ensure, set and clear against a table of pages: the map answers like the table, for
//! every page and in every shape.
#![cfg(not(tiermalloc_loom))]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;

use proptest::prelude::*;
use tiermalloc_page_map::{MapMemory, PageMap};

const PAGE: usize = 8192;
/// Pages that the model looks at: several leaves and roots of each shape below.
const PAGES: usize = 160;

/// Leaves from std's allocator, refused when told to, freed at the end.
#[derive(Default)]
struct Memory {
    refuse: Cell<bool>,
    given: RefCell<Vec<(NonNull<u8>, Layout)>>,
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl MapMemory for Memory {
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.refuse.get() {
            return None;
        }
        // SAFETY: leaves and roots are not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        self.given.borrow_mut().push((memory, layout));
        Some(memory)
    }
    unsafe fn free(&self, _: NonNull<u8>, _: Layout) {
        unreachable!("one thread never loses a race for a leaf");
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (memory, layout) in self.given.take() {
            // SAFETY: the map, dropped before, was the only one to use it.
            unsafe { dealloc(memory.as_ptr(), layout) }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Make room for these pages; the source refuses or does not.
    Ensure(usize, usize, bool),
    Set(usize, usize, u8),
    Clear(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let run = || (1..PAGES, 1..24usize).prop_map(|(page, n)| (page, n.min(PAGES - page)));
    prop_oneof![
        (run(), any::<bool>()).prop_map(|((page, n), refuse)| Step::Ensure(page, n, refuse)),
        (run(), 0..=208u8).prop_map(|((page, n), class)| Step::Set(page, n, class)),
        run().prop_map(|(page, n)| Step::Clear(page, n)),
    ]
}

fn check<const ROOT: usize, const LEAF: usize>(steps: &[Step]) -> Result<(), TestCaseError> {
    let memory = Memory::default();
    let map = PageMap::<u16, ROOT, LEAF>::new();
    let spans: Vec<u16> = (0..steps.len() as u16).collect();
    let mut roomy = [false; PAGES];
    let mut model = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Ensure(page, n, refuse) => {
                memory.refuse.set(refuse);
                if map
                    .ensure(page * PAGE + number % PAGE, n * PAGE - number % PAGE, &memory)
                    .is_ok()
                {
                    roomy[page..page + n].fill(true);
                } else {
                    prop_assert!(refuse);
                }
            }
            Step::Set(page, n, class) => {
                let n = roomy[page..page + n].iter().take_while(|&&roomy| roomy).count();
                // SAFETY: the only writer, and the pages were ensured.
                unsafe { map.set(page, n, NonNull::from(&spans[number]), class) };
                model.extend((page..page + n).map(|page| (page, (number as u16, class))));
            }
            Step::Clear(page, n) => {
                // SAFETY: the only writer.
                unsafe { map.clear(page, n) };
                model.retain(|&at, _| !(page..page + n).contains(&at));
            }
        }
        for page in 0..PAGES {
            let address = page * PAGE + (number * 97) % PAGE;
            let expected = model.get(&page);
            // SAFETY: the spans outlive the map.
            let span = map.span(address).map(|span| unsafe { *span.as_ref() });
            prop_assert_eq!(span, expected.map(|entry| entry.0), "page {}", page);
            let class = expected.map_or(0, |entry| entry.1 as usize);
            prop_assert_eq!(map.class_id(address), class, "page {}", page);
            // SAFETY: nobody writes meanwhile. Before the first region, the window lies at zero.
            if let Some(at_home) = unsafe { map.home_class_id(address) } {
                prop_assert_eq!(at_home, class, "page {}", page);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_map_is_the_table_in_every_shape(steps in prop::collection::vec(step(), 1..40)) {
        check::<8, 16>(&steps)?;
        check::<2, 64>(&steps)?;
        check::<1, 8>(&steps)?;
        check::<4, 4>(&steps)?;
        check::<16, 1>(&steps)?;
    }

    #[test]
    fn no_address_is_too_odd_to_look_up(address: usize, known in 1..1usize << 43) {
        static MAP: PageMap<u16> = PageMap::new();
        static SPAN: u16 = 1;
        let memory = Memory::default();
        let page = address / PAGE;
        prop_assert!(MAP.span(address).is_none());
        prop_assert_eq!(MAP.class_id(address), 0);
        // Ensured places stay: leaves of a static map are never freed, so keep them.
        if MAP.ensure(known * PAGE, PAGE, &memory).is_ok() {
            // SAFETY: the page's one writer.
            unsafe { MAP.set(known, 1, NonNull::from(&SPAN), 1) };
            prop_assert_eq!(MAP.class_id(known * PAGE + PAGE - 1), 1);
            prop_assert_eq!(MAP.span(address).is_some(), known == page);
            // SAFETY: as above.
            unsafe { MAP.clear(known, 1) };
        }
        std::mem::forget(memory);
    }
}
