//! Who serves: the one place where the pools part.
//!
//! The default pool's requests come here when they ask for whole pages, and where a thread is at its end; those of
//! the other pools always, because their threads' words say `DEAD` from the first allocation on, so that both fast
//! paths fall through. What a pool does is in its own module; this one only chooses. A further pool is a further
//! row here.
//!
//! | pool | objects of a class | whole pages |
//! |---|---|---|
//! | tiered, central | central cache, object by object | page heap (`large`) |
//! | hardened | spans, behind a quarantine (`hardened`) | page heap, between guard pages |
//! | guarded | pages of their own (`guarded`); where there are none left, as in hardened | the same |
//! | system | the C library (`system`) | the same |
//!
//! An object goes back to the pool that made it: the pool is chosen once, and what the hardened pool has made for the
//! guarded one is known by the page map.

use core::ptr;

use tiermalloc_size_class::Class;
use tiermalloc_sync::Patience;
use tiermalloc_sync::atomic::{AtomicBool, Ordering};
use tiermalloc_thread_cache::Chain;

use crate::config::{self, Config, Pool};
use crate::line::Line;
use crate::slow::{certain, expect_aligned};
use crate::state::{CENTRAL, MAP, heap};
use crate::{fatal, guarded, hardened, large, system};

/// Whether blocks are made for a size and not for a class. Written before the pool is chosen.
static EXACT: AtomicBool = AtomicBool::new(false);
/// Whether whole pages are the page heap's, and nothing is held against anything: what the default pool asks first.
/// Written before the pool is chosen.
static PLAIN: AtomicBool = AtomicBool::new(false);
/// Whether the C library serves: what is on the way to it is asked for by this before anything else. Written at the
/// first allocation, which has gone the longer way and prepared what belongs to it.
static SYSTEM: AtomicBool = AtomicBool::new(false);
/// Whether there may be objects of the hardened pool. Written before the pool is chosen.
static CHECKS: AtomicBool = AtomicBool::new(false);

impl Pool {
    /// Whether threads have caches.
    pub(crate) fn caches(self) -> bool {
        self == Self::Tiered
    }

    /// Whether a free that names a size is held against what was allocated.
    pub(crate) fn checks_sizes(self) -> bool {
        matches!(self, Self::Hardened | Self::Guarded)
    }
}

#[inline]
fn chosen() -> Pool {
    config::get().pool
}

/// Makes the pool that was asked for ready, before it is chosen; another one where it cannot be.
pub(crate) fn settle(config: &mut Config) {
    config.pool = match config.pool {
        // SAFETY: nothing is chosen yet, and one thread chooses.
        Pool::System if !unsafe { system::prepare() } => {
            Line::new()
                .text("pool=system: there is no other allocator here; tiered is used")
                .print();
            Pool::Tiered
        }
        Pool::Guarded if !guarded::prepare() => {
            Line::new().text("pool=guarded: there is no memory for it; hardened is used").print();
            Pool::Hardened
        }
        pool => pool,
    };
    // Relaxed: published with the choice.
    EXACT.store(matches!(config.pool, Pool::Guarded | Pool::System), Ordering::Relaxed);
    CHECKS.store(config.pool.checks_sizes(), Ordering::Relaxed);
    PLAIN.store(matches!(config.pool, Pool::Tiered | Pool::Central), Ordering::Relaxed);
}

/// At a thread's first allocation in a pool without caches, when all is prepared.
pub(crate) fn open() {
    if chosen() == Pool::System {
        // Release: the C library's functions are seen by whoever sees this.
        SYSTEM.store(true, Ordering::Release);
    }
}

/// Whether the C library serves, as far as it is known here.
#[inline]
fn is_system() -> bool {
    // Acquire: as in `open`. What is read too early goes the longer way.
    SYSTEM.load(Ordering::Acquire)
}

/// Whether a block has the size that was asked for, and not that of its class, so that none grows where it is.
#[inline]
pub(crate) fn is_exact() -> bool {
    // Relaxed: the caller has a block, which was made after the choice.
    EXACT.load(Ordering::Relaxed)
}

