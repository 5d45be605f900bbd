//! What the tests share: a page heap over memory that can refuse, wrapped into a span source that
//! keeps a list of its spans and can refuse as well.
// Every test binary is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod model;
pub mod run;
pub mod spread;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tiermalloc_central_cache::{CentralCache, Chain, ClassStats, Near, SpanSource};
use tiermalloc_page_heap::{HeapStats, PageHeap, PageSource, Span};
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, PAGE_SIZE};
use tiermalloc_sync::DefaultRawMutex;

/// Counts calls and says which of them are refused.
pub struct Refusals {
    calls: AtomicUsize,
    from: AtomicUsize,
    count: AtomicUsize,
}

impl Refusals {
    fn none() -> Self {
        Self { calls: AtomicUsize::new(0), from: AtomicUsize::new(0), count: AtomicUsize::new(0) }
    }

    /// Refuses `count` calls, the first of them the `n`-th from now (1 is the next).
    pub fn refuse(&self, n: usize, count: usize) {
        self.calls.store(0, Ordering::Relaxed);
        self.from.store(n, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }

    /// Calls since the last [`refuse`](Self::refuse).
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn refused(&self) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        call.checked_sub(self.from.load(Ordering::Relaxed))
            .is_some_and(|late| late < self.count.load(Ordering::Relaxed))
    }
}

/// Pages from std's allocator, all of them given back at the end.
pub struct Pages {
    pub refusals: Refusals,
    taken: Mutex<Vec<(usize, Layout)>>,
}

// SAFETY: std's allocator gives zeroed, aligned memory that is ours until the drop.
unsafe impl PageSource for Pages {
    fn os_page_size(&self) -> usize {
        4096
    }
    fn reserve(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.refusals.refused() {
            return None;
        }
        let layout = Layout::from_size_align(bytes, PAGE_SIZE).ok()?;
        // SAFETY: regions are not empty.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        self.taken.lock().unwrap().push((memory.as_ptr() as usize, layout));
        Some(memory)
    }
    unsafe fn release(&self, _: NonNull<u8>, _: usize) -> bool {
        false
    }
    unsafe fn decommit(&self, start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: nobody needs what the range holds.
        unsafe { start.write_bytes(0, bytes) };
        true
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for (address, layout) in self.taken.get_mut().unwrap().drain(..) {
            // SAFETY: taken with this layout, and the heap over it is gone.
            unsafe { dealloc(address as *mut u8, layout) }
        }
    }
}

/// A source of spans that knows which of them are out.
pub struct Spans<'m> {
    heap: PageHeap<'m, DefaultRawMutex, Pages>,
    /// Of spans, a run counting as one call.
    pub refusals: Refusals,
    /// Of other classes for spans that are out.
    pub recarvings: Refusals,
    /// Pages of the spans that are out, by their addresses.
    out: Mutex<BTreeMap<usize, usize>>,
    pub freed: AtomicUsize,
    /// Whether more than one span is given at a time.
    runs: AtomicBool,
    /// The runs that were given: how many further spans were wanted, and how many came.
    pub given: Mutex<Vec<(usize, usize)>>,
    /// Whether it says that memory is short, whatever there is,
    tight: AtomicBool,
    /// what it says all transfer caches may hold (bytes),
    room: AtomicUsize,
    /// and what it says it has reserved (bytes), whatever it has.
    reserved: AtomicUsize,
    /// Times that it was told of a surplus.
    told: AtomicUsize,
}

impl<'m> Spans<'m> {
    pub fn new(map: &'m PageMap<Span>) -> Self {
        let pages = Pages { refusals: Refusals::none(), taken: Mutex::new(Vec::new()) };
        Self {
            heap: PageHeap::new(map, pages),
            refusals: Refusals::none(),
            recarvings: Refusals::none(),
            out: Mutex::new(BTreeMap::new()),
            freed: AtomicUsize::new(0),
            runs: AtomicBool::new(false),
            given: Mutex::new(Vec::new()),
            tight: AtomicBool::new(false),
            room: AtomicUsize::new(usize::MAX),
            reserved: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
        }
    }

    /// Spans that were taken and not given back.
    pub fn spans_out(&self) -> usize {
        self.out.lock().unwrap().len()
    }

