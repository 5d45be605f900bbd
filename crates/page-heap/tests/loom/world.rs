//! What the models share: pages without memory, and a heap over them.
//!
//! The heap never touches the pages that it hands out, so the models give it addresses without memory:
//! pages 8 to 31 of a map of 4 x 8. What each page holds, and whose it is, is kept in a table, which
//! fails as soon as two own a page, an owner's contents change, or `was_zeroed` is not true. The heap's
//! records are in real memory, as ever.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;

use loom::thread::{JoinHandle, spawn};

use tiermalloc_page_heap::{PageHeap, PageSource, Span, State};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::Class;
use tiermalloc_sync::RawFutexMutex;
use tiermalloc_sync::atomic::{AtomicUsize, Ordering};

pub const PAGE: usize = 8192;
pub const FIRST_PAGE: usize = 8;
pub const END_PAGE: usize = 32;
/// Pages that a heap takes at once under loom.
pub const STEP: usize = 4;

pub type Map = PageMap<Span, 4, 8>;
pub type Heap = PageHeap<'static, RawFutexMutex, &'static Source, 4, 8>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Not mapped.
    Absent,
    /// Mapped and nobody's, with what it holds (0: it is zero).
    Idle(u8),
    /// Somebody's, with what that one wrote.
    Owned(u8),
}

/// The table of pages, and real memory for records. Its locks are std's: they are no part of what is
/// modelled.
pub struct Source {
    pub pages: StdMutex<[Page; END_PAGE]>,
    /// Pages from here on are not given out.
    pub limit: usize,
    pub records: StdMutex<Vec<(usize, Layout)>>,
    /// How many are adding a region; the heap's threads see it, so that loom lets others in meanwhile.
    pub adding: AtomicUsize,
}

impl Source {
    fn range(start: NonNull<u8>, bytes: usize) -> std::ops::Range<usize> {
        let first = start.as_ptr() as usize / PAGE;
        first..first + bytes / PAGE
    }

    /// Marks a span as somebody's, filled with `value`.
    pub fn take(&self, span: &Span, value: u8) {
        for page in &mut self.pages.lock().unwrap()[span.start()..span.end()] {
            match *page {
                Page::Idle(held) => assert!(held == 0 || !span.was_zeroed(), "not zero: {held}"),
                other => panic!("{other:?} handed out"),
            }
            *page = Page::Owned(value);
        }
    }

    /// Checks that the pages are still as their owner left them, and makes them nobody's.
    pub fn give(&self, range: std::ops::Range<usize>, value: u8) {
        for page in &mut self.pages.lock().unwrap()[range] {
            assert_eq!(*page, Page::Owned(value));
            *page = Page::Idle(value);
        }
    }
}

/// Regions of the models are 2 to 15 pages long; nodes of the map are shorter, chunks of records longer.
pub fn is_region(bytes: usize) -> bool {
    (2 * PAGE..16 * PAGE).contains(&bytes)
}

// SAFETY: pages are nobody else's and are never touched; the heap's records get real, zeroed memory.
unsafe impl PageSource for Source {
    fn os_page_size(&self) -> usize {
        PAGE
    }

    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if !is_region(bytes) {
            let layout = Layout::from_size_align(bytes, PAGE).unwrap();
            // SAFETY: the layout is not empty.
            let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            self.records.lock().unwrap().push((memory.as_ptr() as usize, layout));
            return Some(memory);
        }
        let mut pages = self.pages.lock().unwrap();
        let count = bytes / PAGE;
        let start = (FIRST_PAGE..(self.limit + 1).saturating_sub(count))
            .find(|&at| pages[at..at + count].iter().all(|page| *page == Page::Absent))?;
        pages[start..start + count].fill(Page::Idle(0));
        NonNull::new((start * PAGE) as *mut u8)
    }

    fn reserve_region(&self, bytes: usize) -> Option<NonNull<u8>> {
        // Relaxed: what it is to show is that a lock is held.
        assert_eq!(self.adding.fetch_add(1, Ordering::Relaxed), 0, "two add regions at once");
        let region = self.reserve(bytes);
        self.adding.fetch_sub(1, Ordering::Relaxed);
        region
    }

    unsafe fn release(&self, start: NonNull<u8>, bytes: usize) -> bool {
        if is_region(bytes) {
            for page in &mut self.pages.lock().unwrap()[Self::range(start, bytes)] {
                assert!(matches!(*page, Page::Idle(_)), "released {page:?}");
                *page = Page::Absent;
            }
        } else {
            let address = start.as_ptr() as usize;
            let mut records = self.records.lock().unwrap();
            let index = records.iter().position(|record| record.0 == address).unwrap();
            let (_, layout) = records.swap_remove(index);
            assert_eq!(layout.size(), bytes);
            // SAFETY: passed on to the caller.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
        true
    }

    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        for page in &mut self.pages.lock().unwrap()[Self::range(start, bytes)] {
            assert!(matches!(*page, Page::Idle(_)), "decommitted {page:?}");
            *page = Page::Idle(0);
        }
        true
    }
}

