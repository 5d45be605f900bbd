/* burst-idle: what comes back after a burst, while the program does nothing: `burst-idle SECONDS KEEP`.
 *
 * A thread allocates 400,000 objects of 16 to 1,016 bytes, writes to them, frees them all, or all but every
 * KEEP-th if KEEP is not 0, and ends. The main thread then sleeps and calls nothing. A server after its peak.
 *
 * Figures: what the burst took, which share of it is back after the sleep, the processor time of the
 * process during the sleep. */

#include "resident.h"

enum { OBJECTS = 400000 };

static uint8_t **objects;
static uint64_t keep;
static double at_peak;

static void *burst(void *unused) {
    (void)unused;
    struct rng rng = {31};
    for (uint64_t i = 0; i < OBJECTS; i++) {
        size_t size = rng_between(&rng, 16, 1016);
        objects[i] = take(size);
        memset(objects[i], 1, size);
    }
    at_peak = resident_kib();
    for (uint64_t i = 0; i < OBJECTS; i++)
        if (keep == 0 || i % keep != 0) free(objects[i]);
    return NULL;
}

int main(int argc, char **argv) {
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 10;
    keep = argc > 2 ? (uint64_t)atoll(argv[2]) : 0;
    objects = aside(OBJECTS * sizeof *objects);
    free(take(100));
    double before = resident_kib();
    pthread_t thread;
    if (pthread_create(&thread, NULL, burst, NULL) != 0) return 3;
    pthread_join(thread, NULL);
    double cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    sleep(seconds);
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double after = resident_kib();
    figure("burst", (at_peak - before) / 1024, "MiB");
    figure("back", 100 * (at_peak - after) / (at_peak - before), "%");
    figure("idle CPU", 100 * cpu / seconds, "%");
    return 0;
}
