//! Sequences of operations on a cache and on the models of its classes, and what these have in common.

use super::model::Model;
use super::{Cache, MIB};
use tiermalloc_size_class::{CLASSES, Class};

/// Sizes whose spans differ in kind: many objects, of one word or more, bits outside the record, a tail, two
/// batches a span, less than a batch a span, two objects that are a batch each, one object a span.
pub const SIZES: [usize; 8] = [8, 16, 248, 768, 6144, 4096, 28672, 256 * 1024];

#[derive(Clone, Debug)]
pub enum Op {
    /// Fetches so many (cut to a batch).
    Fetch {
        class: usize,
        wanted: usize,
    },
    FetchOne {
        class: usize,
    },
    /// Takes one straight from a span.
    TakeOne {
        class: usize,
    },
    /// Puts one of what is held straight back to its span.
    PutOne {
        class: usize,
        which: usize,
    },
    /// Stores so many of what is held, beginning with the `from`-th, in that order or reversed.
    Store {
        class: usize,
        from: usize,
        count: usize,
        reversed: bool,
    },
    /// Stores a whole batch, if so much is held.
    StoreBatch {
        class: usize,
        from: usize,
    },
    /// Sends the first objects of a list home.
    SendFirst {
        class: usize,
        from: usize,
        count: usize,
        first: usize,
        reversed: bool,
    },
    /// Stores something that is free already, or no object at all, behind `before` good ones.
    Misuse {
        class: usize,
        before: usize,
        what: usize,
    },
    Plunder {
        class: usize,
    },
    Drain {
        class: usize,
        batches: usize,
    },
    /// What a thread does after a fetch of the class.
    MakeWay {
        class: usize,
    },
    /// Plunders the next 16 of all classes, in turn.
    PlunderNext,
    /// The source says that it has reserved so much.
    Reserve {
        bytes: usize,
    },
    /// The source refuses its next spans.
    Refuse {
        n: usize,
        count: usize,
    },
}

/// What all classes share.
#[derive(Default)]
pub struct Shared {
    /// Bytes in all transfer caches.
    pub bytes: usize,
    /// What the source says it has reserved.
    pub reserved: usize,
    /// Times that the source was told of a surplus.
    told: usize,
    /// Whether a class took a fresh span while the transfer caches held much.
    short: bool,
    /// Whose turn it is to be looked at.
    turn: usize,
    /// The id of a class that may hold so much that it is asked first.
    pub hoarder: Option<usize>,
}

impl Shared {
    /// A batch has come into a transfer cache. Whether they hold one more piece of 256 KiB now.
    pub fn stored(&mut self, bytes: usize) -> bool {
        let before = self.bytes;
        self.bytes += bytes;
        self.told += usize::from(before / (2 * MIB) != self.bytes / (2 * MIB));
        before / (MIB / 4) != self.bytes / (MIB / 4)
    }

    /// Objects were fetched from spans, the last of them a fresh one or not.
    pub fn fetched(&mut self, fresh: bool) {
        self.short |= fresh && self.bytes > self.most();
    }

    /// Bytes that they should hold together at most while somebody needs fresh memory.
    pub fn most(&self) -> usize {
        (self.reserved / 16).max(MIB)
    }

    /// The id of the class whose turn it is.
    fn next(&mut self) -> usize {
        self.turn += 1;
        (self.turn - 1) % CLASSES + 1
    }
}

/// Makes way for `but`: the class that hoards lets go of as much as two spans have, or else of the next 16 classes the first that
/// holds anything of 16 batches; if it is not the one that wants room.
fn let_go(cache: &Cache<'_>, models: &mut [Model], shared: &mut Shared, but: Class) {
    fn find(models: &mut [Model], id: usize) -> Option<&mut Model> {
        models.iter_mut().find(|model| model.class.id() == id)
    }
    if let Some(model) = shared.hoarder.and_then(|id| find(models, id)) {
        if !model.hoards(shared) {
            shared.hoarder = None;
        } else if model.class != but {
            let batches = model.way_for(but);
            model.send(cache, shared, batches);
            return;
        }
    }
    for _ in 0..16 {
        let Some(model) = find(models, shared.next()).filter(|model| model.class != but) else {
            continue;
        };
        if model.send(cache, shared, 16) > 0 {
            if model.hoards(shared) {
                shared.hoarder = Some(model.class.id());
            }
            return;
        }
    }
}

