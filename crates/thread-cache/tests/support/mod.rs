//! What the tests share: a source of objects that keeps book of every one of them, and can refuse, be
//! stingy, or cut its caller off.
// Every test binary is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub mod world;

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tiermalloc_size_class::{CLASSES, Class, PAGE_SHIFT, SLOTS};
use tiermalloc_sync::DefaultRawMutex;
use tiermalloc_thread_cache::{Budget, Chain, Misuse, ObjectSource, ThreadCache};

pub type Registry = tiermalloc_thread_cache::Registry<DefaultRawMutex>;

/// Bytes of memory for objects that are taken at once.
const BLOCK: usize = 64 * 1024;

/// What happens at the `n`-th call from now (1 is the next), and at those after it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// `count` fetches find no memory.
    Refuse { n: usize, count: usize },
    /// The caller is cut off as a fork cuts a thread off: by a panic, before the source has done
    /// anything or after it has done everything.
    Cut { n: usize, after: bool },
}

/// Book-keeping; the fields say what each entry is.
pub struct Books {
    /// Free objects of each class, the newest last.
    free: Vec<Vec<usize>>,
    /// Objects that are out, and their classes.
    pub out: BTreeMap<usize, Class>,
    /// Every fetch: class, wanted, and how many it got.
    pub fetches: Vec<(Class, usize, usize)>,
    /// Every store: class and number of objects.
    pub stores: Vec<(Class, usize)>,
    /// Every chain of more than one object that was sent home: class and number of objects.
    pub homes: Vec<(Class, usize)>,
    /// How many of them straight out of a list.
    pub straight: usize,
    /// Batches that the source says wait, of each class.
    pub waits: usize,
    /// Bytes that it says it holds.
    pub holds: usize,
    /// Whether it says that batches are somebody else's.
    pub foreign: bool,
    /// Objects of the store that was cut off before it was done.
    pub lost: Vec<usize>,
    /// Times that a cache has asked the source to look after itself.
    pub tends: usize,
    /// Every call to make way: class, and objects fetched of it at the last fetch before.
    pub ways: Vec<(Class, usize)>,
    /// The object that the next such call reports as freed twice.
    pub way: Option<usize>,
    /// What the source says it stands on (bytes).
    pub reserved: usize,
    /// Whether the test frees objects twice, after which chains may be shorter than they say.
    pub misused: bool,
    fault: Option<Fault>,
    calls: usize,
    stingy: bool,
    memory: Vec<(usize, Layout)>,
}

/// The source; see the module's documentation.
pub struct Objects(Mutex<Books>);

impl Objects {
    pub fn new() -> Self {
        Self(Mutex::new(Books {
            free: vec![Vec::new(); SLOTS],
            out: BTreeMap::new(),
            fetches: Vec::new(),
            stores: Vec::new(),
            homes: Vec::new(),
            straight: 0,
            waits: 0,
            holds: 0,
            foreign: false,
            lost: Vec::new(),
            tends: 0,
            ways: Vec::new(),
            way: None,
            reserved: usize::MAX,
            misused: false,
            fault: None,
            calls: 0,
            stingy: false,
            memory: Vec::new(),
        }))
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fault(&self, fault: Option<Fault>) {
        let mut books = self.books();
        (books.fault, books.calls) = (fault, 0);
    }

    /// Calls since the last [`fault`](Self::fault).
    pub fn calls(&self) -> usize {
        self.books().calls
    }

    /// From now on a fetch gives only half of what is wanted.
    pub fn be_stingy(&self, stingy: bool) {
        self.books().stingy = stingy;
    }

    /// An object past every cache.
    pub fn fetch_one(&self, class: Class) -> *mut u8 {
        self.books().fetch(class, 1).head
    }

    /// Objects that are out.
    pub fn out(&self) -> usize {
        self.books().out.len()
    }

    /// Objects of `class` that are out.
    pub fn out_of(&self, class: Class) -> usize {
        self.books().out.values().filter(|&&of| of == class).count()
    }

    /// Forgets the fetches and stores so far.
    pub fn forget(&self) {
        let mut books = self.books();
        books.fetches.clear();
        books.stores.clear();
        books.homes.clear();
        books.straight = 0;
        books.ways.clear();
    }

    /// Objects stored since the last [`forget`](Self::forget).
    pub fn stored(&self) -> usize {
        self.books().stores.iter().map(|(_, count)| count).sum()
    }
}

impl Books {
    /// Counts a call; whether the fault falls on it.
    fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        let fault = self.fault?;
        let falls = match fault {
            Fault::Refuse { n, count } => self.calls >= n && self.calls - n < count,
            Fault::Cut { n, .. } => self.calls == n,
        };
        falls.then_some(fault)
    }