/// Whether this pool is tiered or central; if not so, it may still be either: who asks for it finds out.
#[inline]
fn is_plain() -> bool {
    // Relaxed: what is read too early sends the caller to ask.
    PLAIN.load(Ordering::Relaxed)
}

/// [`alloc`] in the system pool, without a look at anything else; `None` in all others.
#[inline]
pub(crate) fn alloc_by_system(size: usize, align: usize) -> Option<*mut u8> {
    if is_system() { Some(system::alloc(size, align)) } else { None }
}

/// An object of `class` for `size` bytes at `align`, for a thread without a cache; or null.
pub(crate) fn alloc(class: Class, size: usize, align: usize) -> *mut u8 {
    match chosen() {
        Pool::Tiered | Pool::Central => CENTRAL.fetch(class, 1).head,
        Pool::Hardened => hardened::alloc(class),
        Pool::Guarded => match guarded::alloc(size, align) {
            block if block.is_null() => hardened::alloc(class),
            block => block,
        },
        Pool::System => system::alloc(size, align),
    }
}

/// The same, its first `size` bytes zero. `None`: the pool has no way of its own to that.
#[inline]
pub(crate) fn alloc_zeroed(class: Class, size: usize, align: usize) -> Option<*mut u8> {
    if is_plain() {
        return None;
    }
    Some(match chosen() {
        Pool::Tiered | Pool::Central => return None,
        Pool::Hardened => hardened::alloc_zeroed(class, size),
        Pool::Guarded => match guarded::alloc(size, align) {
            block if block.is_null() => hardened::alloc_zeroed(class, size),
            block => block,
        },
        Pool::System => system::alloc_zeroed(size, align),
    })
}

/// Frees an object as one of `class`, in a thread without a cache.
///
/// # Safety
/// If it is a live object, it is not used any more.
pub(crate) unsafe fn free(class: Class, object: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe {
        match chosen() {
            Pool::Tiered | Pool::Central => {
                expect_aligned(object, class);
                Chain::link(object, ptr::null_mut());
                certain(CENTRAL.store_to_spans(class, Chain { head: object, count: 1 }));
            }
            Pool::Guarded if guarded::free(object, Some(Some(class))) => {}
            Pool::Hardened | Pool::Guarded => {
                expect_aligned(object, class);
                hardened::free(class, object);
            }
            Pool::System => system::free(object),
        }
    }
}

/// `size` bytes at `align` that no class serves, or null with `errno` set.
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) fn alloc_pages(size: usize, align: usize) -> *mut u8 {
    if is_plain() {
        if let Some(block) = large::waiting(size, align) {
            return block.as_ptr();
        }
    }
    alloc_fresh_pages(size, align)
}

#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
fn alloc_fresh_pages(size: usize, align: usize) -> *mut u8 {
    if is_plain() { large::alloc(size, align, false) } else { alloc_pages_otherwise(size, align) }
}

#[cold]
#[inline(never)]
fn alloc_pages_otherwise(size: usize, align: usize) -> *mut u8 {
    let pool = chosen();
    let block = match pool {
        Pool::Tiered | Pool::Central | Pool::Hardened => ptr::null_mut(),
        Pool::Guarded => guarded::alloc(size, align),
        Pool::System => return system::alloc(size, align),
    };
    if block.is_null() { large::alloc(size, align, pool.checks_sizes()) } else { block }
}

/// [`alloc_pages`], or null and nothing else.
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) fn try_alloc_pages(size: usize, align: usize) -> *mut u8 {
    let pool = chosen();
    let block = match pool {
        Pool::Tiered | Pool::Central | Pool::Hardened => ptr::null_mut(),
        Pool::Guarded => guarded::alloc(size, align),
        Pool::System => return system::alloc(size, align),
    };
    if block.is_null() { large::try_alloc(size, align, pool.checks_sizes()) } else { block }
}

