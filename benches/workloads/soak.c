/* soak: a producer and a consumer that never stop: `soak SECONDS`.
 *
 * One thread allocates objects of 16 to 2,048 bytes, another frees them, through a bounded queue, which is full
 * when they begin: there is never more alive than then, so resident memory has no reason to grow.
 *
 * Figures: resident memory after 2 s, the largest seen after that, its growth, and objects passed on per
 * second. */

#include <stdatomic.h>

#include "resident.h"

enum { QUEUE = 1 << 14, BATCH = 256 };

static uint8_t *queue[QUEUE];
static _Atomic uint64_t written, freed_up_to;
static atomic_int stop;

/* Both sides move in batches, so that neither is measured for how fast it can wait. */
static void *produce(void *unused) {
    (void)unused;
    struct rng rng = {51};
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t at = atomic_load_explicit(&written, memory_order_relaxed);
        if (at - atomic_load_explicit(&freed_up_to, memory_order_acquire) > QUEUE - BATCH) {
            usleep(50);
            continue;
        }
        for (uint64_t i = at; i < at + BATCH; i++) {
            size_t size = rng_skewed(&rng, 16, 2048);
            queue[i % QUEUE] = take(size);
            touch(queue[i % QUEUE], size, 1);
        }
        atomic_store_explicit(&written, at + BATCH, memory_order_release);
    }
    return NULL;
}

static void *consume(void *unused) {
    (void)unused;
    /* From a full queue: otherwise it depends on who is faster when the most is alive. */
    while (atomic_load_explicit(&written, memory_order_acquire) < QUEUE - BATCH) usleep(50);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t at = atomic_load_explicit(&freed_up_to, memory_order_relaxed);
        if (atomic_load_explicit(&written, memory_order_acquire) == at) {
            usleep(50);
            continue;
        }
        for (uint64_t i = at; i < at + BATCH; i++) free(queue[i % QUEUE]);
        atomic_store_explicit(&freed_up_to, at + BATCH, memory_order_release);
    }
    return NULL;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 60;
    pthread_t producer, consumer;
    if (pthread_create(&producer, NULL, produce, NULL) != 0) return 3;
    if (pthread_create(&consumer, NULL, consume, NULL) != 0) return 3;
    double began = seconds_of(CLOCK_MONOTONIC);
    double settled = 0, most = 0, elapsed;
    while ((elapsed = seconds_of(CLOCK_MONOTONIC) - began) < seconds) {
        usleep(50000);
        double resident = resident_kib();
        if (elapsed < 2)
            settled = resident > settled ? resident : settled;
        else
            most = resident > most ? resident : most;
    }
    atomic_store(&stop, 1);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    figure("in the first 2 s", settled / 1024, "MiB");
    figure("largest after", most / 1024, "MiB");
    figure("growth", 100 * (most - settled) / settled, "%");
    figure("objects", (double)freed_up_to / elapsed / 1e6, "M/s");
    return 0;
}
