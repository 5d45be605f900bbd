//! Forks in the middle of everything.
//!
//! The forking thread takes the gate as the facade does: every lock, in lock order. What it then does as
//! the parent, and as the child, in which the other threads have ended where they stood, is what the models
//! here look at (see `tiermalloc_sync::modelled`).

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::thread;
use tiermalloc_page_heap::State;
use tiermalloc_size_class::PAGE_SIZE;
use tiermalloc_sync::modelled;
use tiermalloc_thread_cache::ThreadCache;

use crate::arena::{PAIR, SMALL, class};
use crate::world::{Thread, World, classes};

/// Takes every lock, in the facade's order.
fn lock_for_fork(world: &World) {
    world.registry.lock_for_fork();
    world.central.lock_for_fork();
    world.central.source().lock_for_fork();
}

/// Gives them up, in the other order.
fn unlock_after_fork(world: &World) {
    // SAFETY: locked by `lock_for_fork`, in this thread.
    unsafe {
        world.central.source().unlock_after_fork();
        world.central.unlock_after_fork();
        world.registry.unlock_after_fork();
    }
}

/// Walks the page map, without a lock: a free span is in it with its first and its last page and no
/// other (H3), and no two are neighbours (H2). Returns the pages of all of them. The lock of the heap is
/// held, or nobody else is there; what other threads have in hand is passed over.
fn free_pages(world: &World) -> usize {
    let heap = world.central.source();
    let (mut free, mut behind, mut after_free) = (0, 0, false);
    for page in heap.source().pages() {
        // SAFETY: records of registered spans are valid.
        let span = heap.map().span(page).map(|span| unsafe { span.as_ref() });
        let is_free = span.is_some_and(|span| span.state() == State::Free);
        if page < behind {
            assert_eq!(span.is_some(), page + PAGE_SIZE == behind, "H3");
            continue;
        }
        if let Some(span) = span.filter(|_| is_free) {
            assert!(!after_free, "H2: free neighbours unmerged");
            assert_eq!(span.address(), page, "H3");
            free += span.pages();
            behind = page + span.bytes();
        }
        after_free = is_free;
    }
    free
}

/// What the heap, the central cache and the one cache say of themselves adds up, but for what threads that
/// do not exist had in hand: up to `objects` objects and up to `pages` pages.
fn add_up(mine: &Thread, objects: usize, pages: usize) {
    let world = &*mine.world;
    let heap = world.central.source().stats();
    assert_eq!(free_pages(world), heap.free_pages);
    assert_eq!(heap.reserved_pages, heap.free_pages + heap.object_pages + heap.large_pages);
    let (mut out, mut kept, mut known) = (0, world.hands.held(), 0);
    for class in classes() {
        let stats = world.central.stats(class);
        out += stats.out.checked_sub(stats.transfer).expect("what waits in batches is out");
        kept += mine.cache.cached(class);
        known += stats.spans * class.pages();
    }
    assert!((kept..=kept + objects).contains(&out), "{out} are out, {kept} held or cached");
    assert!((known..=known + pages).contains(&heap.object_pages), "{known} pages in classes");
}

/// The gate, and the parent's side of a fork: every tier is whole while the gate is held, and all go on.
fn fork_as_parent(world: &World) {
    lock_for_fork(world);
    free_pages(world);
    unlock_after_fork(world);
}

/// The gate, and the child's side of a fork, in a thread with a cache.
fn fork_as_child(world: &World, mine: &Thread, others: &[Rc<Thread>]) {
    lock_for_fork(world);
    modelled::child();
    world.hands.fork();
    unlock_after_fork(world);
    // The child has its own memory. When it is done, the others find theirs as it was, until they meet
    // their next lock.
    let memory = world.central.source().source().copy();
    let place = |other: &Rc<Thread>| (&raw const *other.cache).cast::<MaybeUninit<ThreadCache>>();
    // SAFETY: a copy that is never dropped.
    let caches: Vec<_> = others.iter().map(|other| unsafe { place(other).read() }).collect();
    live_as_child(world, mine, others);
    // SAFETY: the child is done. Of a cache all is cells, but for the name of an atomic, which stays.
    unsafe {
        world.central.source().source().restore(&memory);
        for (other, cache) in others.iter().zip(caches) {
            place(other).cast_mut().write(cache);
        }
    }
}