/// [`alloc_pages`], all zero.
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) fn alloc_pages_zeroed(size: usize, align: usize) -> *mut u8 {
    if is_plain() {
        large::alloc_zeroed(size, align, false)
    } else {
        alloc_pages_zeroed_otherwise(size, align)
    }
}

#[cold]
#[inline(never)]
fn alloc_pages_zeroed_otherwise(size: usize, align: usize) -> *mut u8 {
    let pool = chosen();
    let block = match pool {
        Pool::Tiered | Pool::Central | Pool::Hardened => ptr::null_mut(),
        Pool::Guarded => guarded::alloc(size, align),
        Pool::System => return system::alloc_zeroed(size, align),
    };
    if block.is_null() { large::alloc_zeroed(size, align, pool.checks_sizes()) } else { block }
}

/// Frees what no class serves.
///
/// # Safety
/// If it is an allocation, it is not used any more.
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) unsafe fn free_pages(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe {
        if is_plain() {
            if !large::free_to_wait(pointer) {
                free_pages_now(pointer);
            }
        } else if is_system() {
            system::free(pointer);
        } else {
            free_pages_otherwise(pointer, false);
        }
    }
}

/// [`free_pages`] by a caller who names a size that no class serves.
///
/// # Safety
/// As for [`free_pages`].
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
pub(crate) unsafe fn free_pages_sized(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe {
        if !is_plain() {
            free_pages_otherwise(pointer, true);
        } else if !large::free_to_wait(pointer) {
            free_pages_now(pointer);
        }
    }
}

/// # Safety
/// As for [`free_pages`].
#[inline(never)]
#[unsafe(link_section = ".text.warm.tiermalloc")]
unsafe fn free_pages_now(pointer: *mut u8) {
    // SAFETY: passed on to the caller.
    unsafe { large::free(pointer) }
}

/// # Safety
/// As for [`free_pages`].
#[cold]
#[inline(never)]
unsafe fn free_pages_otherwise(pointer: *mut u8, sized: bool) {
    // SAFETY: passed on to the caller.
    unsafe {
        match chosen() {
            Pool::Guarded if guarded::free(pointer, sized.then_some(None)) => {}
            Pool::Tiered | Pool::Central | Pool::Hardened | Pool::Guarded => large::free(pointer),
            Pool::System => system::free(pointer),
        }
    }
}

/// Whether whole pages stand between two that nobody can touch.
#[inline]
pub(crate) fn guards_pages() -> bool {
    checks_sizes()
}

/// Whether a free that names a size is held against what was allocated.
#[inline]
pub(crate) fn checks_sizes() -> bool {
    !is_plain() && chosen().checks_sizes()
}

/// How a block is resized that does not stay as it is for its class's sake.
pub(crate) enum Resize {
    /// Not at all: it is what is wanted.
    Stay,
    /// As whole pages of the heap.
    Pages,
    /// By moving it: so many bytes are in it.
    Move(usize),
    /// By the C library.
    System,
}

/// How the block at `pointer` becomes one of `size` bytes at `align`, for `call`.
#[inline]
pub(crate) fn resize(call: &str, pointer: *mut u8, size: usize, align: usize) -> Resize {
    if is_plain() {
        return Resize::Pages;
    }
    match chosen() {
        Pool::Tiered | Pool::Central | Pool::Hardened => Resize::Pages,
        Pool::Guarded => match Class::from_id(MAP.class_id(pointer as usize)) {
            Some(class) => Resize::Move(class.size()),
            None => match guarded::made_for(call, pointer) {
                Some(made) if made == (size, align) => Resize::Stay,
                Some((bytes, _)) => Resize::Move(bytes),
                None => Resize::Pages,
            },
        },
        Pool::System => Resize::System,
    }
}

