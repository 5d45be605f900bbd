//! The classes under the models: few, because a fork's gate takes two locks for each of them, and loom
//! looks at what may happen before each.

use core::ops::Index;
use std::vec::Vec;

use tiermalloc_size_class::Class;
use tiermalloc_sync::CachePadded;

use crate::RawLock;
use crate::shard::PerClass;

/// Ids of the classes that models use: of 64, 27,776, 39,040 and 4,096 bytes. All others share the entry
/// before them, in which nothing is ever put: what is looked at in passing is empty.
const IDS: [usize; 4] = [4, 155, 163, 193];

/// Whether models use a class.
pub(crate) fn is_used(class: Class) -> bool {
    IDS.contains(&class.id())
}

/// An entry for each class of [`IDS`], and one for the others.
pub(crate) struct Classes<R: RawLock>(Vec<CachePadded<PerClass<R>>>);

impl<R: RawLock> Classes<R> {
    pub(crate) fn new() -> Self {
        Self((0..=IDS.len()).map(|_| CachePadded::new(PerClass::new())).collect())
    }

    pub(crate) fn iter(&self) -> core::slice::Iter<'_, CachePadded<PerClass<R>>> {
        self.0.iter()
    }
}

impl<R: RawLock> Index<usize> for Classes<R> {
    type Output = CachePadded<PerClass<R>>;
    fn index(&self, id: usize) -> &Self::Output {
        &self.0[IDS.iter().position(|&known| known == id).map_or(0, |at| at + 1)]
    }
}