    /// Takes memory for some objects, side by side as in a span; large ones one by one.
    fn make(&mut self, class: Class) {
        let count = (BLOCK / class.size()).max(1);
        // What divides the size and a page.
        let align = 1 << class.size().trailing_zeros().min(PAGE_SHIFT);
        let layout = Layout::from_size_align(count * class.size(), align).unwrap();
        // SAFETY: it is not empty.
        let block = unsafe { alloc(layout) } as usize;
        assert_ne!(block, 0, "the test ran out of memory");
        self.memory.push((block, layout));
        self.free[class.id()].extend((0..count).rev().map(|n| block + n * class.size()));
    }

    fn fetch(&mut self, class: Class, wanted: usize) -> Chain {
        let mut chain = Chain::EMPTY;
        let given = if self.stingy { wanted.div_ceil(2) } else { wanted };
        for _ in 0..given {
            if self.free[class.id()].is_empty() {
                self.make(class);
            }
            let object = self.free[class.id()].pop().unwrap();
            assert!(self.out.insert(object, class).is_none());
            // SAFETY: the object is free, and so ours.
            unsafe { chain.push(object as *mut u8) };
        }
        self.fetches.push((class, wanted, chain.count));
        chain
    }

    /// Checks that a chain is as long as it says, and that its objects are out.
    fn store(&mut self, class: Class, mut chain: Chain) -> Result<(), Misuse> {
        assert!(chain.count >= 1 && chain.count <= class.batch(), "at most a batch");
        self.stores.push((class, chain.count));
        // SAFETY: the chain owns its objects, which are checked one by one.
        while let Some(object) = unsafe { chain.pop() } {
            match self.out.get(&(object as usize)) {
                Some(&of) if of == class => self.out.remove(&(object as usize)),
                Some(_) => return Err(Misuse::Foreign(object, class)),
                None => return Err(Misuse::DoubleFree(object, class)),
            };
            self.free[class.id()].push(object as usize);
        }
        assert!(chain.count == 0 || self.misused, "the chain is as long as it says");
        Ok(())
    }
}

// SAFETY: an object is given out only while it is not out.
unsafe impl ObjectSource for Objects {
    fn fetch(&self, class: Class, wanted: usize) -> Chain {
        assert!(wanted >= 1 && wanted <= class.batch(), "1 to a batch is wanted");
        let mut books = self.books();
        match books.call() {
            Some(Fault::Refuse { .. }) => {
                books.fetches.push((class, wanted, 0));
                Chain::EMPTY
            }
            Some(Fault::Cut { after, .. }) => {
                if after {
                    let chain = books.fetch(class, wanted);
                    // Whoever is cut off here never gets them.
                    books.lost = walk(chain);
                }
                drop(books);
                std::panic::panic_any(CutOff);
            }
            None => books.fetch(class, wanted),
        }
    }

    unsafe fn store(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        let mut books = self.books();
        match books.call() {
            Some(Fault::Cut { after, .. }) => {
                if after {
                    books.store(class, chain)?;
                } else {
                    books.lost = walk(chain);
                }
                drop(books);
                std::panic::panic_any(CutOff);
            }
            _ => books.store(class, chain),
        }
    }

    unsafe fn send_home(&self, class: Class, chain: Chain) -> Result<(), Misuse> {
        if chain.count > 1 {
            self.books().homes.push((class, chain.count));
        }
        // SAFETY: passed on to the caller.
        unsafe { self.store(class, chain) }
    }

    unsafe fn send_first_home(
        &self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        self.books().straight += 1;
        let mut last = head;
        // SAFETY: the list has so many objects, which are the caller's.
        unsafe {
            (1..count).for_each(|_| last = Chain::next(last));
            out(Chain::next(last))?;
            Chain::link(last, std::ptr::null_mut());
            self.send_home(class, Chain { head, count })
        }
    }

    unsafe fn is_own(&self, _: Chain) -> bool {
        !self.books().foreign
    }

    fn waiting(&self, _: Class) -> usize {
        self.books().waits
    }

    fn cached_bytes(&self) -> usize {
        self.books().holds
    }

    fn make_way(&self, class: Class) -> Result<(), Misuse> {
        let mut books = self.books();
        if let Some(Fault::Cut { .. }) = books.call() {
            drop(books);
            std::panic::panic_any(CutOff);
        }
        let last = books.fetches.iter().rfind(|fetch| fetch.0 == class);
        let got = last.expect("after a fetch of its class").2;
        books.ways.push((class, got));
        books.way.take().map_or(Ok(()), |object| Err(Misuse::DoubleFree(object as *mut u8, class)))
    }

    fn reserved_bytes(&self) -> usize {
        self.books().reserved
    }

    fn tend(&self) -> Result<(), Misuse> {
        self.books().tends += 1;
        Ok(())
    }
}

