//! Threads that take each other's share of the budget.

use loom::sync::Arc;
use loom::thread;
use tiermalloc_thread_cache::{Budget, ThreadCache};

use crate::arena::{SMALL, class};
use crate::world::{CLAIM, Thread, World};

/// Two threads that claim at once, one of which gives back in between, never have more than there is,
/// and what they have and what is left make up the total.
#[test]
fn claims_never_exceed_the_total() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(100, 80));
        let other = budget.clone();
        let claiming = thread::spawn(move || {
            let first = other.claim(70, 0);
            other.give_back(first / 2);
            let has = first - first / 2;
            has + other.claim(30, has)
        });
        let first = budget.claim(70, 0);
        assert!(first + budget.unclaimed() <= 100);
        let mine = first + budget.claim(50, first);
        let theirs = claiming.join().unwrap();
        assert!(mine <= 80 && theirs <= 80, "nobody has more than a thread's share");
        assert_eq!(mine + theirs + budget.unclaimed(), 100);
    });
}

/// Three threads that want all there is share it out: no byte is granted twice.
#[test]
fn the_last_bytes_go_to_one_thread_each() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(3, 3));
        let claims: Vec<_> = (0..2)
            .map(|_| {
                let budget = budget.clone();
                thread::spawn(move || budget.claim(2, 0))
            })
            .collect();
        let mine = budget.claim(2, 0);
        let theirs: usize = claims.into_iter().map(|claim| claim.join().unwrap()).sum();
        assert_eq!((mine + theirs, budget.unclaimed()), (3, 0));
    });
}

/// Two threads take what the other has claimed of a budget that is too small for both: each asks the
/// other, each gives at its next slow step, and no byte is lost or granted twice.
#[test]
fn two_threads_take_from_each_others_share_of_the_budget() {
    loom::model(|| {
        let world = World::new(CLAIM);
        let (one, two) = (Thread::new(&world), Thread::new(&world));
        let work = |thread: Thread| {
            let object = thread.alloc(class(SMALL));
            thread.free(class(SMALL), object);
            let object = thread.alloc(class(SMALL));
            thread.free(class(SMALL), object);
            thread
        };
        let other = thread::spawn(move || work(two));
        let one = work(one);
        let two = other.join().unwrap();
        let claimed = one.cache.limit() + two.cache.limit();
        assert_eq!(claimed + world.budget.unclaimed(), CLAIM);
        one.end();
        two.end();
        world.finish();
    });
}

/// What is asked back while the owner is at work is given back at its next slow step at the latest, and
/// what it holds stays within what is left.
#[test]
fn what_is_asked_back_is_given_back() {
    loom::model(|| {
        let world = World::new(2 * CLAIM);
        let owner = Thread::new(&world);
        let object = owner.alloc(class(SMALL));
        owner.free(class(SMALL), object);
        assert_eq!(owner.cache.limit(), CLAIM);
        let asking = world.clone();
        let asks = thread::spawn(move || {
            let nobody = ThreadCache::new();
            asking.registry.ask_another(&nobody, CLAIM);
        });
        let kept = [owner.alloc(class(SMALL)), owner.alloc(class(SMALL))];
        asks.join().unwrap();
        kept.into_iter().for_each(|object| owner.free(class(SMALL), object));
        let limit = owner.cache.limit();
        assert!(limit <= CLAIM, "one claim was given back: {limit}");
        assert_eq!(limit + world.budget.unclaimed(), 2 * CLAIM);
        owner.end();
        world.finish();
    });
}