/// Every tier is whole, the other threads' caches are found and taken in, and the child goes on.
fn live_as_child(world: &World, mine: &Thread, others: &[Rc<Thread>]) {
    let mut walked = 0;
    world.registry.for_each(|_| walked += 1);
    assert_eq!(walked, world.registry.count());
    if let Some(first) = world.registry.take_all_but(Some(NonNull::from(&*mine.cache))) {
        // SAFETY: their threads are not there any more.
        unsafe { world.orphans.add(first) };
    }
    assert_eq!(world.registry.count(), 1);
    while let Some(orphan) = world.orphans.take() {
        assert!(others.iter().any(|other| std::ptr::eq(&raw const *other.cache, orphan.as_ptr())));
        // SAFETY: taken off the list, and its thread does not exist.
        unsafe {
            orphan.as_ref().salvage(&world.central, &world.budget, |class, object| {
                world.central.is_object(class, object as usize)
            });
        }
    }
    // Whoever was in the middle of something has taken with it an object and a batch, or a span.
    let pair = class(PAIR);
    let busy = others.iter().filter(|other| other.busy.load(Ordering::Relaxed)).count();
    let lost = (busy * (pair.batch() + 1), busy * pair.pages());
    add_up(mine, lost.0, lost.1);
    let objects = [pair, pair, pair, class(SMALL)].map(|class| (class, mine.alloc(class)));
    add_up(mine, lost.0, lost.1);
    objects.into_iter().for_each(|(class, object)| mine.free(class, object));
    mine.end();
    add_up(mine, lost.0, lost.1);
}

/// A thread of the parent that may be cut off.
fn spawn(thread: &Rc<Thread>, work: impl FnOnce(&Thread) + 'static) -> thread::JoinHandle<()> {
    let thread = thread.clone();
    thread::spawn(move || {
        modelled::until_cut_off(|| work(&thread));
    })
}

/// A gate takes every lock there is, and each is a branch: more than loom allows for by itself.
const BRANCHES: usize = 20_000;

fn with_a_world(f: impl Fn(Arc<World>) + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = BRANCHES;
    model.check(move || f(World::new(1 << 20)));
}

/// Takes an object, bringing a span and filling a bin on the way, and gives it back.
fn come(thread: &Thread) {
    let object = thread.alloc(class(PAIR));
    thread.free(class(PAIR), object);
}

/// A thread that forks finds every tier whole while another one brings a span and fills its bin; afterwards
/// both go on, and nothing is lost.
#[test]
fn a_parent_forks_while_a_thread_takes() {
    with_a_world(|world| {
        let taking = Rc::new(Thread::new(&world));
        let other = spawn(&taking, |taking| {
            come(taking);
            taking.end();
        });
        fork_as_parent(&world);
        other.join().unwrap();
        world.finish();
    });
}

/// The same while another thread ends: batches and objects return, a span empties and is freed, a cache
/// leaves the registry.
#[test]
fn a_parent_forks_while_a_thread_ends() {
    with_a_world(|world| {
        let ending = Rc::new(Thread::new(&world));
        let objects = [(); 3].map(|()| ending.alloc(class(PAIR)));
        objects.into_iter().for_each(|object| ending.free(class(PAIR), object));
        let other = spawn(&ending, Thread::end);
        fork_as_parent(&world);
        other.join().unwrap();
        world.finish();
    });
}

/// Two threads fork at once: one after the other, and neither waits for ever.
#[test]
fn two_threads_fork_at_once() {
    with_a_world(|world| {
        let forking = world.clone();
        let second = thread::spawn(move || fork_as_parent(&forking));
        fork_as_parent(&world);
        second.join().unwrap();
        world.finish();
    });
}

/// A child that was forked while another thread took a batch, or brought a span, finds every tier whole,
/// takes that thread's cache in, and goes on; no object is in two hands.
#[test]
fn a_child_of_a_thread_that_takes_finds_every_tier_whole_and_goes_on() {
    with_a_world(|world| {
        let (mine, taking) = (Thread::new(&world), Rc::new(Thread::new(&world)));
        come(&mine);
        let other = spawn(&taking, come);
        fork_as_child(&world, &mine, &[taking]);
        other.join().unwrap();
    });
}

/// The same where the other thread was about to end, with objects in its bins, a batch on its way and a
/// span emptying.
#[test]
fn a_child_of_a_thread_that_ends_finds_every_tier_whole_and_goes_on() {
    with_a_world(|world| {
        let (mine, ending) = (Thread::new(&world), Rc::new(Thread::new(&world)));
        let objects = [(); 3].map(|()| ending.alloc(class(PAIR)));
        objects.into_iter().for_each(|object| ending.free(class(PAIR), object));
        let other = spawn(&ending, Thread::end);
        fork_as_child(&world, &mine, &[ending]);
        other.join().unwrap();
    });
}

/// The same with two threads, one of which takes what the other one gives back.
#[test]
fn a_child_of_two_threads_at_work_finds_every_tier_whole_and_goes_on() {
    with_a_world(|world| {
        let mine = Thread::new(&world);
        let (one, two) = (Rc::new(Thread::new(&world)), Rc::new(Thread::new(&world)));
        let objects = [(); 2].map(|()| one.alloc(class(PAIR)));
        let others = [
            spawn(&one, move |one| {
                objects.into_iter().for_each(|object| one.free(class(PAIR), object))
            }),
            spawn(&two, come),
        ];
        fork_as_child(&world, &mine, &[one, two]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
