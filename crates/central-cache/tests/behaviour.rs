//! What the central cache promises, one promise a test.
#![cfg(not(tiermalloc_loom))]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use support::{Cache, Spans, chain_of, class_of_size, fetch_all, objects, with_cache};
use tiermalloc_central_cache::{CentralCache, Chain, ClassStats, Misuse, SpanSource};
use tiermalloc_page_heap::Span;
use tiermalloc_page_map::PageMap;
use tiermalloc_size_class::{Class, PAGE_SIZE, by_size};
use tiermalloc_sync::DefaultRawMutex;

/// What `class` holds, as (spans, out, transfer).
fn held(cache: &Cache<'_>, class: Class) -> (usize, usize, usize) {
    let ClassStats { spans, out, transfer, .. } = cache.stats(class);
    (spans, out, transfer)
}

/// Stores objects one by one past the transfer cache.
fn store_each(cache: &Cache<'_>, class: Class, objects: impl IntoIterator<Item = *mut u8>) {
    for object in objects {
        // SAFETY: the test owns the object.
        unsafe { cache.store_to_spans(class, chain_of(&[object])) }.unwrap();
    }
}

#[test]
fn every_class_serves_whole_spans_of_disjoint_objects_and_takes_them_back() {
    with_cache(|cache| {
        for class in by_size() {
            let all = fetch_all(cache, class, 2 * class.objects() + 1);
            let distinct: BTreeSet<_> = all.iter().map(|&object| object as usize).collect();
            assert_eq!(distinct.len(), all.len());
            let apart = distinct.iter().zip(distinct.iter().skip(1));
            assert!(apart.clone().all(|(a, b)| b - a >= class.size()), "{class:?}");
            assert_eq!(held(cache, class), (3, all.len(), 0));
            store_each(cache, class, all);
            assert_eq!(held(cache, class), (0, 0, 0));
        }
        assert_eq!(cache.source().spans_out(), 0);
        assert_eq!(cache.source().heap_stats().object_pages, 0);
    });
}

#[test]
fn a_fresh_span_is_carved_in_order_of_address() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let all = fetch_all(cache, class, class.objects());
        assert!(all.windows(2).all(|pair| pair[1] as usize - pair[0] as usize == 64));
        assert_eq!(all[0] as usize % PAGE_SIZE, 0);
        store_each(cache, class, all);
    });
}

#[test]
fn a_batch_reaches_the_next_thread_as_it_came_the_newest_first() {
    with_cache(|cache| {
        let class = class_of_size(2048);
        let all = fetch_all(cache, class, 3 * class.batch());
        for batch in all.chunks(class.batch()) {
            // SAFETY: the objects are ours.
            unsafe { cache.store(class, chain_of(batch)) }.unwrap();
        }
        assert_eq!(cache.stats(class).transfer, 3 * class.batch());
        for batch in all.chunks(class.batch()).rev() {
            assert_eq!(objects(cache.fetch(class, class.batch())), batch);
        }
        store_each(cache, class, all);
    });
}

#[test]
fn less_than_a_batch_comes_from_the_spans_and_goes_to_them() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        let batch = fetch_all(cache, class, class.batch());
        // SAFETY: the objects are ours.
        unsafe { cache.store(class, chain_of(&batch)) }.unwrap();
        assert_eq!(held(cache, class), (4, 32, 32));
        let some = objects(cache.fetch(class, class.batch() - 1));
        assert_eq!(cache.stats(class).transfer, 32, "a whole batch stays whole");
        // SAFETY: as above.
        unsafe { cache.store(class, chain_of(&some)) }.unwrap();
        assert_eq!(held(cache, class), (4, 32, 32));
        assert_eq!(cache.drain(class, usize::MAX), Ok(32));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
}

