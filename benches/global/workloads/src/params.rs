//! How much of a workload runs, on how many threads.

/// What the command line says, the same for every workload.
pub struct Params {
    /// Factor on the amount of work; 1 is what tables are made of.
    pub scale: f64,
    /// Threads of the workloads that have any. Fixed unless asked for, so that machines can be
    /// compared; 4 are more than small machines have, as in real programs.
    pub threads: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { scale: 1.0, threads: 4 }
    }
}

impl Params {
    /// `count` scaled, at least 1.
    pub fn times(&self, count: usize) -> usize {
        ((count as f64 * self.scale) as usize).max(1)
    }

    /// Runs `work(thread)` on every thread and adds up what they return.
    pub fn on_threads(&self, work: impl Fn(usize) -> u64 + Sync) -> u64 {
        std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                (0..self.threads).map(|index| scope.spawn(move || work(index))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).fold(0, add)
        })
    }
}

/// Adds two checksums. Commutative, so that threads may finish in any order.
pub fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}