    /// Pages of these.
    pub fn pages_out(&self) -> usize {
        self.out.lock().unwrap().values().sum()
    }

    /// From now on, or no more, it gives several spans at a time.
    pub fn give_runs(&self, runs: bool) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// From now on, or no more, memory is short.
    pub fn tighten(&self, tight: bool) {
        self.tight.store(tight, Ordering::Relaxed);
    }

    /// From now on all transfer caches may hold so many bytes.
    pub fn make_room(&self, bytes: usize) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    fn goes_out(&self, span: NonNull<Span>) {
        // SAFETY: just allocated.
        let (address, pages) = unsafe { (span.as_ref().address(), span.as_ref().pages()) };
        let before = self.out.lock().unwrap().insert(address, pages);
        assert_eq!(before, None, "the heap gave a span out twice");
    }

    /// From now on the caches above go by a heap of so many bytes.
    pub fn reserve(&self, bytes: usize) {
        self.reserved.store(bytes, Ordering::Relaxed);
    }

    /// Times that it was told of a surplus.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    pub fn heap(&self) -> &PageHeap<'m, DefaultRawMutex, Pages> {
        &self.heap
    }

    /// The source of the heap's pages.
    pub fn pages(&self) -> &Pages {
        self.heap.source()
    }

    pub fn heap_stats(&self) -> HeapStats {
        self.heap.stats()
    }
}

// SAFETY: the page heap's word, which this passes on.
unsafe impl SpanSource for Spans<'_> {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        if self.refusals.refused() {
            return None;
        }
        let span = self.heap.alloc_objects(class)?;
        self.goes_out(span);
        Some(span)
    }
    fn alloc_span_run(
        &self,
        class: Class,
        more: usize,
        spare: &mut dyn FnMut(NonNull<Span>),
    ) -> Option<NonNull<Span>> {
        if !self.runs.load(Ordering::Relaxed) {
            return self.alloc_span(class);
        }
        if self.refusals.refused() {
            return None;
        }
        let mut came = 0;
        let span = self.heap.alloc_objects_run(class, more, |span| {
            came += 1;
            self.goes_out(span);
            spare(span);
        })?;
        self.goes_out(span);
        self.given.lock().unwrap().push((more, came));
        Some(span)
    }
    unsafe fn unregister(&self, span: NonNull<Span>) {
        // SAFETY: passed on to the caller.
        unsafe { self.heap.unregister_objects(span) }
    }
    unsafe fn recarve(&self, span: NonNull<Span>, class: Class) -> bool {
        // SAFETY: the caller's alone.
        let record = unsafe { span.as_ref() };
        assert_eq!(record.live(), 0, "a span changes its class with an object handed out");
        let known = self.out.lock().unwrap().get(&record.address()).copied();
        assert_eq!(
            known,
            Some(class.pages()),
            "a span that is out, and as long as the class wants"
        );
        // SAFETY: passed on to the caller.
        !self.recarvings.refused() && unsafe { self.heap.recarve_objects(span, class) }
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: the caller's alone until it is freed below.
        let (address, live) = unsafe { (span.as_ref().address(), span.as_ref().live()) };
        assert_eq!(live, 0, "a span is freed with an object handed out");
        assert!(self.out.lock().unwrap().remove(&address).is_some(), "a span is freed twice");
        self.freed.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        unsafe { self.heap.free_objects(span) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.heap.map().span(address)
    }
    fn surplus(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }
    fn reserved_bytes(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }
    fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }
    fn cache_room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }
}

pub type Cache<'m> = CentralCache<DefaultRawMutex, Spans<'m>>;
/// A cache as it is near one of its shards.
pub type Place<'a> = Near<'a, DefaultRawMutex, Spans<'a>>;