#[test]
fn the_transfer_cache_keeps_at_most_256_kib_and_28_batches_of_each_class() {
    with_cache(|cache| {
        for class in by_size() {
            let room = (256 * 1024 / (class.batch() * class.size())).min(28);
            let all = fetch_all(cache, class, (room + 1) * class.batch());
            let mut batches = all.chunks(class.batch());
            for kept in 1..=room {
                // SAFETY: the objects are ours.
                unsafe { cache.store(class, chain_of(batches.next().unwrap())) }.unwrap();
                assert_eq!(cache.stats(class).transfer, kept * class.batch(), "{class:?}");
            }
            // SAFETY: as above.
            unsafe { cache.store(class, chain_of(batches.next().unwrap())) }.unwrap();
            let now = cache.stats(class);
            assert_eq!(now.transfer, room * class.batch(), "{class:?}: full is full");
            assert_eq!(now.out, now.transfer, "{class:?}: the last batch went to the spans");
            assert_eq!(cache.drain(class, usize::MAX), Ok(room * class.batch()));
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn objects_come_from_the_fullest_span() {
    with_cache(|cache| {
        // Four spans of eight objects, with 1, 7, 3 and 5 of them free.
        let class = class_of_size(1024);
        let all = fetch_all(cache, class, 32);
        let mut of_span: BTreeMap<usize, Vec<*mut u8>> = BTreeMap::new();
        for object in all {
            of_span.entry(object as usize & !(PAGE_SIZE - 1)).or_default().push(object);
        }
        let spans: Vec<Vec<*mut u8>> = of_span.into_values().collect();
        for (span, free) in spans.iter().zip([1, 7, 3, 5]) {
            store_each(cache, class, span[..free].iter().copied());
        }
        let got = objects(cache.fetch(class, 16));
        let expected: Vec<*mut u8> =
            [&spans[0][..1], &spans[2][..3], &spans[3][..5], &spans[1][..7]].concat();
        assert_eq!(got, expected);
        store_each(cache, class, spans.into_iter().flatten());
    });
}

#[test]
fn a_chain_that_empties_more_spans_than_one_turn_collects_frees_them_all() {
    with_cache(|cache| {
        let class = class_of_size(256 * 1024);
        let all = fetch_all(cache, class, 50);
        assert_eq!(cache.source().spans_out(), 50);
        // SAFETY: the objects are ours.
        unsafe { cache.store_to_spans(class, chain_of(&all)) }.unwrap();
        assert_eq!(cache.source().spans_out(), 0);
        assert_eq!(cache.source().freed.load(Ordering::Relaxed), 50);
    });
}

/// A source that, whenever it is called, has another thread ask the cache for statistics, which takes
/// both locks of the class: it must get its answer while the call is going on.
struct Asking<'m> {
    spans: Spans<'m>,
    ask: OnceLock<Box<dyn Fn(Class) -> bool + Send + Sync>>,
}

impl Asking<'_> {
    fn check(&self, class: Option<Class>) {
        let class = class.expect("an object span has a class");
        let answered = self.ask.get().expect("set before use")(class);
        assert!(answered, "the source was called with a lock of {class:?} held");
    }
}

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
}

#[test]
fn no_lock_is_held_while_the_source_is_called() {
    // Leaked, because the thread that asks would outlive the test if it got no answer.
    let map: &'static PageMap<Span> = Box::leak(PageMap::boxed());
    let source = Asking { spans: Spans::new(map), ask: OnceLock::new() };
    let cache: &'static CentralCache<DefaultRawMutex, Asking<'static>> =
        Box::leak(Box::new(CentralCache::new(source)));
    let ask = Box::new(move |class| {
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send(cache.stats(class)));
        receiver.recv_timeout(Duration::from_secs(10)) != Err(RecvTimeoutError::Timeout)
    });
    assert!(cache.source().ask.set(ask).is_ok());
    for class in [16, 1024, 24576, 256 * 1024].map(class_of_size) {
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
    assert_eq!(cache.source().spans.spans_out(), 0);
}

#[test]
fn an_object_is_known_to_be_zero_exactly_when_it_was_never_handed_out() {
    with_cache(|cache| {
        let class = class_of_size(1024);
        // Another object keeps the span in its class.
        let (keeper, zeroed) = cache.fetch_one(class).unwrap();
        assert!(zeroed, "the first object of fresh memory");
        for _ in 1..class.objects() {
            let (object, zeroed) = cache.fetch_one(class).unwrap();
            assert!(zeroed);
            // SAFETY: the object is ours and 1024 bytes long.
            unsafe {
                let bytes = std::slice::from_raw_parts(object.as_ptr().add(8), 1016);
                assert!(bytes.iter().all(|&byte| byte == 0));
                object.write_bytes(0xff, 1024);
            }
            store_each(cache, class, [object.as_ptr()]);
            let (again, zeroed) = cache.fetch_one(class).unwrap();
            assert_eq!((again, zeroed), (object, false), "handed out before");
        }
        // Back to the heap and out again: the pages are not known to be zero any more.
        let span = keeper.as_ptr() as usize & !(PAGE_SIZE - 1);
        store_each(cache, class, (0..8).map(|i| (span + i * 1024) as *mut u8));
        assert_eq!(held(cache, class), (0, 0, 0));
        let (object, zeroed) = cache.fetch_one(class).unwrap();
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr().add(8), 1016) };
        assert!(!zeroed || bytes.iter().all(|&byte| byte == 0));
        store_each(cache, class, [object.as_ptr()]);
    });
}

