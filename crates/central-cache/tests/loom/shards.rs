//! Two shards: objects that go home from elsewhere, batches that somebody takes from elsewhere, spans that are
//! kept, and a second shard that comes into use meanwhile.

use loom::sync::Arc;
use tiermalloc_central_cache::Chain;

use crate::arena::{PAIR, SINGLE};
use crate::{World, spawn};

impl World {
    /// With two shards from the beginning, over a heap of which they may keep all empty spans.
    fn wide(size: usize) -> Arc<Self> {
        let world = Self::new(size);
        world.central.widen(2);
        world
    }

    fn fetch_near(&self, at: usize, wanted: usize) -> Vec<usize> {
        self.receive(self.central.near(at).fetch(self.class, wanted))
    }

    /// Gives objects up, as one chain.
    fn give_up(&self, objects: Vec<usize>) -> Chain {
        let mut chain = Chain::EMPTY;
        for object in objects.into_iter().rev() {
            self.hands.give_up(object);
            // SAFETY: the object is the caller's.
            unsafe { chain.push(object as *mut u8) };
        }
        chain
    }

    fn store_near(&self, at: usize, objects: Vec<usize>) {
        let chain = self.give_up(objects);
        // SAFETY: as above.
        unsafe { self.central.near(at).store(self.class, chain) }.unwrap();
    }

    /// Past the transfer caches.
    fn send_home(&self, objects: Vec<usize>) {
        let chain = self.give_up(objects);
        // SAFETY: as above.
        unsafe { self.central.store_to_spans(self.class, chain) }.unwrap();
    }
}

/// A chain with objects of two shards empties a span of each, one after the other, while another thread takes
/// from the first of them, or brings what has just been kept into use again: all of the chain arrives.
#[test]
fn a_chain_of_two_shards_objects_goes_home_while_another_thread_fetches() {
    loom::model(|| {
        let world = World::wide(PAIR);
        // Two of each: who finds none of his own takes what another has left.
        let (a, b) = (world.fetch_near(0, 2), world.fetch_near(1, 2));
        world.send_home(vec![a[1]]);
        let storing = spawn(&world, move |world| world.send_home(vec![a[0], b[0], b[1]]));
        let got = world.fetch_near(0, 2);
        storing.join().unwrap();
        world.check(got.len());
        world.send_home(got);
        world.finish();
    });
}

/// Two chains that take the objects of the same two spans home, in opposite orders: each span leaves once.
#[test]
fn two_mixed_chains_meet() {
    loom::model(|| {
        let world = World::wide(PAIR);
        let (a, b) = (world.fetch_near(0, 2), world.fetch_near(1, 2));
        let (one, two) = (vec![a[0], b[0]], vec![b[1], a[1]]);
        let storing = spawn(&world, move |world| world.send_home(one));
        world.send_home(two);
        storing.join().unwrap();
        assert_eq!(world.stats().spans, 0);
        world.check(0);
        world.finish();
    });
}

/// While a shard takes its batch out and brings it back, somebody from elsewhere wants one, too: it is in one
/// place at a time.
#[test]
fn a_batch_is_taken_from_another_shard_while_that_one_fetches_and_stores() {
    loom::model(|| {
        let world = World::wide(PAIR);
        let batch = world.fetch_near(0, 2);
        world.store_near(0, batch);
        let taking = spawn(&world, |world| world.fetch_near(1, 2));
        let mine = world.fetch_near(0, 2);
        let before = mine.len();
        world.store_near(0, mine);
        let theirs = taking.join().unwrap();
        assert_eq!((before, theirs.len()), (2, 2));
        world.check(2);
        world.store_near(1, theirs);
        world.finish();
    });
}

/// A second shard comes into use while others fetch and store: what went before it and what comes after it is
/// found, and goes home.
#[test]
fn the_cache_widens_while_others_fetch_and_store() {
    loom::model(|| {
        let world = World::new(PAIR);
        let mut early = world.fetch_near(1, 2);
        let last = early.pop().unwrap();
        let widening = spawn(&world, move |world| {
            world.central.widen(2);
            world.store_near(1, early);
            world.fetch_near(1, 1)
        });
        let mine = world.fetch_near(1, 2);
        world.store_near(1, vec![last]);
        let mut theirs = widening.join().unwrap();
        assert_eq!(theirs.len(), 1);
        world.check(mine.len() + 1);
        theirs.extend(mine);
        world.store_near(1, theirs);
        world.finish();
    });
}

/// A span that is kept serves again, goes back to the source, or waits; whoever looks at it meanwhile, it does one
/// of these.
#[test]
fn a_kept_span_serves_again_or_goes_back() {
    loom::model(|| {
        let world = World::wide(SINGLE);
        let (kept, last) = (world.fetch_near(0, 1), world.fetch_near(0, 1));
        world.send_home(kept);
        assert!(world.central.kept_bytes() > 0);
        let emptying = spawn(&world, move |world| world.send_home(last));
        let freeing = spawn(&world, |world| world.central.free_kept_spans());
        let got = world.fetch_near(0, 1);
        emptying.join().unwrap();
        freeing.join().unwrap();
        assert_eq!(got.len(), 1);
        world.check(1);
        world.send_home(got);
        world.finish();
    });
}

/// Whoever has an object of a second shard sends it there, however little else he has seen of its coming into use.
#[test]
fn an_object_of_a_shard_that_has_just_come_into_use_goes_home_to_it() {
    loom::model(|| {
        let world = World::new(PAIR);
        let widening = spawn(&world, |world| world.central.widen(2));
        let got = world.fetch_near(1, 1);
        world.send_home(got);
        widening.join().unwrap();
        world.check(0);
        world.finish();
    });
}
