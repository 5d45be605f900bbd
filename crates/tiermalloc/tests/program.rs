//! A program's load, with the allocator as the program's own: collections, channels, jobs that travel
//! between threads. What comes out must be what would come out on any allocator.

mod support;

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use support::Random;

#[global_allocator]
static GLOBAL: tiermalloc::TierMalloc = tiermalloc::TierMalloc::new();

const THREADS: u64 = 4;

/// A few tens of thousands of insertions, look-ups and removals; returns a digest of what is left.
fn churn(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut words: HashMap<String, Vec<u32>> = HashMap::new();
    let mut ordered: BTreeMap<u64, Box<[u8]>> = BTreeMap::new();
    let mut queue: VecDeque<String> = VecDeque::new();
    let mut heap = BinaryHeap::new();
    for step in 0..20_000u32 {
        let key = random.next() % 3000;
        match random.below(6) {
            0 | 1 => words.entry(format!("word-{key}")).or_default().push(step),
            2 => drop(words.remove(&format!("word-{key}"))),
            3 => {
                let bytes = vec![key as u8; random.size(20_000)].into_boxed_slice();
                ordered.insert(key, bytes);
                if ordered.len() > 400 {
                    ordered.pop_first();
                }
            }
            4 => {
                let mut text = String::new();
                (0..random.below(40)).for_each(|n| write!(text, "{n},").expect("a string"));
                queue.push_back(text);
                if queue.len() > 500 {
                    queue.drain(..250).for_each(drop);
                }
            }
            _ => {
                heap.push((key, step));
                if heap.len() > 1000 {
                    heap = heap.into_sorted_vec().into_iter().take(500).collect();
                }
            }
        }
    }
    assert!(ordered.iter().all(|(key, bytes)| bytes.iter().all(|&byte| byte == *key as u8)));
    let mut digest = heap.len() as u64 + queue.iter().map(|text| text.len() as u64).sum::<u64>();
    let mut sorted: Vec<_> = words.into_iter().collect();
    sorted.sort();
    for (word, steps) in sorted {
        digest = digest.wrapping_mul(31).wrapping_add(word.len() as u64);
        steps.iter().for_each(|&step| digest = digest.wrapping_mul(31).wrapping_add(step.into()));
    }
    ordered.keys().fold(digest, |digest, &key| digest.wrapping_mul(31).wrapping_add(key))
}

#[test]
fn collections_in_several_threads_come_to_what_they_come_to_in_one() {
    let expected: Vec<u64> = (0..THREADS).map(churn).collect();
    for _ in 0..3 {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| std::thread::spawn(move || churn(seed))).collect();
        let got: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn what_producers_allocate_consumers_free() {
    let live = tiermalloc::stats().live;
    for bounded in [false, true] {
        let total = AtomicU64::new(0);
        let expected: u64 = (0..3 * 20_000u64).map(|n| n % 1000).sum();
        let (sender, receiver) = channel::<Vec<u64>>();
        let (tight, tight_end) = sync_channel::<Vec<u64>>(16);
        let (receiver, tight_end) = (Mutex::new(receiver), Mutex::new(tight_end));
        std::thread::scope(|scope| {
            let (sender, tight) = (sender, tight);
            for producer in 0..3u64 {
                let (sender, tight) = (sender.clone(), tight.clone());
                scope.spawn(move || {
                    for n in 0..20_000 {
                        let number = (producer * 20_000 + n) % 1000;
                        let mut message = vec![0; 1 + (n % 50) as usize];
                        message[0] = number;
                        if bounded {
                            tight.send(message).unwrap();
                        } else {
                            sender.send(message).unwrap();
                        }
                    }
                });
            }
            drop((sender, tight));
            let (total, receiver, tight_end) = (&total, &receiver, &tight_end);
            for _ in 0..2 {
                scope.spawn(move || {
                    let next = || {
                        if bounded {
                            tight_end.lock().unwrap().recv()
                        } else {
                            receiver.lock().unwrap().recv()
                        }
                    };
                    while let Ok(message) = next() {
                        total.fetch_add(message[0], Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), expected);
    }
    // Other tests of this binary run at the same time; what was sent would be ten times as much.
    let grown = tiermalloc::stats().live.saturating_sub(live);
    assert!(grown < 32 << 20, "{grown}");
}

/// A pool of workers that take boxed jobs from each other's queues, as thread pools do; jobs make jobs.
#[test]
fn jobs_are_made_in_one_thread_and_dropped_in_another() {
    type Job = Box<dyn FnOnce(&Pool) + Send>;
    struct Pool {
        jobs: Mutex<VecDeque<Job>>,
        more: Condvar,
        open: AtomicUsize,
        sum: AtomicU64,
    }
    impl Pool {
        fn add(&self, job: Job) {
            self.open.fetch_add(1, Ordering::Relaxed);
            self.jobs.lock().unwrap().push_back(job);
            self.more.notify_one();
        }
        fn work(&self) {
            loop {
                let mut jobs = self.jobs.lock().unwrap();
                let job = loop {
                    if self.open.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                    match jobs.pop_front() {
                        Some(job) => break job,
                        None => jobs = self.more.wait(jobs).unwrap(),
                    }
                };
                drop(jobs);
                job(self);
                if self.open.fetch_sub(1, Ordering::Relaxed) == 1 {
                    let _jobs = self.jobs.lock().unwrap();
                    self.more.notify_all();
                }
            }
        }
    }
    fn sum_of(numbers: Vec<u64>) -> Job {
        Box::new(move |pool| match numbers.as_slice() {
            [] => {}
            &[one] => drop(pool.sum.fetch_add(one, Ordering::Relaxed)),
            more => {
                let (left, right) = more.split_at(more.len() / 2);
                pool.add(sum_of(left.to_vec()));
                pool.add(sum_of(right.to_vec()));
            }
        })
    }
    let pool = Pool {
        jobs: Mutex::default(),
        more: Condvar::new(),
        open: AtomicUsize::new(0),
        sum: AtomicU64::new(0),
    };
    pool.add(sum_of((0..30_000).collect()));
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(|| pool.work())));
    });
    assert_eq!(pool.sum.into_inner(), (0..30_000).sum());
}

#[test]
fn shared_values_are_dropped_by_whichever_thread_is_last() {
    let table: Arc<RwLock<HashMap<usize, Arc<str>>>> = Arc::default();
    let threads: Vec<_> = (0..THREADS as usize)
        .map(|me| {
            let table = table.clone();
            std::thread::spawn(move || {
                let mut seen: Vec<Arc<str>> = Vec::new();
                for n in 0..5000usize {
                    let key = n * 7 % 501;
                    if n % 3 == me % 3 {
                        table.write().unwrap().insert(key, format!("value {key} of many").into());
                    } else if let Some(value) = table.read().unwrap().get(&key) {
                        assert_eq!(&**value, format!("value {key} of many"));
                        seen.push(value.clone());
                    }
                    if seen.len() > 100 {
                        seen.truncate(10);
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(Arc::into_inner(table).expect("the last one"));
}
