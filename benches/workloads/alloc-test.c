/* alloc-test: random replacement in a large live set (after the test of that name by the authors of OLLIE,
 * "Testing memory allocators: ptmalloc2 vs tcmalloc vs hoard vs jemalloc", 2018).
 *
 * Each thread has its own set of slots. A random slot is emptied if it is full and filled if it is empty;
 * sizes are small ones mostly, as likely in each doubling from 16 bytes to 1 KiB, and a rare one of up to
 * 64 KiB. The first and the last byte of every object are written and read.
 *
 * Stresses: a live set beyond the caches of the processor and of the allocator, objects of all ages. */

#include "common.h"

enum { SLOTS = 1 << 16 };

struct set {
    uint8_t **slots;
    uint32_t *sizes;
    uint32_t count;
    struct rng rng;
    uint64_t steps;
    uint64_t checksum;
    APART;
};

static size_t size_of(struct rng *rng) {
    return rng_below(rng, 1000) == 0 ? rng_skewed(rng, 1024, 65536) : rng_skewed(rng, 16, 1024);
}

static void *replace(void *argument) {
    struct set *set = argument;
    for (uint64_t step = 0; step < set->steps; step++) {
        uint32_t slot = rng_below(&set->rng, set->count);
        uint8_t *object = set->slots[slot];
        if (object != NULL) {
            set->checksum += object[0] + object[set->sizes[slot] - 1];
            free(object);
            set->slots[slot] = NULL;
        } else {
            size_t size = size_of(&set->rng);
            object = take(size);
            object[0] = (uint8_t)slot;
            object[size - 1] = (uint8_t)size;
            set->slots[slot] = object;
            set->sizes[slot] = (uint32_t)size;
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct set *sets = must(calloc((size_t)work.threads, sizeof *sets));
    for (int i = 0; i < work.threads; i++) {
        sets[i].count = SLOTS;
        sets[i].slots = must(calloc(SLOTS, sizeof *sets[i].slots));
        sets[i].sizes = must(calloc(SLOTS, sizeof *sets[i].sizes));
        sets[i].rng.state = 77 + (uint64_t)i;
        sets[i].steps = scaled(work, 10e6 / work.threads);
    }
    run_threads(work.threads, replace, sets, sizeof *sets);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) {
        checksum = checksum * 31 + sets[i].checksum;
        for (uint32_t slot = 0; slot < SLOTS; slot++) free(sets[i].slots[slot]);
        free(sets[i].slots);
        free(sets[i].sizes);
    }
    free(sets);
    return finish(checksum);
}
