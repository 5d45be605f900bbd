/* tiermalloc.h: what tiermalloc tells of itself, and lets itself be told. C99 and C++11.
 *
 * A program need not be linked with the library to use this. With TIERMALLOC_WEAK defined before this header is
 * included, all names are weak: each is null where the library is not there, or is an older one that has it not.
 *
 *     #define TIERMALLOC_WEAK
 *     #include <tiermalloc.h>
 *
 *     if (tiermalloc_stats) {
 *         struct tiermalloc_stats stats;
 *         if (tiermalloc_stats(&stats, sizeof stats) == 0)
 *             printf("%llu bytes in use\n", (unsigned long long)stats.live);
 *     }
 *
 * All functions may be called from any thread at any time, but from a signal's handler none.
 */
#ifndef TIERMALLOC_H
#define TIERMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef TIERMALLOC_WEAK
#define TIERMALLOC_API __attribute__((weak))
#else
#define TIERMALLOC_API
#endif

/* The heap at one moment. Later versions have more members at the end, and never others in these places. When nothing
 * moves meanwhile,
 *     mapped = live + thread_caches + parked_caches + transfer_caches + quarantine + span_free
 *            + free_dirty + free_clean + metadata + metadata_free
 */
struct tiermalloc_stats {
    uint64_t live;                  /* bytes: in the program's hands, rounded up to size classes and pages */
    uint64_t live_objects;          /* number: allocations in the program's hands */
    uint64_t slack_most;            /* bytes: most of live that rounding up to size classes may have added */
    uint64_t thread_caches;         /* bytes: in the caches of threads that run */
    uint64_t parked_caches;         /* bytes: in caches that wait for a thread to come */
    uint64_t transfer_caches;       /* bytes: in transfer caches */
    uint64_t quarantine;            /* bytes: freed and kept from being used again, in the pools hardened and guarded */
    uint64_t span_free;             /* bytes: free objects and tails in spans that also hold live ones */
    uint64_t free_dirty;            /* bytes: free pages that may be resident */
    uint64_t free_clean;            /* bytes: free pages that are not resident */
    uint64_t metadata;              /* bytes: records, page map apart, and threads' caches themselves */
    uint64_t metadata_free;         /* bytes: room for records that is not in use */
    uint64_t large;                 /* bytes: blocks of whole pages in spans of the heap, part of live */
    uint64_t large_count;           /* number: blocks of whole pages */
    uint64_t huge;                  /* bytes: blocks that are a mapping of their own, part of live */
    uint64_t huge_count;            /* number: blocks that are a mapping of their own */
    uint64_t mapped;                /* bytes: addresses taken from the system: the sum of all parts */
    uint64_t committed;             /* bytes: what of mapped may be resident */
    uint64_t spans;                 /* number: spans that serve objects */
    uint64_t threads;               /* number: threads with a cache */
    uint64_t missed;                /* number: parts that could not be looked at */
    uint64_t refills;               /* number since the start: chains of objects from the central cache to threads */
    uint64_t refilled_objects;      /* number since the start: objects in refills */
    uint64_t transfer_hits;         /* number since the start: refills by a batch of a transfer cache */
    uint64_t flushes;               /* number since the start: chains of objects from threads to the central cache */
    uint64_t flushed_objects;       /* number since the start: objects in flushes */
    uint64_t drained_batches;       /* number since the start: batches from transfer caches to spans */
    uint64_t regions;               /* number since the start: regions taken from the system */
    uint64_t grown;                 /* bytes since the start: taken from the system in regions */
    uint64_t decommits;             /* number since the start: calls that gave pages back and kept their addresses */
    uint64_t decommitted;           /* bytes since the start: given back with the addresses kept */
    uint64_t unmaps;                /* number since the start: calls that gave pages of regions back, addresses and all */
    uint64_t unmapped;              /* bytes since the start: given back, addresses and all */
    uint64_t huge_made;             /* number since the start: blocks made as a mapping of their own */
    uint64_t huge_returned;         /* bytes since the start: given back with such blocks */
    uint64_t returned;              /* bytes since the start: given back to the system in any way */
    uint64_t threads_ever;          /* number since the start: threads that have allocated */
    uint64_t forks;                 /* number since the start: forks made by this process */
    uint64_t transfer_lock_waits;   /* number since the start: waits for locks of transfer caches */
    uint64_t span_lock_waits;       /* number since the start: waits for locks of classes' spans */
    uint64_t page_lock_waits;       /* number since the start: waits for the lock of the page heap */
    uint64_t registry_lock_waits;   /* number since the start: waits for the lock of the list of threads */
};

