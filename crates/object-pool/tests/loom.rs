//! Models of the shared pool: several threads insert and drop through `Pool`.
//!
//! A pool's memory is real memory, which loom does not watch; who holds which object is kept in a
//! list of its own, so that an object that two values live in is seen at once.
#![cfg(tiermalloc_loom)]

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::mpsc;
use loom::thread;

use tiermalloc_object_pool::{ChunkSource, Pool, Pooled};

/// Gives `left` chunks and counts those that are out. Its atomics are std's: they are no part of what
/// is modelled.
struct Chunks {
    left: AtomicUsize,
    out: AtomicUsize,
}

// SAFETY: std's allocator keeps the promises of the trait.
unsafe impl ChunkSource for &Chunks {
    fn alloc_chunk(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).ok()?;
        self.out.fetch_add(1, Ordering::SeqCst);
        // SAFETY: chunks are not empty.
        NonNull::new(unsafe { alloc(layout) })
    }
    unsafe fn free_chunk(&self, chunk: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: passed on to the caller.
        unsafe { dealloc(chunk.as_ptr(), layout) }
    }
}

type Value = [u64; 2];
type Shared = Pool<Value, &'static Chunks>;
type Owned = Pooled<'static, Value, &'static Chunks>;

struct World {
    pool: Shared,
    held: StdMutex<BTreeSet<usize>>,
}

impl World {
    /// Puts a value in, if there is room, and notes that its place is taken.
    fn insert(&'static self, value: u64) -> Option<Owned> {
        let pooled = match self.pool.insert([value, !value]) {
            Ok(pooled) => pooled,
            Err(refused) => {
                assert_eq!(refused, [value, !value], "a refused value comes back as it was");
                return None;
            }
        };
        assert!(self.held.lock().unwrap().insert(place(&pooled)), "one object, two values");
        Some(pooled)
    }
    /// Checks a value and drops it.
    fn drop(&'static self, value: u64, pooled: Owned) {
        assert_eq!(*pooled, [value, !value]);
        assert!(self.held.lock().unwrap().remove(&place(&pooled)));
        drop(pooled);
    }
}

fn place(pooled: &Owned) -> usize {
    &raw const **pooled as usize
}

/// Runs a model over a pool with `chunks` chunks of `objects` objects each, and checks that all of it
/// is empty and gone at the end.
fn model(chunks: usize, objects: usize, f: impl Fn(&'static World) + Sync + Send + 'static) {
    loom::model(move || {
        // Threads of a model are 'static; both are freed below, when the threads are joined.
        let source = Box::into_raw(Box::new(Chunks {
            left: AtomicUsize::new(chunks),
            out: AtomicUsize::new(0),
        }));
        // SAFETY: valid until freed below.
        let source_ref: &'static Chunks = unsafe { &*source };
        let bytes = size_of::<usize>() + objects * size_of::<Value>();
        let world = Box::into_raw(Box::new(World {
            pool: Pool::with_chunk_bytes(source_ref, bytes),
            held: StdMutex::default(),
        }));
        // SAFETY: valid until freed below.
        let world_ref: &'static World = unsafe { &*world };
        f(world_ref);
        assert_eq!(world_ref.pool.live(), 0, "every value was given back");
        assert!(world_ref.held.lock().unwrap().is_empty());
        // What was given back can be had again, all of it: nothing is lost.
        let reserved = world_ref.pool.reserved_bytes();
        let all: Vec<_> =
            (0..).map_while(|value| Some((value, world_ref.insert(value)?))).collect();
        assert_eq!(all.len(), chunks * objects);
        assert!(world_ref.pool.reserved_bytes() >= reserved);
        for (value, pooled) in all {
            world_ref.drop(value, pooled);
        }
        // SAFETY: all threads are joined and all values dropped.
        unsafe {
            drop(Box::from_raw(world));
            assert_eq!((*source).out.load(Ordering::SeqCst), 0, "chunks go back with the pool");
            drop(Box::from_raw(source));
        }
    });
}

/// Two threads insert and drop at once: no object is handed out twice, none is lost.
#[test]
fn inserting_and_dropping_at_once_hands_no_object_out_twice() {
    model(1, 4, |world| {
        let other = thread::spawn(move || {
            let first = world.insert(1).unwrap();
            let second = world.insert(2).unwrap();
            world.drop(1, first);
            world.drop(2, second);
        });
        let first = world.insert(3).unwrap();
        world.drop(3, first);
        let again = world.insert(4).unwrap();
        world.drop(4, again);
        other.join().unwrap();
    });
}

/// A value that another thread drops leaves its place to whoever comes next, and to one only.
#[test]
fn values_dropped_by_other_threads_come_back() {
    model(1, 2, |world| {
        let (sender, receiver) = mpsc::channel::<Owned>();
        let other = thread::spawn(move || {
            let mine = world.insert(7);
            world.drop(1, receiver.recv().unwrap());
            if let Some(mine) = mine {
                world.drop(7, mine);
            }
        });
        let value = world.insert(1).unwrap();
        sender.send(value).unwrap();
        if let Some(next) = world.insert(2) {
            world.drop(2, next);
        }
        other.join().unwrap();
    });
}

/// Three threads want the pool's last object: who gets it has it alone, the others get their values
/// back, and it is there again afterwards.
#[test]
fn the_last_object_goes_to_one() {
    model(1, 1, |world| {
        let others: Vec<_> = (1..3)
            .map(|value| {
                thread::spawn(move || match world.insert(value) {
                    Some(pooled) => {
                        world.drop(value, pooled);
                        1
                    }
                    None => 0,
                })
            })
            .collect();
        let mut served = 0;
        if let Some(pooled) = world.insert(9) {
            world.drop(9, pooled);
            served = 1;
        }
        for other in others {
            served += other.join().unwrap();
        }
        assert!(served >= 1);
    });
}

/// Two threads that find the pool empty at once take a chunk each if they must, and lose neither.
#[test]
fn growing_at_once_loses_no_chunk() {
    model(2, 1, |world| {
        let other = thread::spawn(move || {
            let value = world.insert(1).unwrap();
            world.drop(1, value);
        });
        let value = world.insert(2).unwrap();
        world.drop(2, value);
        other.join().unwrap();
    });
}
