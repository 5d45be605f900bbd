//! Objects that were freed a moment ago, on their way home: each is put into its span as it is met in the list.
//!
//! What was freed last is in the processor's first cache, its link too, and there is nothing to be gathered before the lock of the class is
//! taken (as [`homing`](crate::homing) does for what has waited). That is half of the work, and as long as
//! objects lie in one span neither the page map is asked for them nor the span looked at anew: whether an object lies in it
//! the search for its bit says. What comes next in the list is looked at as well, so that no list is left that leads back.

use tiermalloc_page_heap::{Put, Putting, RawLock};
use tiermalloc_size_class::Class;

use crate::homing::{Emptied, not_put, span_at_home};
use crate::spans::Spans;
use crate::{Chain, Misuse, Near, SpanSource};

/// Objects of a list that are still to go home.
struct Leaving {
    object: *mut u8,
    count: usize,
}

impl<R: RawLock, S: SpanSource> Near<'_, R, S> {
    /// [`store_first_to_spans`](crate::CentralCache::store_first_to_spans) where all spans are this shard's.
    ///
    /// # Safety
    /// As for `store_first_to_spans`.
    #[inline(always)]
    pub(crate) unsafe fn store_straight(
        self,
        class: Class,
        head: *mut u8,
        count: usize,
        out: impl FnOnce(*mut u8) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        let mut emptied = Emptied::new();
        let mut leaving = Leaving { object: head, count };
        let per_class = &self.shard().classes[class.id()];
        let mut spans = per_class.spans.lock();
        spans.stores += 1;
        // SAFETY: passed on to the caller; under the lock.
        let mut answer = unsafe { self.put_each(class, &mut leaving, &mut spans, &mut emptied) };
        spans.live -= count - leaving.count;
        if answer.is_ok() {
            // Nobody else can have one of them as long as the lock is held.
            answer = out(leaving.object);
        }
        self.note_spare(per_class, class, &spans);
        drop(spans);
        // SAFETY: C3: they left their class with no object handed out.
        unsafe { self.let_all_go(&emptied) };
        answer
    }

    /// Whether an object of the class is in its span, under the lock of the class.
    #[inline(always)]
    fn is_back(self, class: Class, object: *mut u8) -> bool {
        let found = self.central.source.span_of(object as usize);
        span_at_home(class, found, self.at()).is_some_and(|home| {
            // SAFETY: a span of the class, under its lock.
            unsafe { home.as_ref().probe_object(object as usize) == Put::Twice }
        })
    }

    /// Puts objects into their spans until none is left, under the lock of the class.
    ///
    /// # Safety
    /// The objects are the caller's; the spans are those of the class and the shard.
    #[inline(never)]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    unsafe fn put_each(
        self,
        class: Class,
        leaving: &mut Leaving,
        spans: &mut Spans,
        emptied: &mut Emptied,
    ) -> Result<(), Misuse> {
        let shape = class.shape();
        let Leaving { mut object, count: mut left } = *leaving;
        let mut last = object;
        let mut answer = Ok(());
        while left > 0 {
            let found = self.central.source.span_of(object as usize);
            let Some(home) = span_at_home(class, found, self.at()) else {
                answer = Err(not_at_home(class, object, last));
                break;
            };
            // SAFETY: records stay records.
            let mut putting = Putting::begin(unsafe { home.as_ref() }, shape);
            // SAFETY: the span is one of this class, of which the shape is, under its lock; under it an object that is back
            // keeps its link.
            unsafe {
                if !putting.put(object) {
                    answer = not_put(class, object, home);
                    break;
                }
                loop {
                    last = object;
                    object = Chain::next(object);
                    left -= 1;
                    // What the span does not take may be another one's, the end of the list, or a mistake.
                    if left == 0 || !putting.put(object) {
                        break;
                    }
                }
                putting.end();
                if spans.settle(class, home) {
                    emptied.push(home);
                }
            }
        }
        // What the list goes on with is the next to go: where it has gone home already, the list is a circle.
        if answer.is_ok() && !object.is_null() && self.is_back(class, object) {
            answer = Err(Misuse::DoubleFree(object, class));
        }
        *leaving = Leaving { object, count: left };
        answer
    }
}

/// What an object is reported as that lies in no span of the class; the last one, where the list ends early because it was cut inside a circle.
#[cold]
fn not_at_home(class: Class, object: *mut u8, last: *mut u8) -> Misuse {
    match object.is_null() {
        true => Misuse::DoubleFree(last, class),
        false => Misuse::Foreign(object, class),
    }
}
