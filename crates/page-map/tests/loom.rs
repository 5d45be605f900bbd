//! Models of the map: what a reader may see while others write.
//!
//! The maps are tiny (leaves of 8 pages, roots of 2 entries), the functions are the shipped ones.
//! Spans are loom cells, so that a reader that got a pointer without the writes behind it fails.
#![cfg(tiermalloc_loom)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex as StdMutex};

use loom::cell::UnsafeCell;
use loom::thread;

use tiermalloc_page_map::{MapMemory, PageMap};
use tiermalloc_sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 8192;
/// The home window is 8 pages around the first address: with this one, pages 33 to 40.
const HOME_PAGE: usize = 40;
/// Under the second leaf of the first root, outside the home window.
const TREE_PAGE: usize = 9;
/// Beyond the first root: in need of a root and a leaf.
const FAR_PAGE: usize = 20;
const CLASS: u8 = 200;

type Map = PageMap<Payload, 2, 8>;

/// Stands for a span: loom fails on a read that the write does not happen before.
struct Payload(UnsafeCell<u32>);

impl Payload {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }
    fn write(&self, value: u32) {
        // SAFETY: the model's point: loom checks that nobody reads meanwhile.
        self.0.with_mut(|cell| unsafe { *cell = value });
    }
    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|cell| unsafe { *cell })
    }
}

/// Leaves from std's allocator; what was not given back goes at the end of each execution. Its own
/// lock is std's: it is no part of what is modelled.
#[derive(Default)]
struct Memory(StdMutex<Vec<(usize, Layout)>>);

