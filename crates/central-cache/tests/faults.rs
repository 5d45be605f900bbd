//! Sources that refuse, at every point; and what a source may do while it is called.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use support::{Cache, Spans, chain_of, class_of_size, held, objects, with_cache};
use tiermalloc_central_cache::{CentralCache, SpanSource};
use tiermalloc_page_heap::Span;
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, by_size};
use tiermalloc_sync::DefaultRawMutex;

/// A source that, whenever it is called, has another thread ask the cache for statistics, which takes
/// both locks of the class: it must get its answer while the call is going on.
struct Asking<'m> {
    spans: Spans<'m>,
    told: AtomicUsize,
    ask: OnceLock<Box<dyn Fn(Class) -> bool + Send + Sync>>,
}

impl Asking<'_> {
    fn check(&self, class: Option<Class>) {
        let class = class.expect("an object span has a class");
        let answered = self.ask.get().expect("set before use")(class);
        assert!(answered, "the source was called with a lock of {class:?} held");
    }

    /// Where nobody says which class it is about.
    fn check_all(&self) {
        CLASSES.into_iter().for_each(|size| self.check(Some(class_of_size(size))));
    }
}

/// The classes of this test.
const CLASSES: [usize; 4] = [16, 1024, 24576, 256 * 1024];

// SAFETY: the spans' word, which this passes on.
unsafe impl SpanSource for Asking<'_> {
    fn alloc_span(&self, class: Class) -> Option<NonNull<Span>> {
        self.check(Some(class));
        self.spans.alloc_span(class)
    }
    unsafe fn free_span(&self, span: NonNull<Span>) {
        // SAFETY: the span is valid until it is freed below.
        self.check(unsafe { span.as_ref() }.class());
        // SAFETY: passed on to the caller.
        unsafe { self.spans.free_span(span) }
    }
    fn span_of(&self, address: usize) -> Option<NonNull<Span>> {
        self.spans.span_of(address)
    }
    fn surplus(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.check_all();
    }
    fn reserved_bytes(&self) -> usize {
        self.check_all();
        usize::MAX
    }
}

#[test]
fn no_lock_is_held_while_the_source_is_called() {
    // Leaked, because the thread that asks would outlive the test if it got no answer.
    let map: &'static PageMap<Span> = Box::leak(PageMap::boxed());
    let source = Asking { spans: Spans::new(map), told: AtomicUsize::new(0), ask: OnceLock::new() };
    let cache: &'static CentralCache<DefaultRawMutex, Asking<'static>> =
        Box::leak(Box::new(CentralCache::new(source)));
    let ask = Box::new(move |class| {
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(cache.stats(class)));
        receiver.recv_timeout(Duration::from_secs(10)) != Err(RecvTimeoutError::Timeout)
    });
    assert!(cache.source().ask.set(ask).is_ok());
    for class in CLASSES.map(class_of_size) {
        let mut all = Vec::new();
        while all.len() < 2 * class.objects() + 1 {
            all.extend(objects(cache.fetch(class, class.batch())));
        }
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(class, chain_of(&all)) }.unwrap();
        let one = cache.fetch_one(class).expect("memory").0;
        // SAFETY: as above.
        unsafe { cache.store(class, chain_of(&[one.as_ptr()])) }.unwrap();
        cache.drain(class, usize::MAX).unwrap();
    }
    let class = class_of_size(256 * 1024);
    let all: Vec<_> = (0..8).map(|_| cache.fetch(class, 1)).collect();
    for one in all {
        // SAFETY: as above.
        unsafe { cache.store(class, one) }.unwrap();
    }
    assert_eq!(cache.source().told.load(Ordering::Relaxed), 1);
    cache.drain(class, usize::MAX).unwrap();
    assert_eq!(cache.source().spans.spans_out(), 0);
}

/// Fetches and stores in a fixed order whatever it can get, and ends with nothing.
fn script(cache: &Cache<'_>) {
    let mut kept: Vec<(Class, Vec<*mut u8>)> = Vec::new();
    for class in [16, 248, 1024, 24576, 28672, 256 * 1024].map(class_of_size) {
        for wanted in [1, class.batch(), class.objects()] {
            kept.push((class, objects(cache.fetch(class, wanted))));
        }
        kept.push((
            class,
            cache.fetch_one(class).map(|(one, _)| one.as_ptr()).into_iter().collect(),
        ));
    }
    for (class, mut objects) in kept {
        objects.reverse();
        // SAFETY: the objects are ours.
        unsafe { cache.store(class, chain_of(&objects)) }.unwrap();
    }
    for class in by_size() {
        cache.drain(class, usize::MAX).unwrap();
        assert_eq!(held(cache, class), (0, 0, 0));
    }
    assert_eq!(cache.source().spans_out(), 0);
    assert_eq!(cache.source().heap_stats().object_pages, 0);
}

#[test]
fn a_source_that_refuses_its_nth_span_costs_nothing_but_the_answer() {
    for count in [1, usize::MAX] {
        let mut n = 1;
        loop {
            let mut done = false;
            with_cache(|cache| {
                cache.source().refusals.refuse(n, count);
                script(cache);
                done = cache.source().refusals.calls() < n;
                cache.source().refusals.refuse(0, 0);
                script(cache);
            });
            if done {
                break;
            }
            n += 1;
        }
        assert!(n > 15, "the script asks for spans: {n}");
    }
}

#[test]
fn pages_that_are_refused_at_the_nth_call_cost_nothing_but_the_answer() {
    for count in [1, usize::MAX] {
        let mut n = 1;
        loop {
            let mut done = false;
            with_cache(|cache| {
                cache.source().pages().refusals.refuse(n, count);
                script(cache);
                done = cache.source().pages().refusals.calls() < n;
                cache.source().pages().refusals.refuse(0, 0);
                script(cache);
            });
            if done {
                break;
            }
            n += 1;
        }
        assert!(n > 4, "the script asks for pages: {n}");
    }
}

#[test]
fn a_fork_gate_that_opens_again_leaves_every_class_in_service() {
    with_cache(|cache| {
        cache.lock_for_fork();
        // SAFETY: locked right above, by this thread.
        unsafe { cache.unlock_after_fork() };
        script(cache);
    });
}
