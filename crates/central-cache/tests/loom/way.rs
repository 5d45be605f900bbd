//! A class that needs a fresh span has others let go of what they hold, while these go on.

use std::collections::BTreeSet;
use std::sync::Mutex as StdMutex;

use loom::sync::Arc;
use tiermalloc_central_cache::Chain;
use tiermalloc_size_class::Class;

use crate::arena::{SINGLE, TINY, class};
use crate::{World, spawn};

/// A batch of the class that holds, whose objects are too many and too small for [`Hands`](crate::Hands).
struct Held(StdMutex<BTreeSet<usize>>);

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self(StdMutex::new(BTreeSet::new())))
    }

    fn fetch(&self, world: &World, class: Class) -> Chain {
        let chain = world.central.fetch(class, class.batch());
        let mut object = chain.head;
        for _ in 0..chain.count {
            assert!(self.0.lock().unwrap().insert(object as usize), "in two hands");
            // SAFETY: the chain is ours.
            object = unsafe { Chain::next(object) };
        }
        assert!(object.is_null(), "as long as it says");
        chain
    }

    fn store(&self, world: &World, class: Class, chain: Chain) {
        let mut object = chain.head;
        for _ in 0..chain.count {
            assert!(self.0.lock().unwrap().remove(&(object as usize)));
            // SAFETY: the chain is ours.
            object = unsafe { Chain::next(object) };
        }
        // SAFETY: as above.
        unsafe { world.central.store(class, chain) }.unwrap();
    }
}

/// Nothing is left of the class that held.
fn finish(world: &World, holding: Class) {
    world.central.drain(holding, usize::MAX).unwrap();
    let stats = world.central.stats(holding);
    assert_eq!((stats.spans, stats.out, stats.transfer), (0, 0, 0));
    world.finish();
}

/// A batch that makes way while its class fetches one, and stores it again, is in one place throughout: with
/// the thread, in its spans or in the transfer cache. Whoever wanted room is served in any case.
#[test]
fn a_batch_makes_way_while_its_class_fetches_and_stores() {
    loom::model(|| {
        let (world, held) = (World::over(0, SINGLE), Held::new());
        let holding = class(TINY);
        let batch = held.fetch(&world, holding);
        held.store(&world, holding, batch);
        // Past the first two classes: the next ones are at hand.
        world.central.plunder_next().unwrap();
        let theirs = held.clone();
        let going_on = spawn(&world, move |world| {
            let batch = theirs.fetch(world, holding);
            assert_eq!(batch.count, holding.batch());
            theirs.store(world, holding, batch);
        });
        let mine = world.fetch(1);
        world.central.make_way(world.class).unwrap();
        going_on.join().unwrap();
        assert_eq!(mine.len(), 1);
        world.store(mine);
        finish(&world, holding);
    });
}

/// Of two threads that make way at once each batch goes with one: its span is freed once, and nothing of what
/// is held is left when both have come past its class.
#[test]
fn two_threads_make_way_at_once() {
    loom::model(|| {
        let (world, held) = (World::over(0, SINGLE), Held::new());
        let holding = class(TINY);
        let batch = held.fetch(&world, holding);
        held.store(&world, holding, batch);
        world.central.plunder_next().unwrap();
        let work = |world: &World| {
            let mine = world.fetch(1);
            world.central.make_way(world.class).unwrap();
            mine
        };
        let other = spawn(&world, work);
        let mine = work(&world);
        let theirs = other.join().unwrap();
        assert_eq!((mine.len(), theirs.len()), (1, 1));
        let left = world.central.stats(holding);
        assert_eq!((left.transfer, left.out, left.spans), (0, 0, 0), "somebody had it make way");
        world.store(mine);
        world.store(theirs);
        finish(&world, holding);
    });
}
