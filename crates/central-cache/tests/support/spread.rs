//! Sequences of operations from everywhere on a cache of several shards, and what the program has of it.
//!
//! Which objects come, and from where, goes by what is at hand at the moment; here nothing of that is predicted.
//! What holds in any case is checked: no object is in two hands, what was written to it stays, a batch that waited
//! comes as it went, objects and spans are conserved, and shards have their own.

use std::collections::{BTreeMap, HashMap};

use tiermalloc_central_cache::{Misuse, SpanSource, spread};
use tiermalloc_size_class::{Class, PAGE_SIZE};

use super::run::SIZES;
use super::{Cache, chain_of, class_of_size, objects, owner};

/// An operation near a shard, with one of [`SIZES`].
#[derive(Clone, Debug)]
pub enum Op {
    Fetch {
        near: usize,
        class: usize,
        wanted: usize,
    },
    FetchOne {
        near: usize,
        class: usize,
    },
    TakeOne {
        class: usize,
    },
    PutOne {
        class: usize,
        which: usize,
    },
    /// Stores so many of what is held, from the `from`-th on, each `apart` behind the one before.
    Store {
        near: usize,
        class: usize,
        from: usize,
        count: usize,
        apart: usize,
    },
    /// Stores a whole batch, if so much is held.
    StoreBatch {
        near: usize,
        class: usize,
        from: usize,
        apart: usize,
    },
    /// Frees an object a second time.
    FreeTwice {
        near: usize,
        class: usize,
        which: usize,
    },
    Plunder {
        near: usize,
        class: usize,
    },
    Drain {
        near: usize,
        class: usize,
        batches: usize,
    },
    MakeWay {
        near: usize,
        class: usize,
    },
    PlunderNext {
        near: usize,
    },
    FreeIdle {
        near: usize,
    },
    FreeKept,
    Widen {
        shards: usize,
    },
    Reserve {
        bytes: usize,
    },
    Room {
        bytes: usize,
    },
    Tight {
        tight: bool,
    },
    Runs {
        runs: bool,
    },
    Refuse {
        n: usize,
        count: usize,
    },
    RefuseRecarving {
        n: usize,
        count: usize,
    },
}

/// What the program has, and what it knows to wait.
pub struct Spread<'a, 'm> {
    cache: &'a Cache<'m>,
    classes: Vec<Class>,
    held: Vec<Vec<*mut u8>>,
    /// Ends of all that is held, by the starts: two objects that overlap show here.
    ends: BTreeMap<usize, usize>,
    /// Batches that were stored, by their first objects; those that have gone home stay here until another one
    /// begins like them.
    batches: HashMap<usize, Vec<*mut u8>>,
}

impl<'a, 'm> Spread<'a, 'm> {
    pub fn new(cache: &'a Cache<'m>) -> Self {
        Self {
            cache,
            classes: SIZES.map(class_of_size).to_vec(),
            held: vec![Vec::new(); SIZES.len()],
            ends: BTreeMap::new(),
            batches: HashMap::new(),
        }
    }

    /// Objects have come into the program's hands.
    fn receive(&mut self, class: usize, got: Vec<*mut u8>) {
        let size = self.classes[class].size();
        for &object in &got {
            let start = object as usize;
            let before = self.ends.range(..start + size).next_back();
            assert!(before.is_none_or(|(_, &end)| end <= start), "an object is handed out twice");
            self.ends.insert(start, start + size);
            assert!(self.cache.is_object(self.classes[class], start));
            assert!(owner(self.cache, object) < self.cache.shards());
            // SAFETY: the object is ours, and at least 8 bytes long.
            unsafe {
                object.cast::<usize>().write(start);
                object.add(size - 8).cast::<usize>().write(!start);
            }
        }
        self.held[class].extend(got);
    }

    /// They are about to leave them.
    fn give_up(&mut self, class: usize, objects: &[*mut u8]) {
        let size = self.classes[class].size();
        for &object in objects {
            assert!(self.ends.remove(&(object as usize)).is_some());
            // SAFETY: as above.
            let end = unsafe { object.add(size - 8).cast::<usize>().read() };
            assert_eq!(end, !(object as usize), "somebody else has written to it");
        }
    }