pub struct World {
    pub heap: Heap,
    pub source: &'static Source,
    /// Touched by owners between two steps: a point at which loom lets the others in, which no access of
    /// the heap would give it.
    pub gate: AtomicUsize,
}

impl World {
    /// A large span of `pages` pages, filled with `value`.
    pub fn large(&self, pages: usize, value: u8) -> Option<&'static Span> {
        let span = self.heap.alloc_large(pages, 1)?;
        // SAFETY: records live as long as their spans.
        let span = unsafe { span.as_ref() };
        assert_eq!((span.state(), span.pages()), (State::Large, pages));
        self.source.take(span, value);
        Some(span)
    }

    pub fn free_large(&self, span: &Span, value: u8) {
        self.source.give(span.start()..span.end(), value);
        // SAFETY: the span is the caller's and not used any more.
        unsafe { self.heap.free_large(span.address()) }.unwrap();
        self.gate.fetch_add(1, Ordering::Relaxed);
    }

    /// A large span that waits, `pages` pages long, filled with `value`.
    pub fn waiting(&self, pages: usize, value: u8) -> Option<&'static Span> {
        let span = self.heap.alloc_waiting(0, pages)?;
        // SAFETY: records live as long as their spans.
        let span = unsafe { span.as_ref() };
        assert_eq!((span.state(), span.pages(), span.was_zeroed()), (State::Large, pages, false));
        self.source.take(span, value);
        Some(span)
    }

    pub fn free_to_wait(&self, span: &Span, value: u8) {
        self.source.give(span.start()..span.end(), value);
        // SAFETY: the span is the caller's and not used any more.
        assert!(unsafe { self.heap.free_to_wait(0, span.address()) });
        self.gate.fetch_add(1, Ordering::Relaxed);
    }

    /// Two object spans side by side, filled with `value` and freed again; where there is no room for a run, one.
    pub fn run_of_objects(&self, class: Class, value: u8) -> bool {
        let mut spares = Vec::new();
        let first = self.heap.alloc_objects_run(class, 1, |spare| spares.push(spare));
        let spans: Vec<NonNull<Span>> = first.into_iter().chain(spares).collect();
        for span in &spans {
            // SAFETY: records live as long as their spans; nobody else has these.
            self.source.take(unsafe { span.as_ref() }, value);
        }
        self.gate.fetch_add(1, Ordering::Relaxed);
        for span in &spans {
            // SAFETY: as above, and no object of it is out.
            unsafe {
                let record = span.as_ref();
                // Something of it was used.
                let _ = record.class().map(|_| record.take_objects(1, |_, _| ()));
                let _ = record.class().map(|_| record.put_object(record.address()));
                self.source.give(record.start()..record.end(), value);
                self.heap.free_objects(*span);
            }
        }
        !spans.is_empty()
    }

    /// Takes the first region, where the race is for its pages and not about who brings it.
    pub fn grow(&self) {
        let span = self.large(1, 0).unwrap();
        self.free_large(span, 0);
    }

    /// A span of objects of a class, one of them taken, the pages filled with `value`.
    pub fn objects(&self, class: Class, value: u8) -> Option<NonNull<Span>> {
        let span = self.heap.alloc_objects(class)?;
        // SAFETY: records live as long as their spans; nobody else has this one.
        let record = unsafe { span.as_ref() };
        self.source.take(record, value);
        // Here the use count is 0, while the others do what they like.
        self.gate.fetch_add(1, Ordering::Relaxed);
        self.is_whole(record, class, 0);
        let mut address = 0;
        // SAFETY: the span is ours alone, as under its class's lock.
        assert_eq!(unsafe { record.take_objects(1, |at, _| address = at) }, 1);
        assert_eq!(address, record.address());
        self.is_whole(record, class, 1);
        Some(span)
    }

    /// An object span that nobody has merged or taken away: it is as it was handed out, and the map
    /// knows every page of it (H3).
    pub fn is_whole(&self, span: &Span, class: Class, live: usize) {
        assert_eq!(span.state(), State::Objects);
        assert_eq!((span.pages(), span.class(), span.live()), (class.pages(), Some(class), live));
        for page in span.start()..span.end() {
            assert_eq!(self.heap.map().span(page * PAGE), Some(NonNull::from(span)));
            assert_eq!(self.heap.map().class_id(page * PAGE), class.id());
        }
    }

    pub fn free_objects(&self, span: NonNull<Span>, value: u8) {
        // SAFETY: the span is ours alone; its one object comes back and is not used any more.
        unsafe {
            let record = span.as_ref();
            let _ = record.put_object(record.address());
            self.source.give(record.start()..record.end(), value);
            self.heap.free_objects(span);
        }
        self.gate.fetch_add(1, Ordering::Relaxed);
    }

    /// When nobody is at work: every free span is in the map with its first and last page only (H3),
    /// none has a free neighbour (H2), and the pages of all spans are those of the source (H4).
    pub fn check(&self) {
        let stats = self.heap.stats();
        let pages = *self.source.pages.lock().unwrap();
        let mapped = pages.iter().filter(|page| **page != Page::Absent).count();
        assert_eq!(mapped, stats.reserved_pages + stats.huge_pages);
        assert_eq!(stats.reserved_pages, stats.free_pages + stats.object_pages + stats.large_pages);
        let owned = pages.iter().filter(|page| matches!(page, Page::Owned(_))).count();
        assert_eq!(owned, stats.object_pages + stats.large_pages + stats.huge_pages);
        let mut free = 0;
        let mut page = 0;
        let mut after_free = false;
        while page < END_PAGE {
            // SAFETY: nobody changes spans meanwhile, so what the map names is there.
            let span = self.heap.map().span(page * PAGE).map(|span| unsafe { span.as_ref() });
            let is_free = span.is_some_and(|span| span.state() == State::Free);
            match span {
                Some(span) if is_free => {
                    assert!(!after_free, "free neighbours unmerged at page {page}");
                    assert_eq!(span.start(), page);
                    assert!(pages[page..span.end()].iter().all(|p| matches!(p, Page::Idle(_))));
                    let inside = page + 1..span.end() - 1;
                    assert!(inside.into_iter().all(|p| self.heap.map().span(p * PAGE).is_none()));
                    let last = self.heap.map().span((span.end() - 1) * PAGE);
                    assert_eq!(last, Some(NonNull::from(span)));
                    free += span.pages();
                    page = span.end();
                }
                Some(span) => {
                    if span.state() == State::Waiting {
                        free += span.pages();
                    }
                    page = span.end();
                }
                None => {
                    assert_eq!(pages[page], Page::Absent);
                    page += 1;
                }
            }
            after_free = is_free;
        }
        assert_eq!(free, stats.free_pages);
    }
}