/// Bytes of the block of no class at `pointer`.
///
/// # Safety
/// `pointer` is a live allocation.
#[inline(never)]
pub(crate) unsafe fn usable_size(pointer: *mut u8) -> usize {
    const CALL: &str = "malloc_usable_size";
    // SAFETY: passed on to the caller.
    let pages = || match unsafe { heap().large_at(pointer as usize) } {
        Some(span) => span.bytes(),
        None => fatal::not_an_allocation(CALL, pointer as usize),
    };
    match chosen() {
        Pool::Tiered | Pool::Central | Pool::Hardened => pages(),
        Pool::Guarded => guarded::made_for(CALL, pointer).map_or_else(pages, |(bytes, _)| bytes),
        // SAFETY: passed on to the caller.
        Pool::System => unsafe { system::usable_size(pointer) },
    }
}

/// Looks at what a caller says of the block that it frees.
#[inline]
pub(crate) fn check_claim(pointer: *mut u8, size: usize, align: usize) {
    if is_plain() {
        return;
    }
    match chosen() {
        Pool::Tiered | Pool::Central | Pool::System => {}
        Pool::Hardened => hardened::check_claim(pointer, size, align),
        Pool::Guarded => {
            if MAP.class_id(pointer as usize) != 0 || !guarded::check_claim(pointer, size, align) {
                hardened::check_claim(pointer, size, align);
            }
        }
    }
}

/// Lets go of what waits to be used again.
pub(crate) fn flush() {
    if chosen().checks_sizes() {
        hardened::flush();
        guarded::flush();
    }
}

/// Looks at what waits for traces of a write. A signal's handler may end the program in the middle of the choice, so
/// this one does not wait for it.
pub(crate) fn verify() {
    if CHECKS.load(Ordering::Relaxed) {
        hardened::verify();
    }
}

/// Gives memory back as the pool's own way is; `None`: it has none.
pub(crate) fn trim(keep: usize) -> Option<usize> {
    (chosen() == Pool::System).then(|| system::trim(keep))
}

/// The address of a function of the C library that serves; `None`: it does not serve, or has no such function.
pub(crate) fn system_function(name: &[u8]) -> Option<usize> {
    (chosen() == Pool::System).then(|| system::function(name)).flatten()
}

/// See [`crate::raw::is_live`].
pub(crate) fn is_live(pointer: *mut u8) -> bool {
    let address = pointer as usize;
    match Class::from_id(MAP.class_id(address)) {
        Some(class) => CENTRAL.is_object(class, address),
        None => heap().is_large(address) || guarded::is_live(pointer),
    }
}

/// See [`crate::raw::rename_in_c_library`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn rename_in_c_library(functions: &[(&[u8], usize)]) -> usize {
    // SAFETY: passed on to the caller.
    if chosen() == Pool::System { 0 } else { unsafe { system::rename(functions) } }
}

/// What the chosen pool has beside the heap.
pub(crate) fn beside(patience: &mut Patience) -> Option<Beside> {
    guarded::figures(patience)
}

/// Tells of each freed object of a class that waits to be used again. `false`: somebody has had a lock for longer than
/// there is patience.
pub(crate) fn held(patience: &mut Patience, each: impl FnMut(Class)) -> bool {
    !chosen().checks_sizes() || hardened::held(patience, each)
}

/// Figures of a pool that does not use the heap, in bytes.
#[derive(Default)]
pub(crate) struct Beside {
    /// In the program's hands.
    pub live: usize,
    /// How many blocks that is.
    pub live_blocks: usize,
    /// Pages that may be resident.
    pub open: usize,
    /// Freed, and not to be used yet.
    pub waiting: usize,
    /// Addresses taken from the system.
    pub mapped: usize,
    /// Records.
    pub metadata: usize,
    /// Of their room, used or not, what may be resident.
    pub touched: usize,
    /// Room for more of them.
    pub metadata_free: usize,
}

/// Takes the pools' locks, before a fork.
pub(crate) fn lock_for_fork() {
    guarded::lock_for_fork();
    hardened::lock_for_fork();
}

/// Gives them up after it, in parent and child.
///
/// # Safety
/// [`lock_for_fork`] was called by the thread that forked.
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: passed on to the caller.
    unsafe {
        hardened::unlock_after_fork();
        guarded::unlock_after_fork();
    }
}
