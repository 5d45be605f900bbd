//! Giving objects back: scavenging, thread exit, and the caches that a fork leaves behind.

use core::ptr;

use tiermalloc_central_cache::{Chain, Misuse};
use tiermalloc_size_class::Class;

use crate::list::{cut, ends_with};
use crate::{Budget, ObjectSource, ThreadCache};

/// Objects of a bin that [`ThreadCache::verify`] looks at.
const LOOKED_AT: usize = 256;

/// One part in so many of a class's calls is forgotten at a scavenge, while its bin has no room.
const FORGOTTEN: u8 = 8;

/// Longest list that is believed of a cache whose thread a fork has cut off.
const BELIEVED: usize = 1 << 16;

impl ThreadCache {
    /// Sends what has been aside since the last scavenge to the source (it lay below the low-water
    /// mark of its bin all the time), takes that much capacity away, and puts the lists aside.
    #[cold]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.warm.tiermalloc"))]
    pub(crate) fn scavenge(&self, source: &impl ObjectSource) -> Result<(), Misuse> {
        for class in Class::all() {
            let id = class.id();
            if self.capacity[id].get() == 0 {
                let calls = self.calls[id].get();
                self.calls[id].set(calls - calls.div_ceil(FORGOTTEN));
            }
            if self.aside_len[id].get() > 0 {
                // SAFETY: the cache is the calling thread's own.
                let flushed = unsafe { self.flush_aside(class, source)? };
                self.shrink(class, flushed);
            }
            let listed = self.listed(class);
            if listed > 0 {
                // T4: out of one list before they are in the other.
                let head = self.heads[id].replace(ptr::null_mut());
                core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
                self.aside[id].set(head);
                self.aside_len[id].set(listed as u32);
            }
        }
        source.tend()
    }

    /// Sends what is aside to the source, or, as far as it is [better taken apart](Self::goes_home), home; returns the number of objects.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn flush_aside(
        &self,
        class: Class,
        source: &impl ObjectSource,
    ) -> Result<usize, Misuse> {
        let id = class.id();
        let count = self.aside_len[id].get() as usize;
        // T4: out of the bin first.
        let mut head = self.aside[id].replace(ptr::null_mut());
        self.aside_len[id].set(0);
        self.room[id].set(self.room[id].get() + count as u32);
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
        let mut left = count;
        while left > 0 {
            let part = left.min(class.batch());
            left -= part;
            // SAFETY: there were `count` objects, and they are ours.
            unsafe {
                let chain = Chain { head, count: part };
                let home = self.goes_home(class, chain, source)?;
                if home && self.is_alone() {
                    let out = |rest| {
                        head = rest;
                        ends_with(class, rest, left)
                    };
                    source.send_first_home(class, chain.head, part, out)?;
                } else {
                    head = cut(class, head, part)?;
                    ends_with(class, head, left)?;
                    // It has lain for long: others are not to wait until it has come into this processor's cache.
                    match home {
                        true => source.send_home(class, chain)?,
                        false => source.store(class, chain)?,
                    }
                }
                self.flushes.set(self.flushes.get() + 1);
            }
        }
        Ok(count)
    }

    /// Sends all objects of a bin to the source and takes its capacity away.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".text.hot.tiermalloc"))]
    pub(crate) unsafe fn empty_bin(
        &self,
        class: Class,
        source: &impl ObjectSource,
    ) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe {
            self.flush_aside(class, source)?;
            while self.listed(class) > 0 {
                self.flush(class, class.batch(), source)?;
            }
        }
        self.shrink(class, usize::MAX);
        Ok(())
    }

    /// Sends every object to the source; the cache goes on, with empty bins and no capacity.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    pub unsafe fn flush_all(&self, source: &impl ObjectSource) -> Result<(), Misuse> {
        for class in Class::all() {
            if self.capacity[class.id()].get() > 0 {
                // SAFETY: passed on to the caller.
                unsafe { self.empty_bin(class, source)? };
            }
        }
        Ok(())
    }

    /// [`flush_all`](Self::flush_all), and gives the whole limit back: the end of the cache.
    ///
    /// # Errors
    /// A mistake of the program that shows on the way.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    pub unsafe fn retire(&self, source: &impl ObjectSource, budget: &Budget) -> Result<(), Misuse> {
        // SAFETY: passed on to the caller.
        unsafe { self.flush_all(source)? };
        self.give_all_back(budget);
        Ok(())
    }

    /// Looks at the newest objects of every bin, up to 256 each, for what a program that
    /// frees twice, or into an object, leaves behind. `is_object` says whether an address is that of
    /// an object of a class.
    ///
    /// # Errors
    /// The first mistake found.
    ///
    /// # Safety
    /// The cache is the calling thread's own.
    pub unsafe fn verify(&self, is_object: impl Fn(Class, *mut u8) -> bool) -> Result<(), Misuse> {
        for class in Class::all() {
            let mut object = self.heads[class.id()].get();
            let (mut mark, mut next_mark) = (ptr::null_mut(), 1);
            // The list is believed, not the numbers: a signal's handler may have come between the two,
            // and end the program.
            for step in 1..=LOOKED_AT {
                if object.is_null() {
                    break;
                }
                if object == mark {
                    return Err(Misuse::DoubleFree(object, class));
                }
                if !is_object(class, object) {
                    return Err(Misuse::NotAnObject(object, class));
                }
                if step == next_mark {
                    mark = object;
                    next_mark *= 2;
                }
                // SAFETY: an object in the list is ours, and its first word is the link.
                object = unsafe { Chain::next(object) };
            }
        }
        Ok(())
    }

    /// Sends the objects of a cache whose thread does not exist in this process to the source: in
    /// the child of a fork. The thread may have been cut off anywhere, so nothing but the lists is
    /// believed (T4), and each object only if `is_object` says so; what is lost stays lost.
    ///
    /// # Safety
    /// The thread that owned the cache does not run in this process, and nobody else uses the cache.
    pub unsafe fn salvage(
        &self,
        source: &impl ObjectSource,
        budget: &Budget,
        is_object: impl Fn(Class, *mut u8) -> bool,
    ) {
        for class in Class::all() {
            for list in [&self.heads[class.id()], &self.aside[class.id()]] {
                let mut object = list.replace(ptr::null_mut());
                for _ in 0..BELIEVED {
                    if object.is_null() || !is_object(class, object) {
                        break;
                    }
                    // SAFETY: it is memory of an object of this class, at the head of a list that
                    // nobody else uses.
                    unsafe {
                        let next = Chain::next(object);
                        Chain::link(object, ptr::null_mut());
                        // An object that was on its way is in two places: it is free already.
                        if source.store(class, Chain { head: object, count: 1 }).is_err() {
                            break;
                        }
                        object = next;
                    }
                }
            }
        }
        self.give_all_back(budget);
    }
}
