//! The reference model of one class: its transfer cache as a stack of batches and each of its spans as a set
//! of free indices. What all classes have in common is in `run.rs`.
//!
//! It predicts exactly what comes from the transfer cache and what the statistics say; of an object
//! that comes from a span it says which ones are right: the lowest free one of a span of the fullest
//! group.

use std::collections::{BTreeMap, BTreeSet};

use tiermalloc_central_cache::{Misuse, Past, SpanSource};
use tiermalloc_size_class::{Class, PAGE_SIZE};

use super::run::Shared;
use super::{Cache, KIB, chain_of, class_of_size, objects};

/// One class.
pub struct Model {
    pub class: Class,
    /// The batches of the transfer cache, the newest last.
    pub transfer: Vec<Vec<*mut u8>>,
    low_water: usize,
    /// Free indices of each span, by its address.
    pub spans: BTreeMap<usize, BTreeSet<usize>>,
    /// Objects that were handed out while their span was there, by its address.
    used: BTreeMap<usize, BTreeSet<usize>>,
    /// Objects that the program has.
    pub held: Vec<*mut u8>,
}

impl Model {
    pub fn new(size: usize) -> Self {
        Self {
            class: class_of_size(size),
            transfer: Vec::new(),
            low_water: 0,
            spans: BTreeMap::new(),
            used: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    fn batch_bytes(&self) -> usize {
        self.class.batch() * self.class.size()
    }

    /// Whether the transfer cache takes one more batch: as much as the heap, or 264 KiB; the first one in any case.
    fn has_room(&self, shared: &Shared) -> bool {
        let used = self.transfer.len();
        let bound = shared.reserved.max(264 * KIB);
        used == 0 || (used + 1) * self.batch_bytes() <= bound
    }

    /// Whether the transfer cache holds more than all of them should.
    pub fn hoards(&self, shared: &Shared) -> bool {
        self.transfer.len() * self.batch_bytes() > shared.most()
    }

    /// Batches that leave for a span of another class.
    pub fn way_for(&self, wanting: Class) -> usize {
        (2 * wanting.pages() * PAGE_SIZE / self.batch_bytes()).clamp(1, 16)
    }

    /// The group of a span, or `None` when it is full.
    fn group(&self, free: &BTreeSet<usize>) -> Option<usize> {
        let objects = self.class.objects();
        (!free.is_empty()).then(|| (objects - free.len()) * 8 / objects)
    }

    fn fullest(&self) -> Option<usize> {
        self.spans.values().filter_map(|free| self.group(free)).max()
    }

    fn place(&self, cache: &Cache<'_>, object: *mut u8) -> (usize, usize) {
        let span = cache.source().span_of(object as usize).expect("an object has a span");
        // SAFETY: the span has an object handed out, so it stays.
        let start = unsafe { span.as_ref() }.address();
        let shape = self.class.shape();
        let offset = object as usize - shape.first_object(start);
        (start, shape.object_at(offset).expect("the start of an object"))
    }

    /// Accounts for what was taken out of spans. Whether a fresh one was.
    fn taken(&mut self, cache: &Cache<'_>, got: &[*mut u8], wanted: usize) -> bool {
        let had_free = self.fullest().is_some();
        let mut from = None;
        let mut lines = None;
        for (before, &object) in got.iter().enumerate() {
            let (start, index) = self.place(cache, object);
            if from != Some(start) {
                // A span that was left had no more to give, and the next one is of the fullest.
                assert!(from.is_none_or(|left| self.spans[&left].is_empty()));
                if had_free {
                    assert_eq!(self.group(&self.spans[&start]), self.fullest());
                } else {
                    let all = (0..self.class.objects()).collect();
                    assert!(self.spans.insert(start, all).is_none(), "a span of its own");
                }
                from = Some(start);
                // Eight small ones are eight that fill whole lines, if there are such.
                let eight = wanted - before == 8 && self.class.size() < 64;
                lines = (0..self.class.objects() / 8)
                    .map(|line| line * 8..line * 8 + 8)
                    .find(|line| eight && line.clone().all(|i| self.spans[&start].contains(&i)));
                if let Some(line) = &lines {
                    // What they pass over counts as if it had been out.
                    self.used.entry(start).or_default().extend(0..line.start);
                }
            }
            let free = self.spans.get_mut(&start).expect("checked above");
            let expected = match &mut lines {
                Some(line) => line.next(),
                None => free.first().copied(),
            };
            assert_eq!(expected, Some(index), "the lowest free object, or line");
            free.remove(&index);
            self.used.entry(start).or_default().insert(index);
        }
        if got.len() < wanted && had_free {
            assert_eq!(self.fullest(), None, "less than wanted only when the class has no more");
        }
        self.stamp(got);
        self.held.extend_from_slice(got);
        !had_free && !got.is_empty()
    }

    /// Writes into both ends of each object; overlaps would show in `check_stamps`.
    fn stamp(&self, objects: &[*mut u8]) {
        for &object in objects {
            // SAFETY: the object is ours, and at least 8 bytes long.
            unsafe {
                object.cast::<usize>().write(object as usize);
                // Of 8 bytes this is all there is.
                object.add(self.class.size() - 8).cast::<usize>().write(!(object as usize));
            }
        }
    }

    fn check_stamps(&self, objects: &[*mut u8]) {
        for &object in objects {
            // SAFETY: as above.
            unsafe {
                if self.class.size() > 8 {
                    assert_eq!(object.cast::<usize>().read(), object as usize);
                }
                let end = object.add(self.class.size() - 8).cast::<usize>();
                assert_eq!(end.read(), !(object as usize));
            }
        }
    }

    /// Accounts for objects that went to their spans.
    fn given_to_spans(&mut self, places: &[(usize, usize)]) {
        for &(start, index) in places {
            let free = self.spans.get_mut(&start).expect("the object's span");
            assert!(free.insert(index));
            if free.len() == self.class.objects() {
                self.spans.remove(&start);
                self.used.remove(&start);
            }
        }
    }

    fn remove_batch(&mut self, shared: &mut Shared) -> Option<Vec<*mut u8>> {
        let batch = self.transfer.pop()?;
        shared.bytes -= self.batch_bytes();
        self.low_water = self.low_water.min(self.transfer.len());
        Some(batch)
    }

    pub fn fetch(&mut self, cache: &Cache<'_>, shared: &mut Shared, wanted: usize) {
        let wanted = wanted.min(self.class.batch());
        let whole = wanted == self.class.batch();
        let expected = if whole { self.remove_batch(shared) } else { None };
        let got = objects(cache.fetch(self.class, wanted));
        match expected {
            Some(batch) => {
                assert_eq!(got, batch, "the newest batch, as it came");
                self.stamp(&got);
                self.held.extend(got);
            }
            None => {
                let fresh = self.taken(cache, &got, wanted);
                shared.fetched(fresh);
            }
        }
    }

    pub fn fetch_one(&mut self, cache: &Cache<'_>, shared: &mut Shared) {
        let Some((object, zeroed)) = cache.fetch_one(self.class) else { return };
        if zeroed {
            let rest = self.class.size() - 8;
            // SAFETY: the object is ours.
            let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr().add(8), rest) };
            assert!(bytes.iter().all(|&byte| byte == 0), "known to be zero");
        }
        let fresh = self.taken(cache, &[object.as_ptr()], 1);
        shared.fetched(fresh);
    }

