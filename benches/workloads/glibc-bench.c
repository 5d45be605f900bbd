/* glibc-bench: blocks of one size, allocated all and freed all; and random replacement in several threads
 * (after the descriptions of malloc-simple and malloc-thread in the C library's own benchmarks).
 *
 * `simple`: for sizes of 16 to 512 bytes, allocate 25, 100, 400, and 1,600 blocks and free them in the
 * order of allocation. `thread`: each thread replaces random ones of 1,024 blocks of 4 to 32,768 bytes, small
 * ones more often.
 *
 * Stresses: the shortest paths with little else around them; caches that are too small for a burst. */

#include "common.h"

enum { MOST = 1600, SLOTS = 1024 };

struct slots {
    struct rng rng;
    uint64_t steps;
    uint64_t checksum;
    APART;
};

static void *simple(void *argument) {
    struct slots *slots = argument;
    static const size_t sizes[] = {16, 48, 128, 256, 512};
    uint8_t *blocks[MOST];
    uint64_t checksum = 0;
    for (uint64_t done = 0; done < slots->steps;) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (int count = 25; count <= MOST; count *= 4) {
                for (int i = 0; i < count; i++) {
                    blocks[i] = take(sizes[s]);
                    blocks[i][0] = (uint8_t)i;
                }
                for (int i = 0; i < count; i++) {
                    checksum += blocks[i][0];
                    free(blocks[i]);
                }
                done += (uint64_t)count;
            }
    }
    slots->checksum = checksum;
    return NULL;
}

static void *replace(void *argument) {
    struct slots *slots = argument;
    uint8_t *blocks[SLOTS] = {NULL};
    uint64_t checksum = 0;
    for (uint64_t step = 0; step < slots->steps; step++) {
        uint32_t slot = rng_below(&slots->rng, SLOTS);
        if (blocks[slot] != NULL) checksum += blocks[slot][0];
        free(blocks[slot]);
        size_t size = rng_skewed(&slots->rng, 4, 32768);
        blocks[slot] = take(size);
        blocks[slot][0] = (uint8_t)size;
    }
    for (int slot = 0; slot < SLOTS; slot++) free(blocks[slot]);
    slots->checksum = checksum;
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    int is_simple = argc > 3 && strcmp(argv[3], "simple") == 0;
    struct slots *slots = must(calloc((size_t)work.threads, sizeof *slots));
    for (int i = 0; i < work.threads; i++) {
        slots[i].rng.state = 3 + (uint64_t)i;
        slots[i].steps = scaled(work, (is_simple ? 20e6 : 8e6) / work.threads);
    }
    run_threads(work.threads, is_simple ? simple : replace, slots, sizeof *slots);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum += slots[i].checksum;
    free(slots);
    return finish(checksum);
}