/// What [`Op::MakeWay`] does.
fn make_way(cache: &Cache<'_>, models: &mut [Model], shared: &mut Shared, class: usize) {
    let but = models[class].class;
    if std::mem::take(&mut shared.short) {
        let_go(cache, models, shared, but);
    }
    assert_eq!(cache.make_way(but), Ok(()));
}

fn plunder_next(cache: &Cache<'_>, models: &mut [Model], shared: &mut Shared) {
    for _ in 0..16 {
        let id = shared.next();
        if let Some(model) = models.iter_mut().find(|model| model.class.id() == id) {
            model.send_idle(cache, shared);
        }
    }
    assert_eq!(cache.plunder_next(), Ok(()));
}

/// One operation. The class that it is about, if it is about one.
fn step(cache: &Cache<'_>, models: &mut [Model], shared: &mut Shared, op: &Op) -> Option<usize> {
    match *op {
        Op::Fetch { class, wanted } => {
            models[class].fetch(cache, shared, wanted);
            Some(class)
        }
        Op::FetchOne { class } => {
            models[class].fetch_one(cache, shared);
            Some(class)
        }
        Op::TakeOne { class } => {
            models[class].take_one(cache);
            Some(class)
        }
        Op::PutOne { class, which } => {
            models[class].put_one(cache, which);
            Some(class)
        }
        Op::Store { class, from, count, reversed } => {
            let mut chosen = models[class].take_held(from, count);
            if reversed {
                chosen.reverse();
            }
            models[class].store(cache, shared, chosen);
            Some(class)
        }
        Op::StoreBatch { class, from } => {
            let batch = models[class].class.batch();
            let from = from % (models[class].held.len() + 1).saturating_sub(batch).max(1);
            let chosen = models[class].take_held(from, batch);
            models[class].store(cache, shared, chosen);
            Some(class)
        }
        Op::SendFirst { class, from, count, first, reversed } => {
            let mut chosen = models[class].take_held(from, count);
            if reversed {
                chosen.reverse();
            }
            models[class].send_first(cache, chosen, first);
            Some(class)
        }
        Op::Misuse { class, before, what } => {
            models[class].misuse(cache, before, what);
            Some(class)
        }
        Op::Plunder { class } => {
            let sent = models[class].send_idle(cache, shared);
            assert_eq!(cache.plunder(models[class].class), Ok(sent));
            Some(class)
        }
        Op::Drain { class, batches } => {
            let sent = models[class].send(cache, shared, batches);
            assert_eq!(cache.drain(models[class].class, batches), Ok(sent));
            Some(class)
        }
        Op::MakeWay { class } => {
            make_way(cache, models, shared, class);
            None
        }
        Op::PlunderNext => {
            plunder_next(cache, models, shared);
            None
        }
        Op::Reserve { bytes } => {
            shared.reserved = bytes;
            cache.source().reserve(bytes);
            None
        }
        Op::Refuse { n, count } => {
            cache.source().refusals.refuse(n, count);
            None
        }
    }
}

/// Does one operation after the other on a fresh cache, checks everything after each, and at the end that
/// nothing is missing.
pub fn run(cache: &Cache<'_>, ops: &[Op]) {
    let mut models = SIZES.map(Model::new);
    let mut shared = Shared::default();
    for op in ops {
        match step(cache, &mut models, &mut shared, op) {
            Some(class) => models[class].check(cache),
            None => models.iter().for_each(|model| model.check(cache)),
        }
        let spans: usize = models.iter().map(|model| model.spans.len()).sum();
        assert_eq!(cache.source().spans_out(), spans, "whole free spans go back, others stay");
        assert_eq!(cache.source().told(), shared.told, "told each 2 MiB, of {}", shared.bytes);
    }
    for model in &mut models {
        let rest = std::mem::take(&mut model.held);
        model.store(cache, &mut shared, rest);
        let sent = model.send(cache, &mut shared, usize::MAX);
        assert_eq!(cache.drain(model.class, usize::MAX), Ok(sent));
        model.check(cache);
        assert!(model.spans.is_empty());
    }
    assert_eq!((cache.source().spans_out(), shared.bytes), (0, 0));
    assert_eq!(cache.source().heap_stats().object_pages, 0);
}