    pub fn take_one(&mut self, cache: &Cache<'_>) {
        let Some((object, past)) = cache.take_one(self.class) else { return };
        let object = object.as_ptr();
        let (start, index) = self.place(cache, object);
        let used = self.used.get(&start).is_some_and(|used| used.contains(&index));
        assert_eq!(past == Past::Used, used, "{past:?}");
        if past == Past::Zeroed {
            // SAFETY: the object is ours.
            let bytes = unsafe { std::slice::from_raw_parts(object, self.class.size()) };
            assert!(bytes.iter().all(|&byte| byte == 0), "known to be zero");
        }
        self.taken(cache, &[object], 1);
    }

    pub fn put_one(&mut self, cache: &Cache<'_>, which: usize) {
        if self.held.is_empty() {
            return;
        }
        let object = self.held.swap_remove(which % self.held.len());
        let (class, place) = (self.class, self.place(cache, object));
        assert_eq!(cache.check_live(class, object), Ok(()));
        // SAFETY: the object is ours.
        assert_eq!(unsafe { cache.put_one(class, object) }, Ok(()));
        self.given_to_spans(&[place]);
        if self.spans.contains_key(&place.0) {
            // SAFETY: freeing it twice is the point.
            let twice = unsafe { cache.put_one(class, object) };
            assert_eq!(twice, Err(Misuse::DoubleFree(object, class)));
            let kept = self.spans[&place.0].contains(&place.1);
            assert!(kept && cache.check_live(class, object) == twice);
        } else {
            let gone = Err(Misuse::Foreign(object, class));
            assert_eq!(cache.check_live(class, object), gone, "its span has left the class");
        }
    }