    fn take_held(&mut self, class: usize, from: usize, count: usize, apart: usize) -> Vec<*mut u8> {
        let held = &mut self.held[class];
        let count = count.min(held.len());
        let mut at = from;
        let take = |_| {
            at = at.wrapping_add(apart) % held.len();
            held.swap_remove(at)
        };
        (0..count).map(take).collect()
    }

    fn fetch(&mut self, near: usize, class: usize, wanted: usize) {
        let id = self.classes[class];
        let wanted = wanted.min(id.batch());
        let before = self.cache.stats(id);
        let got = objects(self.cache.near(spread(near)).fetch(id, wanted));
        let now = self.cache.stats(id);
        assert!(got.len() <= wanted);
        if before.transfer > 0 && wanted == id.batch() {
            // Whoever wants a batch gets one as long as there is any.
            assert_eq!(now.transfer + id.batch(), before.transfer);
            let as_it_went = self.batches.remove(&(got[0] as usize));
            assert_eq!(as_it_went.as_ref(), Some(&got), "a batch comes as it went");
        } else {
            assert_eq!((now.transfer, now.out), (before.transfer, before.out + got.len()));
        }
        self.receive(class, got);
    }

    fn store(&mut self, near: usize, class: usize, chosen: Vec<*mut u8>) {
        let id = self.classes[class];
        self.give_up(class, &chosen);
        let before = self.cache.stats(id);
        // SAFETY: the objects are ours.
        unsafe { self.cache.near(spread(near)).store(id, chain_of(&chosen)) }.unwrap();
        let now = self.cache.stats(id);
        if now.transfer > before.transfer {
            assert_eq!((chosen.len(), now.out), (id.batch(), before.out));
            self.batches.insert(chosen[0] as usize, chosen);
        } else {
            assert_eq!((now.transfer, now.out), (before.transfer, before.out - chosen.len()));
        }
    }

    fn put_one(&mut self, class: usize, which: usize) {
        let id = self.classes[class];
        for object in self.take_held(class, which, 1, 1) {
            self.give_up(class, &[object]);
            assert_eq!(self.cache.check_live(id, object), Ok(()));
            // SAFETY: the object is ours.
            assert_eq!(unsafe { self.cache.put_one(id, object) }, Ok(()));
            assert!(self.cache.check_live(id, object).is_err());
        }
    }

    /// An object goes home, and once more, near whichever shard.
    fn free_twice(&mut self, near: usize, class: usize, which: usize) {
        let (id, cache) = (self.classes[class], self.cache);
        let [object] = self.take_held(class, which, 1, 1)[..] else { return };
        self.give_up(class, &[object]);
        // SAFETY: the object is ours.
        assert_eq!(unsafe { cache.store_to_spans(id, chain_of(&[object])) }, Ok(()));
        let before = cache.stats(id);
        let span = cache.source().span_of(object as usize);
        // SAFETY: records stay records.
        let left = span.is_none_or(|span| unsafe { span.as_ref() }.live() == 0);
        if id.batch() > 1 {
            // SAFETY: the misuse is the point.
            let twice = unsafe { cache.near(spread(near)).store(id, chain_of(&[object])) };
            let (double, gone) = (Misuse::DoubleFree(object, id), Misuse::Foreign(object, id));
            // Of a span that has left its class, one or the other is said.
            assert!(twice == Err(double) || left && twice == Err(gone), "{twice:?}");
            assert_eq!(cache.stats(id), before);
        }
    }