/* A size class at one moment. When nothing moves meanwhile,
 *     in_spans = size * (live + thread + parked + transfer + quarantine + free + fresh objects) + tail_waste
 */
struct tiermalloc_class_stats {
    uint64_t size;                  /* bytes of an object */
    uint64_t objects_per_span;      /* objects in a span */
    uint64_t pages_per_span;        /* pages of 8 KiB of a span */
    uint64_t batch;                 /* objects that move between tiers at once */
    uint64_t live_objects;          /* number: objects in the program's hands */
    uint64_t thread_objects;        /* number: objects in the caches of threads that run */
    uint64_t parked_objects;        /* number: objects in caches that wait for a thread */
    uint64_t transfer_objects;      /* number: objects in the transfer cache */
    uint64_t quarantine_objects;    /* number: objects in the quarantine */
    uint64_t free_objects;          /* number: free objects in spans that were handed out before */
    uint64_t fresh_objects;         /* number: free objects in spans that never were */
    uint64_t spans;                 /* number: spans */
    uint64_t in_spans;              /* bytes: in spans */
    uint64_t tail_waste;            /* bytes: at the ends of spans and in front, where no object lies */
    uint64_t untouched;             /* bytes: whole pages in spans that nobody has touched */
    uint64_t slack_most;            /* bytes: most of an object that its request leaves unused */
    uint64_t refills;               /* number since the start: chains of objects from the central cache to threads */
    uint64_t refilled_objects;      /* number since the start: objects in refills */
    uint64_t transfer_hits;         /* number since the start: refills by a batch of the transfer cache */
    uint64_t flushes;               /* number since the start: chains of objects from threads to the central cache */
    uint64_t flushed_objects;       /* number since the start: objects in flushes */
    uint64_t drained_batches;       /* number since the start: batches from the transfer cache to spans */
    uint64_t transfer_lock_waits;   /* number since the start: waits for the lock of the transfer cache */
    uint64_t span_lock_waits;       /* number since the start: waits for the lock of the spans */
};

/* How statistics are written. */
enum tiermalloc_format {
    TIERMALLOC_TEXT = 0,        /* for a person */
    TIERMALLOC_JSON = 1,        /* one object on one line */
    TIERMALLOC_OPENMETRICS = 2  /* as Prometheus reads it */
};

/* The version of the library, as in "0.1.0". */
TIERMALLOC_API const char *tiermalloc_version(void);

/* Fills `*out`, of which the caller knows `size` bytes: sizeof *out. What the library does not know becomes 0.
 * 0, or EINVAL for null or a size that is no multiple of 8. Microseconds, and one for each thread. */
TIERMALLOC_API int tiermalloc_stats(struct tiermalloc_stats *out, size_t size);

/* Calls `each` for every size class that was ever used, in order of size, with a structure of which the library knows
 * `size` bytes, and what the caller has given. The figures are of one moment; `each` may allocate. 0, EINVAL for null,
 * or ENOMEM. */
TIERMALLOC_API int tiermalloc_each_class(
    void (*each)(const struct tiermalloc_class_stats *stats, size_t size, void *data), void *data);

/* Writes statistics to a file descriptor, in one call of write if the kernel takes it all. 0, EINVAL for a format that
 * there is not, or EIO. */
TIERMALLOC_API int tiermalloc_stats_write(int fd, int format);

/* Writes the value of a configuration key that the program was started with, as a user would write it, into `value`, of
 * `size` bytes, cut off if it is longer and always ended by a zero byte: sizes as a number of bytes, times as in "500ms",
 * or "none". The length that it has or would have; -1 if there is no such key. */
TIERMALLOC_API int tiermalloc_config_get(const char *key, char *value, size_t size);

/* Gives memory back to the system: all that no thread keeps, but for `keep` bytes. The number of bytes that went. */
TIERMALLOC_API size_t tiermalloc_trim(size_t keep);

/* The calling thread will not allocate for a while: what it has cached is there for others. */
TIERMALLOC_API void tiermalloc_thread_idle(void);

/* The calling thread is back at work. */
TIERMALLOC_API void tiermalloc_thread_busy(void);

/* The bytes from which on caches shrink and free pages go back at once; 0 for no limit. What it was before. */
TIERMALLOC_API size_t tiermalloc_set_soft_limit(size_t bytes);

/* The bytes that the heap never exceeds; 0 for no limit. What it was before. */
TIERMALLOC_API size_t tiermalloc_set_hard_limit(size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