    pub fn store(&mut self, cache: &Cache<'_>, shared: &mut Shared, chosen: Vec<*mut u8>) {
        self.check_stamps(&chosen);
        let places: Vec<_> = chosen.iter().map(|&object| self.place(cache, object)).collect();
        // SAFETY: the objects are ours.
        unsafe { cache.store(self.class, chain_of(&chosen)) }.unwrap();
        if chosen.len() == self.class.batch() && self.has_room(shared) {
            self.transfer.push(chosen);
            // Each 256 KiB it is asked who hoards.
            if shared.stored(self.batch_bytes()) && self.hoards(shared) {
                shared.hoarder = Some(self.class.id());
            }
        } else {
            self.given_to_spans(&places);
        }
    }

    /// The first objects of a list go home as they are met in it.
    pub fn send_first(&mut self, cache: &Cache<'_>, chosen: Vec<*mut u8>, first: usize) {
        if chosen.is_empty() {
            return;
        }
        self.check_stamps(&chosen);
        let list = chain_of(&chosen);
        let (gone, stay) = chosen.split_at(first.clamp(1, 32).min(chosen.len()));
        let places: Vec<_> = gone.iter().map(|&object| self.place(cache, object)).collect();
        let mut rest = list.head;
        let out = |left| {
            rest = left;
            Ok(())
        };
        // SAFETY: the objects are ours.
        unsafe { cache.store_first_to_spans(self.class, list.head, gone.len(), out) }.unwrap();
        assert_eq!(rest, stay.first().copied().unwrap_or(std::ptr::null_mut()));
        self.given_to_spans(&places);
        self.stamp(stay);
        self.held.extend_from_slice(stay);
    }

    pub fn take_held(&mut self, from: usize, count: usize) -> Vec<*mut u8> {
        let from = from % (self.held.len() + 1);
        let count = count.min(self.held.len() - from);
        self.held.drain(from..from + count).collect()
    }

    pub fn misuse(&mut self, cache: &Cache<'_>, before: usize, what: usize) {
        let Some(&victim) = self.held.get(what % self.held.len().max(1)) else { return };
        let class = self.class;
        let (start, _) = self.place(cache, victim);
        let first = class.shape().first_object(start);
        let behind = first + class.objects() * class.size();
        let (wrong, expected) = match what % 3 {
            0 if self.spans[&start].first().is_some() => {
                let free =
                    self.spans[&start].first().map_or(0, |index| first + index * class.size());
                let free = free as *mut u8;
                (free, Misuse::DoubleFree(free, class))
            }
            1 if class.size() > 8 => {
                let inside = victim.wrapping_add(8);
                (inside, Misuse::NotAnObject(inside, class))
            }
            _ if behind < start + class.pages() * PAGE_SIZE => {
                let behind = behind as *mut u8;
                (behind, Misuse::NotAnObject(behind, class))
            }
            _ => return,
        };
        assert_eq!(cache.check_live(class, wrong), Err(expected));
        // SAFETY: the misuse is the point.
        assert_eq!(unsafe { cache.put_one(class, wrong) }, Err(expected));
        // The victim's span stays, because the victim is not among the good ones.
        let mut good = self.take_held(what / 3, before);
        if let Some(at) = good.iter().position(|&object| object == victim) {
            self.held.extend(good.drain(at..));
        }
        let places: Vec<_> = good.iter().map(|&object| self.place(cache, object)).collect();
        let mut chain = good;
        chain.push(wrong);
        // SAFETY: the misuse is the point; what follows it is null.
        let answer = unsafe { cache.store_to_spans(class, chain_of(&chain)) };
        // Linking wrote into memory that was not the test's.
        self.stamp(&self.held);
        assert_eq!(answer, Err(expected));
        self.given_to_spans(&places);
    }

    /// Batches leave the transfer cache for their spans. The number of their objects.
    pub fn send(&mut self, cache: &Cache<'_>, shared: &mut Shared, batches: usize) -> usize {
        let mut sent = 0;
        for _ in 0..batches {
            let Some(batch) = self.remove_batch(shared) else { break };
            sent += batch.len();
            let places: Vec<_> = batch.iter().map(|&object| self.place(cache, object)).collect();
            self.given_to_spans(&places);
        }
        sent
    }

    /// Those leave that nobody has wanted since the last time.
    pub fn send_idle(&mut self, cache: &Cache<'_>, shared: &mut Shared) -> usize {
        let idle = std::mem::replace(&mut self.low_water, self.transfer.len());
        self.send(cache, shared, idle)
    }

    /// Objects are conserved, and the cache agrees about where they are.
    pub fn check(&self, cache: &Cache<'_>) {
        let stats = cache.stats(self.class);
        let free: usize = self.spans.values().map(BTreeSet::len).sum();
        assert_eq!(stats.spans, self.spans.len());
        assert_eq!(stats.out + free, self.spans.len() * self.class.objects());
        assert_eq!(stats.transfer, self.transfer.iter().map(Vec::len).sum::<usize>());
        assert_eq!(stats.out - stats.transfer, self.held.len());
    }
}
