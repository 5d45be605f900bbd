//! What is known without a lock: of the batches that wait in a transfer cache, and of where objects are at home.

use tiermalloc_page_heap::RawLock;
use tiermalloc_size_class::Class;
use tiermalloc_sync::atomic::Ordering;

use crate::homing::owner_of;
use crate::{Chain, Near, SpanSource};

/// Objects of a chain whose home is looked for.
const LOOKED_AT: usize = 8;

impl<R: RawLock, S> Near<'_, R, S> {
    /// Batches of `class` that wait in the shard's transfer cache at this moment; one load.
    #[inline]
    pub fn waiting(self, class: Class) -> usize {
        // Relaxed: it may be different a moment later anyway.
        self.shard().classes[class.id()].batches.load(Ordering::Relaxed) as usize
    }

    /// Whether a batch of `class` waits in the transfer cache at this moment.
    pub fn has_batches(self, class: Class) -> bool {
        self.waiting(class) > 0
    }

    /// Whether somebody is at the spans of `class` at this moment; one load, with this workspace's locks. Who need not go
    /// there may leave it at that: on the way home objects are looked at one by one, and others wait meanwhile.
    #[inline]
    pub fn is_busy(self, class: Class) -> bool {
        #[cfg(not(tiermalloc_loom))]
        return self.shard().classes[class.id()].spans.is_locked();
        // Models come to the lock itself.
        #[cfg(tiermalloc_loom)]
        {
            let _ = class;
            false
        }
    }
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// Whether the first few objects of a chain are the shard's own: those of others go home to each of them, under their locks.
    ///
    /// Cost: a load while there is one shard; else the span of eight objects.
    ///
    /// # Safety
    /// The chain owns its objects.
    #[cold]
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub unsafe fn is_own(self, chain: Chain) -> bool {
        let mut object = chain.head;
        if self.central.log() == 0 {
            return true;
        }
        for _ in 0..chain.count.min(LOOKED_AT) {
            if object.is_null()
                || owner_of(self.central.source.span_of(object as usize)) != self.at()
            {
                return false;
            }
            // SAFETY: the object is the chain's.
            object = unsafe { Chain::next(object) };
        }
        true
    }
}

#[cfg(all(test, not(tiermalloc_loom)))]
mod tests {
    use tiermalloc_page_heap::{OsPages, PageHeap, Span};
    use tiermalloc_page_map::PageMap;
    use tiermalloc_sync::DefaultRawMutex;

    use super::*;
    use crate::CentralCache;

    #[test]
    fn who_is_at_the_spans_of_a_class_is_seen_by_those_who_are_near() {
        static MAP: PageMap<Span> = PageMap::new();
        static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
            CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
        CENTRAL.widen(2);
        let (first, second) = (CENTRAL.near(0), CENTRAL.near(1));
        let [class, other] = [3, 4].map(|id| Class::from_id(id).unwrap());
        let busy = || {
            [(first, class), (first, other), (second, class)]
                .map(|(near, class)| near.is_busy(class))
        };
        assert_eq!(busy(), [false; 3]);
        let spans = first.shard().classes[class.id()].spans.lock();
        assert_eq!(busy(), [true, false, false]);
        drop(spans);
        assert_eq!(busy(), [false; 3]);
    }

    #[test]
    fn objects_are_their_shards_own() {
        static MAP: PageMap<Span> = PageMap::new();
        static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
            CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
        let class = Class::from_id(3).unwrap();
        let (first, second) = (CENTRAL.near(0), CENTRAL.near(0));
        let mut batch = first.fetch(class, class.batch());
        // SAFETY: it was fetched, and is not used otherwise.
        unsafe { assert!(second.is_own(batch), "there is one shard") };
        CENTRAL.widen(2);
        let (first, second) = (CENTRAL.near(0), CENTRAL.near(1));
        // SAFETY: as above.
        unsafe { assert_eq!((first.is_own(batch), second.is_own(batch)), (true, false)) };
        let theirs = second.fetch(class, 1);
        // SAFETY: as above.
        unsafe {
            assert_eq!((first.is_own(theirs), second.is_own(theirs)), (false, true));
            let own = batch.pop().unwrap();
            // One of another shard's, behind one of its own.
            let mut both = theirs;
            both.push(own);
            assert_eq!((first.is_own(both), second.is_own(both)), (false, false));
            assert_eq!(both.pop(), Some(own));
            // Behind as many as are looked at it is not seen.
            for place in [LOOKED_AT - 1, LOOKED_AT] {
                let mut taken = [core::ptr::null_mut(); LOOKED_AT];
                for slot in taken.iter_mut().take(place) {
                    *slot = batch.pop().unwrap();
                    both.push(*slot);
                }
                assert_eq!(first.is_own(both), place == LOOKED_AT);
                taken.iter().take(place).rev().for_each(|&object| {
                    assert_eq!(both.pop(), Some(object));
                    batch.push(object);
                });
            }
            batch.push(own);
            first.store(class, batch).unwrap();
            second.store(class, both).unwrap();
        }
    }

    #[test]
    fn batches_are_counted_where_they_wait() {
        static MAP: PageMap<Span> = PageMap::new();
        static CENTRAL: CentralCache<DefaultRawMutex, PageHeap<'static, DefaultRawMutex, OsPages>> =
            CentralCache::new(PageHeap::new(&MAP, OsPages::new()));
        CENTRAL.widen(2);
        let (first, second) = (CENTRAL.near(0), CENTRAL.near(1));
        let class = Class::from_id(3).unwrap();
        let batches = [(); 3].map(|()| first.fetch(class, class.batch()));
        for (n, batch) in batches.into_iter().enumerate() {
            assert_eq!((first.waiting(class), first.has_batches(class)), (n, n > 0));
            // SAFETY: it was fetched, and is not used any more.
            unsafe { first.store(class, batch) }.unwrap();
        }
        assert_eq!((second.waiting(class), second.has_batches(class)), (0, false));
    }
}