/// Runs a model on a heap that can have `regions` regions of [`STEP`] pages, and checks the heap when
/// its threads are done.
pub fn model(regions: usize, f: impl Fn(&'static World) + Sync + Send + 'static) {
    loom::model(move || {
        // Threads of a model are 'static; all this is freed below, when the threads are joined.
        let source = Box::into_raw(Box::new(Source {
            pages: StdMutex::new([Page::Absent; END_PAGE]),
            limit: FIRST_PAGE + regions * STEP,
            records: StdMutex::default(),
            adding: AtomicUsize::new(0),
        }));
        let map = Box::into_raw(Box::new(Map::new()));
        // SAFETY: both are valid until freed below.
        let (source_ref, map_ref) = unsafe { (&*source, &*map) };
        let world = Box::into_raw(Box::new(World {
            heap: Heap::new(map_ref, source_ref),
            source: source_ref,
            gate: AtomicUsize::new(0),
        }));
        // SAFETY: valid until freed below.
        let world_ref: &'static World = unsafe { &*world };
        f(world_ref);
        world_ref.check();
        // SAFETY: all threads are joined; the heap goes before what it points to.
        unsafe {
            drop(Box::from_raw(world));
            drop(Box::from_raw(map));
            for (memory, layout) in (*source).records.lock().unwrap().drain(..) {
                dealloc(memory as *mut u8, layout);
            }
            drop(Box::from_raw(source));
        }
    });
}

pub fn run(world: &'static World, f: impl FnOnce(&'static World) + 'static) -> JoinHandle<()> {
    spawn(move || f(world))
}
