/* malloc-large: buffers of 4 to 32 MiB that come and go (after the description of the benchmark of that name
 * in mimalloc's collection: a database that takes its working memory anew for every request).
 *
 * Twenty slots; each step replaces a random one. Every page of a buffer is written when it is new, as a
 * program would that reads something into it.
 *
 * Stresses: page faults and the system calls that map and unmap, the cache of large spans, if there is one. */

#include "common.h"

enum { SLOTS = 20 };

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct rng rng = {11};
    uint8_t *slots[SLOTS] = {NULL};
    uint64_t checksum = 0, steps = scaled(work, 400);
    for (uint64_t step = 0; step < steps; step++) {
        uint32_t slot = rng_below(&rng, SLOTS);
        if (slots[slot] != NULL) checksum += slots[slot][0];
        free(slots[slot]);
        size_t size = rng_between(&rng, 4 << 20, 32 << 20);
        slots[slot] = take(size);
        touch(slots[slot], size, (uint8_t)step);
    }
    for (int slot = 0; slot < SLOTS; slot++) free(slots[slot]);
    return finish(checksum);
}