    fn step(&mut self, op: &Op) {
        let (cache, of) = (self.cache, |class: usize| class_of_size(SIZES[class]));
        match *op {
            Op::Fetch { near, class, wanted } => self.fetch(near, class, wanted),
            Op::FetchOne { near, class } => {
                let one = cache.near(spread(near)).fetch_one(of(class));
                self.receive(class, one.iter().map(|(object, _)| object.as_ptr()).collect());
            }
            Op::TakeOne { class } => {
                let one = cache.take_one(of(class));
                self.receive(class, one.iter().map(|(object, _)| object.as_ptr()).collect());
            }
            Op::PutOne { class, which } => self.put_one(class, which),
            Op::Store { near, class, from, count, apart } => {
                let chosen = self.take_held(class, from, count, apart);
                self.store(near, class, chosen);
            }
            Op::StoreBatch { near, class, from, apart } => {
                if self.held[class].len() >= of(class).batch() {
                    let chosen = self.take_held(class, from, of(class).batch(), apart);
                    self.store(near, class, chosen);
                }
            }
            Op::FreeTwice { near, class, which } => self.free_twice(near, class, which),
            Op::Plunder { near, class } => {
                cache.near(spread(near)).plunder(of(class)).unwrap();
            }
            Op::Drain { near, class, batches } => {
                let before = cache.stats(of(class)).transfer;
                let sent = cache.near(spread(near)).drain(of(class), batches).unwrap();
                assert_eq!(cache.stats(of(class)).transfer, before - sent);
                assert_eq!(sent % of(class).batch(), 0);
            }
            Op::MakeWay { near, class } => cache.near(spread(near)).make_way(of(class)).unwrap(),
            Op::PlunderNext { near } => cache.near(spread(near)).plunder_next().unwrap(),
            Op::FreeIdle { near } => {
                let before = cache.kept_bytes();
                cache.near(spread(near)).free_idle_spans();
                assert!(cache.kept_bytes() <= before);
            }
            Op::FreeKept => {
                cache.free_kept_spans();
                assert_eq!(cache.kept_bytes(), 0);
            }
            Op::Widen { shards } => {
                let before = cache.shards();
                cache.widen(shards);
                assert_eq!(cache.shards(), before.max(shards));
            }
            Op::Reserve { bytes } => cache.source().reserve(bytes),
            Op::Room { bytes } => cache.source().make_room(bytes),
            Op::Tight { tight } => cache.source().tighten(tight),
            Op::Runs { runs } => cache.source().give_runs(runs),
            Op::Refuse { n, count } => cache.source().refusals.refuse(n, count),
            Op::RefuseRecarving { n, count } => cache.source().recarvings.refuse(n, count),
        }
    }

    /// Objects and spans are conserved.
    fn check(&self) {
        let (mut pages, mut bytes) = (0, 0);
        for (class, held) in self.classes.iter().zip(&self.held) {
            let stats = self.cache.stats(*class);
            assert_eq!(stats.out, stats.transfer + held.len(), "{class:?}");
            pages += stats.spans * class.pages();
            bytes += stats.transfer * class.size();
        }
        assert_eq!(self.cache.source().pages_out(), pages + self.cache.kept_bytes() / PAGE_SIZE);
        assert_eq!(self.cache.held_bytes(), bytes);
    }

    /// All objects come back, and with them everything that is out.
    fn finish(mut self) {
        for class in 0..self.classes.len() {
            let rest = std::mem::take(&mut self.held[class]);
            self.store(class, class, rest);
            self.cache.drain(self.classes[class], usize::MAX).unwrap();
        }
        self.check();
        self.cache.free_kept_spans();
        for &class in &self.classes {
            let stats = self.cache.stats(class);
            assert_eq!((stats.spans, stats.out, stats.transfer), (0, 0, 0));
        }
        assert_eq!((self.cache.source().spans_out(), self.cache.held_bytes()), (0, 0));
        assert_eq!(self.cache.source().heap_stats().object_pages, 0);
    }
}

/// Does one operation after the other on a fresh cache, checks what holds after each, and at the end that
/// nothing is missing.
pub fn run(cache: &Cache<'_>, ops: &[Op]) {
    let mut spread = Spread::new(cache);
    for op in ops {
        spread.step(op);
        spread.check();
    }
    spread.finish();
}
