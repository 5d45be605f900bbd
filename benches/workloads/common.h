/* What the workloads share: arguments, a generator of random numbers, the checksum line.
 *
 * A workload is called `NAME THREADS SCALE [EXTRA...]`, does an amount of work that depends on these alone,
 * and prints figures that depend on the work alone: they are compared between allocators, so that one that
 * loses an object or hands one out twice is not taken for fast. Nothing here or in a workload knows which
 * allocator it runs on. */

#ifndef TIERMALLOC_WORKLOAD_COMMON_H
#define TIERMALLOC_WORKLOAD_COMMON_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The command line. */
struct work {
    int threads;
    double scale;
};

static inline struct work work_of(int argc, char **argv) {
    struct work work = {1, 1.0};
    if (argc > 1) work.threads = atoi(argv[1]);
    if (argc > 2) work.scale = atof(argv[2]);
    if (work.threads < 1 || work.scale <= 0) {
        fprintf(stderr, "usage: %s THREADS SCALE [EXTRA...]\n", argv[0]);
        exit(2);
    }
    return work;
}

/* This share of `count`, at least one. */
static inline uint64_t scaled(struct work work, double count) {
    double share = count * work.scale;
    return share < 1 ? 1 : (uint64_t)share;
}

/* A generator of random numbers (splitmix64): its seed is its whole state. */
struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng) {
    uint64_t bits = (rng->state += UINT64_C(0x9e3779b97f4a7c15));
    bits = (bits ^ (bits >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ (bits >> 27)) * UINT64_C(0x94d049bb133111eb);
    return bits ^ (bits >> 31);
}

/* A number below `bound`, without a division. */
static inline uint32_t rng_below(struct rng *rng, uint32_t bound) {
    return (uint32_t)(((rng_next(rng) >> 32) * bound) >> 32);
}

/* A number from `low` to `high`, both included. */
static inline size_t rng_between(struct rng *rng, size_t low, size_t high) {
    return low + rng_below(rng, (uint32_t)(high - low + 1));
}

/* A size from `low` to `high`, small ones far more often: as likely in each doubling. */
static inline size_t rng_skewed(struct rng *rng, size_t low, size_t high) {
    int doublings = 0;
    while ((low << (doublings + 1)) <= high) doublings++;
    size_t from = low << rng_below(rng, (uint32_t)doublings + 1);
    size_t size = from + rng_below(rng, (uint32_t)from);
    return size > high ? high : size;
}

/* malloc that cannot fail, and calloc and realloc likewise. */
static inline void *must(void *block) {
    if (block == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(3);
    }
    return block;
}

static inline void *take(size_t size) { return must(malloc(size)); }

/* Writes to each page of a block and to both of its ends, as its user would. */
static inline void touch(void *block, size_t size, uint8_t byte) {
    volatile uint8_t *bytes = (volatile uint8_t *)block;
    for (size_t at = 0; at < size; at += 4096) bytes[at] = byte;
    bytes[size - 1] = byte;
}

/* The last member of what each thread works on: keeps the fields of neighbours out of each other's cache lines,
 * so that what is measured is the sharing that the allocator brings about and no other. */
#define APART char apart[128]

/* Runs `threads` threads on an array of `threads` arguments of `size` bytes each, and waits for them. */
static inline void run_threads(int threads, void *(*body)(void *), void *arguments, size_t size) {
    pthread_t *ids = (pthread_t *)take((size_t)threads * sizeof *ids);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, body, (char *)arguments + (size_t)i * size) != 0) {
            fprintf(stderr, "cannot start a thread\n");
            exit(3);
        }
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    free(ids);
}

/* The last line of every workload. */
static inline int finish(uint64_t checksum) {
    printf("checksum %016llx\n", (unsigned long long)checksum);
    return 0;
}

#endif