/// The panic that stands for being cut off.
pub struct CutOff;

fn walk(mut chain: Chain) -> Vec<usize> {
    // SAFETY: the chain owns its objects.
    std::iter::from_fn(|| unsafe { chain.pop() }).map(|object| object as usize).collect()
}

impl Drop for Objects {
    fn drop(&mut self) {
        for (object, layout) in self.books().memory.drain(..) {
            // SAFETY: taken with this layout, and the test is over.
            unsafe { dealloc(object as *mut u8, layout) }
        }
    }
}

/// A thread's cache with everything around it.
pub struct Thread<'a, S> {
    pub cache: Box<ThreadCache>,
    pub source: &'a S,
    pub budget: &'a Budget,
    pub registry: &'a Registry,
}

impl<'a, S: ObjectSource> Thread<'a, S> {
    pub fn new(source: &'a S, budget: &'a Budget, registry: &'a Registry) -> Self {
        let cache = Box::new(ThreadCache::new());
        cache.endow(budget);
        Self { cache, source, budget, registry }
    }

    /// An object as the facade gets it; null when there is no memory.
    pub fn try_alloc(&self, class: Class) -> Result<*mut u8, Misuse> {
        // SAFETY: the cache is this thread's, and the bin is empty when `pop` says so.
        unsafe {
            let object = ThreadCache::pop(&raw const *self.cache, class.id());
            if !object.is_null() {
                return Ok(object);
            }
            self.cache.refill(class, self.source, self.budget, self.registry)
        }
    }

    pub fn alloc(&self, class: Class) -> *mut u8 {
        self.try_alloc(class).unwrap()
    }

    /// Frees an object as the facade does.
    pub fn try_free(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        // SAFETY: the cache is this thread's; the tests give up what they pass, or want to see it
        // refused.
        unsafe {
            if ThreadCache::push(&raw const *self.cache, class.id(), object) {
                return Ok(());
            }
            self.cache.overflow(class, object, self.source, self.budget, self.registry)
        }
    }

    pub fn free(&self, class: Class, object: *mut u8) {
        self.try_free(class, object).unwrap();
    }

    pub fn retire(&self) -> Result<(), Misuse> {
        // SAFETY: the cache is this thread's.
        unsafe { self.cache.retire(self.source, self.budget) }
    }

    pub fn flush_all(&self) {
        // SAFETY: as above.
        unsafe { self.cache.flush_all(self.source) }.unwrap();
    }

    /// Calls for a class until its bin may have room, and empties all bins.
    pub fn earn(&self, class: Class) {
        loop {
            let object = self.alloc(class);
            self.free(class, object);
            if self.cache.cached(class) > 0 {
                return self.flush_all();
            }
        }
    }

    /// Objects in all bins, and their bytes.
    pub fn cached(&self) -> (usize, usize) {
        classes().fold((0, 0), |(objects, bytes), class| {
            let cached = self.cache.cached(class);
            (objects + cached, bytes + cached * class.size())
        })
    }

    /// T2 and what follows from it.
    pub fn check_bounds(&self) {
        let (_, bytes) = self.cached();
        assert!(bytes <= self.cache.used(), "{bytes} > {}", self.cache.used());
        assert!(self.cache.used() <= self.cache.limit());
        assert!(self.cache.limit() <= self.budget.per_thread() + self.budget.floor());
    }
}

pub fn classes() -> impl Iterator<Item = Class> {
    (1..=CLASSES).filter_map(Class::from_id)
}

pub fn class_of_size(size: usize) -> Class {
    let sizes = [size, size + tiermalloc_size_class::STAGGER];
    let mut classes = tiermalloc_size_class::by_size();
    classes.find(|class| sizes.contains(&class.size())).expect("a class of this size")
}

/// Calls on the source for a class before its bin gets room.
pub fn calls_to_earn(class: Class) -> usize {
    (class.size() / 256).min(128)
}

pub const MIB: usize = 1 << 20;

/// Slow steps of a thread between two scavenges.
pub const STEPS: usize = 4097;

/// A budget that no test of a single bin runs into.
pub fn plenty() -> Budget {
    Budget::new(64 * MIB, 16 * MIB)
}

/// Makes `count` slow steps that leave nothing behind: of a class that the budget has no room for.
pub fn slow_steps<S: ObjectSource>(thread: &Thread<'_, S>, count: usize) {
    let class = class_of_size(256 * 1024);
    let object = thread.alloc(class);
    for step in 1..count {
        assert_eq!(thread.cache.cached(class), 0);
        if step % 2 == 1 {
            thread.free(class, object)
        } else {
            assert_eq!(thread.alloc(class), object)
        }
    }
    if count % 2 == 1 {
        thread.free(class, object);
    }
}
