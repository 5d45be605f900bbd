//! Programs that allocate, one file each, for comparing allocators with.
//!
//! Each does a fixed amount of work that follows from a seed of its own, and returns a checksum of
//! what it read from its memory: the same on every allocator. What each is after, and whose published
//! description it follows, stands at the top of its file. No number in them was chosen for an
//! allocator: sizes and counts are the descriptions', or plain ones, scaled so that the system's
//! allocator takes about a second.
//!
//! | file | what it gives the workloads |
//! |---|---|
//! | [`rng`] | random numbers |
//! | [`block`] | blocks of memory, touched and checked |
//! | [`params`] | scale and threads |

#![forbid(unsafe_code)]

pub mod block;
mod cli;
pub mod params;
pub mod rng;

pub use cli::main;
use params::Params;

/// One workload.
pub struct Workload {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it stresses, in a few words.
    pub about: &'static str,
    /// Runs it and returns its checksum.
    pub run: fn(&Params) -> u64,
}

/// Declares a module a workload, and the list of them in the same order.
macro_rules! workloads {
    ($($module:ident)*) => {
        $(mod $module;)*
        /// Every workload, in the order of tables.
        pub const WORKLOADS: &[&Workload] = &[$($module::WORKLOAD),*];
    };
}

workloads! {
    strings string_sort vec_growth hash_map btree_map binary_trees linked_lists dyn_graph json
    tasks lru_cache arena calloc large_buffers live_heap alloc_test alloc_test_threads larson xmalloc
    cache_scratch cache_thrash mstress thread_churn arc_sharing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
        assert!(WORKLOADS.iter().all(|w| !w.about.is_empty() && !w.about.contains('\t')));
    }

    #[test]
    fn checksums_do_not_depend_on_the_run() {
        let params = Params { scale: 0.01, threads: 3 };
        for workload in WORKLOADS {
            let first = (workload.run)(&params);
            assert_eq!(first, (workload.run)(&params), "{}", workload.name);
        }
    }
}
