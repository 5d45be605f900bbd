//! Objects that go straight from and to their spans, against each other and against batches.

use tiermalloc_central_cache::{Chain, Misuse};

use crate::arena::{PAIR, SINGLE};
use crate::{World, spawn};

impl World {
    fn take_one(&self) -> usize {
        let (object, _) = self.central.take_one(self.class).expect("there is memory");
        self.hands.receive(object.as_ptr() as usize);
        object.as_ptr() as usize
    }

    fn put_one(&self, object: usize) {
        self.hands.give_up(object);
        // SAFETY: the object was the caller's.
        unsafe { self.central.put_one(self.class, object as *mut u8) }.unwrap();
    }
}

impl World {
    /// Sends the first `count` objects of a list home, which are given up before anybody else may have them.
    fn send_first(&self, objects: Vec<usize>, count: usize) {
        let mut list = Chain::EMPTY;
        for &object in objects.iter().rev() {
            // SAFETY: the object is the caller's.
            unsafe { list.push(object as *mut u8) };
        }
        let out = |rest: *mut u8| {
            assert_eq!(rest as usize, objects.get(count).copied().unwrap_or_default());
            objects[..count].iter().for_each(|&object| self.hands.give_up(object));
            Ok(())
        };
        // SAFETY: as above.
        unsafe { self.central.store_first_to_spans(self.class, list.head, count, out) }.unwrap();
    }
}

/// The first objects of a list go home while another thread takes some of the class: it gets none of them before the list
/// has been told, and the span that empties is freed once, or stays.
#[test]
fn the_first_objects_of_a_list_go_home_while_another_thread_takes() {
    for count in [1, 2, 3] {
        loom::model(move || {
            let world = World::new(PAIR);
            let mut three = world.fetch(2);
            three.extend(world.fetch(1));
            let taking = spawn(&world, |world| world.fetch(2));
            let left = three[count..].to_vec();
            world.send_first(three, count);
            let got = taking.join().unwrap();
            world.check(got.len() + left.len());
            world.store(got);
            left.into_iter().for_each(|object| world.put_one(object));
            world.finish();
        });
    }
}

/// The last object of a span is put back while another thread takes one: from the old span before it
/// leaves, or from a new one; the old one is freed once.
#[test]
fn the_last_object_is_put_back_while_another_thread_takes_one() {
    loom::model(|| {
        let world = World::new(SINGLE);
        let mine = world.take_one();
        let taking = spawn(&world, World::take_one);
        world.put_one(mine);
        let got = taking.join().unwrap();
        world.check(1);
        world.put_one(got);
        world.finish();
    });
}

/// Single objects and a batch come and go at once: none is in two hands, none is lost.
#[test]
fn single_objects_meet_a_batch() {
    loom::model(|| {
        let world = World::new(PAIR);
        let batch = world.fetch(2);
        let single = world.take_one();
        let storing = spawn(&world, move |world| world.store(batch));
        let putting = spawn(&world, move |world| world.put_one(single));
        let got = world.fetch(2);
        storing.join().unwrap();
        putting.join().unwrap();
        world.check(got.len());
        world.store(got);
        world.finish();
    });
}

/// Of two threads that put back the same object exactly one succeeds, and the other is told. (Another
/// object keeps the span in its class. Without that the second one asks a span that the page heap may have
/// by now, and is told one thing or another, as a program that frees twice deserves.)
#[test]
fn of_two_that_put_back_one_object_one_is_told() {
    loom::model(|| {
        let world = World::new(PAIR);
        let kept = world.take_one();
        let (object, class) = (world.take_one() as *mut u8, world.class);
        // SAFETY: the misuse is the point; nobody else gets the object meanwhile.
        let put = move |world: &World| unsafe { world.central.put_one(class, object) };
        let other = spawn(&world, put);
        let answers = [put(&world), other.join().unwrap()];
        world.hands.give_up(object as usize);
        let told = Err(Misuse::DoubleFree(object, class));
        assert!(answers.contains(&Ok(())) && answers.contains(&told), "{answers:?}");
        world.check(1);
        world.put_one(kept);
        world.finish();
    });
}