#[test]
fn a_double_free_is_reported_and_what_lies_behind_it_is_left_alone() {
    with_cache(|cache| {
        for class in [16, 248, 1024, 28672, 30720].map(class_of_size) {
            let all = fetch_all(cache, class, class.objects());
            let last = *all.last().unwrap();
            // The last object keeps the span in the class.
            store_each(cache, class, [all[0]]);
            let out = cache.stats(class).out;
            // SAFETY: the misuse is the point; the cache checks each object.
            let answer = unsafe { cache.store_to_spans(class, chain_of(&[all[0], last])) };
            assert_eq!(answer, Err(Misuse::DoubleFree(all[0], class)));
            assert_eq!(cache.stats(class).out, out, "nothing was taken back");
            store_each(cache, class, all.into_iter().skip(1));
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn a_double_free_within_one_chain_is_reported_also_when_the_span_has_emptied_in_between() {
    with_cache(|cache| {
        for class in [1024, 28672, 262144].map(class_of_size) {
            let all = fetch_all(cache, class, 2 * class.objects());
            let (first, second) = all.split_at(class.objects());
            let chain: Vec<*mut u8> = first.iter().chain(&second[..1]).copied().collect();
            // Linking the first object a second time makes the chain a circle.
            let mut circle = chain_of(&chain);
            circle.count += 1;
            // SAFETY: the misuse is the point.
            unsafe { Chain::link(second[0], first[0]) };
            // SAFETY: as above.
            let answer = unsafe { cache.store_to_spans(class, circle) };
            assert_eq!(answer, Err(Misuse::DoubleFree(first[0], class)));
            assert_eq!(cache.source().spans_out(), cache.stats(class).spans, "freed once");
            store_each(cache, class, second.iter().skip(1).copied());
            assert_eq!(held(cache, class), (0, 0, 0));
        }
    });
}

#[test]
fn objects_before_a_misplaced_one_are_taken_back() {
    with_cache(|cache| {
        let class = class_of_size(768);
        let all = fetch_all(cache, class, class.objects());
        let middle = all[5].wrapping_add(16);
        // SAFETY: as above; the objects from the sixth on are not used.
        let answer = unsafe { cache.store_to_spans(class, chain_of(&[all[0], all[1], middle])) };
        assert_eq!(answer, Err(Misuse::NotAnObject(middle, class)));
        assert_eq!(cache.stats(class).out, class.objects() - 2);
        store_each(cache, class, all.into_iter().skip(2));
    });
}

#[test]
fn every_address_of_a_span_that_is_not_an_object_is_reported() {
    with_cache(|cache| {
        // With a tail that no object covers, without one, and with free bits inside the record.
        for class in [768, 1024, 2304, 34816].map(class_of_size) {
            let all = fetch_all(cache, class, class.objects());
            let start = all[0] as usize;
            for offset in (0..class.pages() * PAGE_SIZE).step_by(8) {
                let address = (start + offset) as *mut u8;
                let starts = all.contains(&address);
                assert_eq!(cache.is_object(class, address as usize), starts, "{class:?} {offset}");
                if !starts {
                    let chain = Chain { head: address, count: 1 };
                    // SAFETY: the misuse is the point; the memory is ours to read a link from.
                    let answer = unsafe { cache.store_to_spans(class, chain) };
                    assert_eq!(answer, Err(Misuse::NotAnObject(address, class)));
                }
            }
            assert_eq!(cache.stats(class).out, class.objects());
            store_each(cache, class, all);
        }
    });
}

#[test]
fn what_belongs_to_no_span_of_the_class_is_foreign() {
    with_cache(|cache| {
        let class = class_of_size(64);
        let other = class_of_size(128);
        let theirs = fetch_all(cache, other, 1)[0];
        let large = cache.source().heap().alloc_large(3, 1).unwrap();
        // SAFETY: just allocated.
        let large = unsafe { large.as_ref() }.address();
        let gone = fetch_all(cache, class, 1)[0];
        store_each(cache, class, [gone]);
        assert_eq!(held(cache, class), (0, 0, 0), "its span went back");
        let mut on_the_stack = [0u64; 8];
        let strangers = [theirs, large as *mut u8, gone, (&raw mut on_the_stack).cast::<u8>()];
        for stranger in strangers {
            assert!(!cache.is_object(class, stranger as usize));
            // SAFETY: the misuse is the point; all of it is memory that can be read.
            let answer = unsafe { cache.store_to_spans(class, chain_of(&[stranger])) };
            assert_eq!(answer, Err(Misuse::Foreign(stranger, class)));
        }
        assert!(!cache.is_object(class, 0) && !cache.is_object(class, usize::MAX));
        store_each(cache, other, [theirs]);
        // SAFETY: allocated above and not used any more.
        unsafe { cache.source().heap().free_large(large) }.unwrap();
    });
}

#[test]
fn a_misuse_inside_a_batch_shows_when_the_batch_leaves_the_transfer_cache() {
    with_cache(|cache| {
        let class = class_of_size(24576);
        let all = fetch_all(cache, class, 3);
        // Two batches that share an object: what two threads that free the same object make.
        // SAFETY: the misuse is the point.
        unsafe {
            cache.store(class, chain_of(&[all[0], all[1]])).unwrap();
            let shared = Chain { head: all[2], count: 2 };
            Chain::link(all[2], all[1]);
            cache.store(class, shared).unwrap();
        }
        assert_eq!(cache.drain(class, usize::MAX), Err(Misuse::Foreign(all[1], class)));
    });
}

#[test]
fn plunder_sends_back_what_nobody_wanted_for_a_whole_period() {
    with_cache(|cache| {
        let class = class_of_size(2048);
        let batch = class.batch();
        let all = fetch_all(cache, class, 4 * batch);
        for objects in all.chunks(batch) {
            // SAFETY: the objects are ours.
            unsafe { cache.store(class, chain_of(objects)) }.unwrap();
        }
        assert_eq!(cache.plunder(class), Ok(0), "the first look only begins a period");
        let wanted = objects(cache.fetch(class, batch));
        // SAFETY: as above.
        unsafe { cache.store(class, chain_of(&wanted)) }.unwrap();
        assert_eq!(cache.plunder(class), Ok(3 * batch), "one batch was wanted");
        assert_eq!(held(cache, class), (batch / class.objects(), batch, batch));
        assert_eq!(cache.plunder(class), Ok(batch));
        assert_eq!(held(cache, class), (0, 0, 0));
        assert_eq!(cache.plunder(class), Ok(0));
    });
}

#[test]
fn plundering_in_turn_comes_past_every_class() {
    with_cache(|cache| {
        let classes = [1, 16, 17, 100, 156, 207, 208].map(|id| Class::from_id(id).unwrap());
        for class in classes {
            let batch = fetch_all(cache, class, class.batch());
            // SAFETY: the objects are ours.
            unsafe { cache.store(class, chain_of(&batch)) }.unwrap();
        }
        // 16 classes at a time: once around begins the periods, and once more ends them.
        for turn in 0..2 * 13 {
            assert!(turn > 12 || classes.iter().all(|&class| cache.stats(class).transfer > 0));
            cache.plunder_next().unwrap();
        }
        assert!(classes.iter().all(|&class| cache.stats(class).transfer == 0));
        assert_eq!(cache.source().spans_out(), 0);
    });
}

#[test]
fn drain_takes_as_many_batches_as_it_is_told() {
    with_cache(|cache| {
        let class = class_of_size(4096);
        let all = fetch_all(cache, class, 3 * class.batch());
        for objects in all.chunks(class.batch()) {
            // SAFETY: the objects are ours.
            unsafe { cache.store(class, chain_of(objects)) }.unwrap();
        }
        assert_eq!(cache.drain(class, 0), Ok(0));
        assert_eq!(cache.drain(class, 1), Ok(class.batch()));
        assert_eq!(cache.stats(class).transfer, 2 * class.batch());
        assert_eq!(cache.drain(class, usize::MAX), Ok(2 * class.batch()));
        assert_eq!(held(cache, class), (0, 0, 0));
    });
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
fn threads_pass_objects_around_and_none_is_lost() {
    with_cache(|cache| {
        let classes = [32, 1024, 24576, 40960].map(class_of_size);
        std::thread::scope(|scope| {
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..4).map(|_| channel::<(Class, Vec<usize>)>()).unzip();
            for (me, receiver) in receivers.into_iter().enumerate() {
                let next = senders[(me + 1) % 4].clone();
                let before = (me + 3) % 4;
                scope.spawn(move || {
                    for round in 0..400 {
                        let class = classes[(me + round) % 4];
                        let mine = objects(cache.fetch(class, class.batch()));
                        for &object in &mine {
                            // SAFETY: the object is ours and at least 16 bytes long.
                            unsafe { object.cast::<[usize; 2]>().write([me, object as usize]) };
                        }
                        let sent = mine.into_iter().map(|object| object as usize).collect();
                        next.send((class, sent)).unwrap();
                        receiver.try_iter().for_each(|theirs| take_back(cache, before, theirs));
                    }
                    drop(next);
                    receiver.iter().for_each(|theirs| take_back(cache, before, theirs));
                });
            }
        });
        for class in classes {
            let stats = cache.stats(class);
            assert_eq!(stats.out, stats.transfer, "{class:?}");
            cache.drain(class, usize::MAX).unwrap();
            assert_eq!(held(cache, class), (0, 0, 0));
        }
        assert_eq!(cache.source().spans_out(), 0);
    });
}

/// Checks what thread `from` has written, and stores the objects.
fn take_back(cache: &Cache<'_>, from: usize, (class, theirs): (Class, Vec<usize>)) {
    let theirs: Vec<*mut u8> = theirs.into_iter().map(|object| object as *mut u8).collect();
    for &object in &theirs {
        // SAFETY: the sender gave the object to us.
        assert_eq!(unsafe { object.cast::<[usize; 2]>().read() }, [from, object as usize]);
    }
    // SAFETY: as above.
    unsafe { cache.store(class, chain_of(&theirs)) }.unwrap();
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

#[test]
fn chains_push_pop_and_split_in_order() {
    let mut memory = [[0u64; 2]; 10];
    let objects_in: Vec<*mut u8> = memory.iter_mut().map(|slot| slot.as_mut_ptr().cast()).collect();
    // SAFETY: the slots are ours for the length of the test.
    unsafe {
        for count in 0..12 {
            let mut chain = chain_of(&objects_in);
            let first = chain.split(count);
            assert_eq!(first.count, count.min(10));
            assert_eq!(objects(first), &objects_in[..count.min(10)]);
            assert_eq!(objects(chain), &objects_in[count.min(10)..]);
        }
        let mut none = Chain::EMPTY;
        assert_eq!((none.pop(), none.split(3)), (None, Chain::EMPTY));
    }
}
