//! One object at a time, straight from and to the spans, without a word written into it.
//!
//! For callers that keep no caches and want to know at once: what an object held before, whether an
//! address is a live object, whether a free is the second one. Every answer is exact, because it is given
//! under the lock of the class.

use core::ptr::NonNull;

use tiermalloc_page_heap::{Past, Put, RawLock};
use tiermalloc_size_class::Class;

use crate::homing::expect_home;
use crate::{CentralCache, Misuse, SpanSource};

impl<R: RawLock, S: SpanSource> CentralCache<R, S> {
    /// One object of `class` and what is known of its contents, or `None` when there is no memory.
    ///
    /// Cost: a lock and some twenty instructions, or a span from the source.
    pub fn take_one(&self, class: Class) -> Option<(NonNull<u8>, Past)> {
        let lists = &self.near(0).shard().classes[class.id()].spans;
        let mut spans = lists.lock();
        if let Some(span) = spans.fullest() {
            // SAFETY: spans on the lists are of this class.
            let (object, past) = unsafe { spans.take_one(span)? };
            return Some((NonNull::new(object)?, past));
        }
        drop(spans);
        // As in `fetch`: without the lock, so that the class may get two spans at once.
        let span = self.source.alloc_span(class)?;
        let mut spans = lists.lock();
        // SAFETY: a fresh span of this class.
        let (object, past) = unsafe {
            spans.adopt(span);
            spans.take_one(span)?
        };
        Some((NonNull::new(object)?, past))
    }

    /// Takes one object back.
    ///
    /// # Errors
    /// A mistake of the program; nothing has changed then.
    ///
    /// # Safety
    /// If it is a live object of `class`, it is not used any more.
    pub unsafe fn put_one(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        let (shard, span) = self.home_of(object);
        let mut spans = shard.shard().classes[class.id()].spans.lock();
        let span = expect_home(class, object, (span, shard.at()))?;
        // SAFETY: a span of this class, under its lock.
        unsafe {
            spans.stores += 1;
            refused(span.as_ref().put_object(object as usize), class, object)?;
            spans.live -= 1;
            if spans.settle(class, span) {
                drop(spans);
                // C3: it left its class with no object handed out.
                self.source.free_span(span);
            }
        }
        Ok(())
    }

    /// Whether a live object of `class` starts at `object`.
    ///
    /// # Errors
    /// What a free of the address would be reported as.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub fn check_live(&self, class: Class, object: *mut u8) -> Result<(), Misuse> {
        let (shard, span) = self.home_of(object);
        let _spans = shard.shard().classes[class.id()].spans.lock();
        let span = expect_home(class, object, (span, shard.at()))?;
        // SAFETY: a span of this class, under its lock.
        refused(unsafe { span.as_ref().probe_object(object as usize) }, class, object)
    }
}

/// What an object that was found so is reported as, if it is not live.
pub(crate) fn refused(put: Put, class: Class, object: *mut u8) -> Result<(), Misuse> {
    match put {
        Put::Done => Ok(()),
        Put::Twice => Err(Misuse::DoubleFree(object, class)),
        Put::Misplaced => Err(Misuse::NotAnObject(object, class)),
    }
}
