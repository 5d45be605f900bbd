/* thread-memory: what threads that have ended leave behind: `thread-memory THREADS together|loose`.
 *
 * THREADS threads in groups of 64; each allocates 200 objects of 16 to 256 bytes, frees them, and ends. Three
 * such groups come first and are not counted. `together`: each waits until all of its group have allocated,
 * so that every group needs as much as the first. `loose`: as they come; how many are alive at a time is the
 * system's choice, and an allocator sees threads that begin while others end.
 *
 * Figures: resident memory before and how much it grew. */

#include "resident.h"

enum { GROUP = 64, OBJECTS = 200, WARM_GROUPS = 3 };

static pthread_barrier_t all_alive;
static int is_together;

static void *serve(void *argument) {
    struct rng rng = {*(uint64_t *)argument};
    uint8_t *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        size_t size = rng_between(&rng, 16, 256);
        objects[i] = take(size);
        memset(objects[i], 1, size);
    }
    if (is_together) pthread_barrier_wait(&all_alive);
    for (int i = 0; i < OBJECTS; i++) free(objects[i]);
    return NULL;
}

static void group(uint64_t number) {
    uint64_t seeds[GROUP];
    for (int i = 0; i < GROUP; i++) seeds[i] = number * GROUP + (uint64_t)i;
    run_threads(GROUP, serve, seeds, sizeof seeds[0]);
}

int main(int argc, char **argv) {
    uint64_t groups = (argc > 1 ? (uint64_t)atoll(argv[1]) : 3200) / GROUP;
    is_together = argc < 3 || strcmp(argv[2], "together") == 0;
    pthread_barrier_init(&all_alive, NULL, GROUP);
    for (uint64_t i = 0; i < WARM_GROUPS; i++) group(i);
    double before = resident_kib();
    for (uint64_t i = 0; i < groups; i++) group(WARM_GROUPS + i);
    double after = resident_kib();
    figure("before", before / 1024, "MiB");
    figure("growth", 100 * (after - before) / before, "%");
    figure("growth", (after - before) / 1024, "MiB");
    return 0;
}