/// Runs a test on a central cache of its own.
pub fn with_cache<T>(test: impl FnOnce(&Cache<'_>) -> T) -> T {
    let map = PageMap::boxed();
    let cache = Box::new(Cache::new(Spans::new(&map)));
    test(&cache)
}

/// Runs a test on a central cache with so many shards.
pub fn with_shards<T>(shards: usize, test: impl FnOnce(&Cache<'_>) -> T) -> T {
    with_cache(|cache| {
        cache.widen(shards);
        assert_eq!(cache.shards(), shards);
        test(cache)
    })
}

pub fn class_of_size(size: usize) -> Class {
    let sizes = [size, size + tiermalloc_size_class::STAGGER];
    let mut classes = tiermalloc_size_class::by_size();
    classes.find(|class| sizes.contains(&class.size())).expect("a class of this size")
}

/// All objects of a chain, in order; checks that the chain is as long as it says.
pub fn objects(mut chain: Chain) -> Vec<*mut u8> {
    let mut all = Vec::with_capacity(chain.count);
    // SAFETY: the tests own the chains that they get.
    while let Some(object) = unsafe { chain.pop() } {
        all.push(object);
    }
    assert_eq!(chain.count, 0, "the chain is as long as it says");
    all
}

/// A chain of these objects in this order.
pub fn chain_of(objects: &[*mut u8]) -> Chain {
    let mut chain = Chain::EMPTY;
    for &object in objects.iter().rev() {
        // SAFETY: the tests own what they pass, or store it to see it refused.
        unsafe { chain.push(object) };
    }
    chain
}

/// Fetches until there are `count` objects.
pub fn fetch_all(cache: &Cache<'_>, class: Class, count: usize) -> Vec<*mut u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let chain = cache.fetch(class, (count - all.len()).min(class.batch()));
        assert!(chain.count > 0, "memory ran out");
        all.extend(objects(chain));
    }
    all
}

/// [`fetch_all`] near a shard. Less than a batch at a time comes from spans alone.
pub fn fetch_near(near: Place<'_>, class: Class, count: usize) -> Vec<*mut u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let chain = near.fetch(class, (count - all.len()).min(class.batch()));
        assert!(chain.count > 0, "memory ran out");
        all.extend(objects(chain));
    }
    all
}

/// A whole span of `class` near a shard that has no free object of it: all objects, in order.
pub fn whole_span(near: Place<'_>, class: Class) -> Vec<*mut u8> {
    let first = fetch_one(near, class);
    let rest = (1..class.objects()).map(|_| fetch_one(near, class));
    let all: Vec<*mut u8> = std::iter::once(first).chain(rest).collect();
    assert!(all.windows(2).all(|two| two[1] as usize - two[0] as usize == class.size()));
    all
}

/// One object from a span.
pub fn fetch_one(near: Place<'_>, class: Class) -> *mut u8 {
    near.fetch_one(class).expect("memory ran out").0.as_ptr()
}

/// Stores objects as one chain.
pub fn store_near(near: Place<'_>, class: Class, objects: &[*mut u8]) {
    // SAFETY: the test owns the objects.
    unsafe { near.store(class, chain_of(objects)) }.unwrap();
}

/// The shard that an object's span belongs to.
pub fn owner(cache: &Cache<'_>, object: *mut u8) -> usize {
    let span = cache.source().span_of(object as usize).expect("an object has a span");
    // SAFETY: the object is the test's, so the span stays.
    unsafe { span.as_ref() }.owner()
}

/// What `class` holds, as (spans, out, transfer).
pub fn held(cache: &Cache<'_>, class: Class) -> (usize, usize, usize) {
    let ClassStats { spans, out, transfer, .. } = cache.stats(class);
    (spans, out, transfer)
}

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// Stores objects as whole batches.
pub fn store_batches(cache: &Cache<'_>, class: Class, objects: &[*mut u8]) {
    for batch in objects.chunks(class.batch()) {
        // SAFETY: the test owns the objects.
        unsafe { cache.store(class, chain_of(batch)) }.unwrap();
    }
}

/// Stores objects one by one past the transfer cache.
pub fn store_each(cache: &Cache<'_>, class: Class, objects: impl IntoIterator<Item = *mut u8>) {
    for object in objects {
        // SAFETY: the test owns the object.
        unsafe { cache.store_to_spans(class, chain_of(&[object])) }.unwrap();
    }
}

/// Sends all that waits to its spans.
pub fn empty_of_all(cache: &Cache<'_>) {
    Class::all().for_each(|class| assert!(cache.drain(class, usize::MAX).is_ok()));
}