impl Memory {
    fn given(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl MapMemory for Memory {
    fn alloc_zeroed(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: leaves and roots are not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        self.0.lock().unwrap().push((memory.as_ptr() as usize, layout));
        Some(memory)
    }
    unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
        let entry = (memory.as_ptr() as usize, layout);
        let mut given = self.0.lock().unwrap();
        let index = given.iter().position(|&one| one == entry).expect("freed what was given");
        given.swap_remove(index);
        // SAFETY: passed on to the caller.
        unsafe { dealloc(memory.as_ptr(), layout) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for (memory, layout) in self.0.get_mut().unwrap().drain(..) {
            // SAFETY: the map, dropped before, was the only one to use it.
            unsafe { dealloc(memory as *mut u8, layout) }
        }
    }
}

struct World {
    map: Map,
    spans: [Payload; 2],
    handed_out: AtomicBool,
    memory: Memory,
}

// SAFETY: the payloads are what loom watches; everything else is shared already.
unsafe impl Sync for World {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for World {}

impl World {
    fn empty() -> Arc<Self> {
        Arc::new(Self {
            map: Map::new(),
            spans: [Payload::new(), Payload::new()],
            handed_out: AtomicBool::new(false),
            memory: Memory::default(),
        })
    }
    /// With the home window in its place.
    fn new() -> Arc<Self> {
        let world = Self::empty();
        world.ensure(HOME_PAGE, 1);
        world
    }
    fn ensure(&self, page: usize, pages: usize) {
        self.map.ensure(page * PAGE, pages * PAGE, &self.memory).unwrap();
    }
    fn set(&self, page: usize, pages: usize, span: usize) {
        // SAFETY: each page has one writer in each model.
        unsafe { self.map.set(page, pages, NonNull::from(&self.spans[span]), CLASS) };
    }
    fn seen(&self, page: usize) -> Option<&Payload> {
        // SAFETY: the spans live as long as the world.
        self.map.span(page * PAGE).map(|span| unsafe { span.as_ref() })
    }
    fn class(&self, page: usize) -> usize {
        self.map.class_id(page * PAGE)
    }
}

fn spawn(world: &Arc<World>, f: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    thread::spawn(move || f(&world))
}

// The writer is the main thread in each model, because loom runs it first: every read of the other
// thread then branches over what it may see. (loom remembers only the last access of each atomic, so a
// reader that went first would be forgotten once the writer has read the same word.)

/// While a leaf and a span in it are published, a reader finds nothing or a span with all that was
/// written to it before (M2, M3: release in `publish` and `set`, acquire in `locate` and `span`).
#[test]
fn a_reader_of_a_new_leaf_sees_nothing_or_all_of_the_span() {
    for page in [TREE_PAGE, FAR_PAGE] {
        loom::model(move || {
            let world = World::new();
            let reader = spawn(&world, move |world| {
                let class = world.class(page);
                assert!(class == 0 || class == CLASS as usize);
                if let Some(span) = world.seen(page) {
                    assert_eq!(span.read(), 42);
                }
            });
            world.spans[0].write(42);
            world.ensure(page, 1);
            world.set(page, 1, 0);
            reader.join().unwrap();
        });
    }
}

/// The same in the home window, page by page of one span: what a reader sees of it is whole.
#[test]
fn a_reader_of_the_home_window_sees_nothing_or_all_of_the_span() {
    loom::model(|| {
        let world = World::new();
        let reader = spawn(&world, |world| {
            for page in [HOME_PAGE, HOME_PAGE - 1] {
                if let Some(span) = world.seen(page) {
                    assert_eq!(span.read(), 42);
                }
            }
        });
        world.spans[0].write(42);
        world.set(HOME_PAGE - 1, 2, 0);
        reader.join().unwrap();
    });
}

/// A page that changes hands: a reader sees the old span, none, or the new one, each whole, and
/// nobody's class but theirs (M3, M4).
#[test]
fn a_reader_of_a_page_that_changes_hands_sees_one_of_its_spans_whole() {
    loom::model(|| {
        let world = World::new();
        world.spans[0].write(1);
        world.set(HOME_PAGE, 1, 0);
        let reader = spawn(&world, |world| {
            let class = world.class(HOME_PAGE);
            assert!(class == 0 || class == CLASS as usize);
            match world.seen(HOME_PAGE) {
                Some(span) if std::ptr::eq(span, &raw const world.spans[0]) => {
                    assert_eq!(span.read(), 1);
                }
                Some(span) => assert_eq!(span.read(), 2),
                None => {}
            }
        });
        // SAFETY: the page's one writer.
        unsafe { world.map.clear(HOME_PAGE, 1) };
        world.spans[1].write(2);
        world.set(HOME_PAGE, 1, 1);
        reader.join().unwrap();
    });
}

/// A thread that was handed an address finds its class and span at once, by every road, while the
/// entries next to it change.
#[test]
fn who_is_handed_an_address_finds_its_span() {
    for page in [HOME_PAGE - 1, TREE_PAGE] {
        loom::model(move || {
            let world = World::new();
            let reader = spawn(&world, move |world| {
                if !world.handed_out.load(Ordering::Acquire) {
                    return;
                }
                assert_eq!(world.class(page), CLASS as usize);
                assert_eq!(world.seen(page).map(Payload::read), Some(42));
                // SAFETY: the page's entry does not change any more.
                if let Some(class) = unsafe { world.map.home_class_id(page * PAGE) } {
                    assert_eq!(class, CLASS as usize);
                }
            });
            world.spans[0].write(42);
            world.ensure(page, 2);
            world.set(page, 1, 0);
            world.handed_out.store(true, Ordering::Release);
            world.set(page + 1, 1, 1);
            // SAFETY: the page's one writer.
            unsafe { world.map.clear(page + 1, 1) };
            reader.join().unwrap();
            assert!(world.seen(page + 1).is_none());
            assert_eq!(world.class(page + 1), 0);
        });
    }
}

/// Two threads that need the same leaf (and root) at once agree on one: no entry is lost, and the
/// other's memory goes back.
#[test]
fn two_threads_ensuring_one_leaf_share_it() {
    for (page, nodes) in [(TREE_PAGE, 1), (FAR_PAGE, 2)] {
        loom::model(move || {
            let world = World::new();
            let other = spawn(&world, move |world| {
                world.ensure(page, 1);
                world.spans[0].write(1);
                world.set(page, 1, 0);
            });
            world.ensure(page + 1, 1);
            world.spans[1].write(2);
            world.set(page + 1, 1, 1);
            other.join().unwrap();
            assert_eq!(world.seen(page).map(Payload::read), Some(1));
            assert_eq!(world.seen(page + 1).map(Payload::read), Some(2));
            assert_eq!(world.memory.given(), nodes);
        });
    }
}

/// When two threads bring the first two regions at once, one of them places the home window, and
/// every page has one place in the map (M1).
#[test]
fn two_first_regions_agree_on_the_home_window() {
    loom::model(|| {
        let world = World::empty();
        let other = spawn(&world, |world| {
            world.ensure(TREE_PAGE, 1);
            world.set(TREE_PAGE, 1, 0);
            assert_eq!(world.class(TREE_PAGE), CLASS as usize);
        });
        world.ensure(FAR_PAGE, 1);
        world.set(FAR_PAGE, 1, 1);
        assert_eq!(world.class(FAR_PAGE), CLASS as usize);
        other.join().unwrap();
        let mut at_home = 0;
        for (page, span) in [(TREE_PAGE, 0), (FAR_PAGE, 1)] {
            let seen = world.seen(page).expect("registered");
            assert!(std::ptr::eq(seen, &raw const world.spans[span]));
            // SAFETY: nobody writes any more.
            if let Some(class) = unsafe { world.map.home_class_id(page * PAGE) } {
                assert_eq!(class, CLASS as usize);
                at_home += 1;
            }
        }
        assert_eq!(at_home, 1);
    });
}

/// An address that is nobody's stays nobody's, whatever is being published meanwhile.
#[test]
fn a_foreign_address_is_not_mine_at_any_moment() {
    loom::model(|| {
        let world = World::new();
        let reader = spawn(&world, |world| {
            for page in [0, TREE_PAGE + 1, FAR_PAGE, HOME_PAGE - 1, usize::MAX / PAGE] {
                assert!(world.seen(page).is_none());
                assert_eq!(world.class(page), 0);
            }
        });
        world.ensure(TREE_PAGE, 1);
        world.set(TREE_PAGE, 1, 0);
        world.set(HOME_PAGE, 1, 1);
        reader.join().unwrap();
    });
}
