/* mstress: objects that change hands between short-lived threads (after the stress test that mimalloc's
 * authors describe in "Mimalloc: free list sharding in action", 2019: real servers that keep some objects
 * and pass others on).
 *
 * In each of 40 rounds THREADS threads start, allocate items of small arrays, keep some for a while, free
 * others, swap others with a table that all share, and end. What is in the table then belongs to nobody.
 *
 * Stresses: frees across threads, heaps of ended threads, threads that begin with nothing. */

#include <stdatomic.h>

#include "common.h"

enum { ROUNDS = 40, SHARED = 5000, KEPT = 1000 };

/* An item knows its own length, so that whoever frees it can check it. */
struct item {
    uint64_t words;
    uint64_t seed;
    uint64_t word[];
};

static _Atomic(struct item *) shared[SHARED];

static struct item *make(struct rng *rng) {
    /* Mostly a few words, at times a few hundred, rarely many thousand. */
    uint32_t dice = rng_below(rng, 1000);
    size_t words = dice == 0 ? rng_between(rng, 1000, 8000) : dice < 50 ? rng_between(rng, 50, 400) : rng_between(rng, 1, 12);
    struct item *item = take(sizeof *item + words * sizeof item->word[0]);
    item->words = words;
    item->seed = rng_next(rng);
    for (size_t i = 0; i < words; i++) item->word[i] = item->seed ^ i;
    return item;
}

/* Checks an item and frees it. What it returns can be added up in any order. */
static uint64_t drop(struct item *item) {
    if (item == NULL) return 0;
    for (size_t i = 0; i < item->words; i++)
        if (item->word[i] != (item->seed ^ i)) {
            fprintf(stderr, "an item was overwritten\n");
            exit(4);
        }
    uint64_t seed = item->seed;
    free(item);
    return seed;
}

struct task {
    struct rng rng;
    uint64_t items;
    uint64_t checksum;
    APART;
};

static void *run(void *argument) {
    struct task *task = argument;
    struct item *kept[KEPT] = {NULL};
    uint64_t checksum = 0;
    for (uint64_t i = 0; i < task->items; i++) {
        struct item *item = make(&task->rng);
        uint32_t dice = rng_below(&task->rng, 100);
        if (dice < 40) {
            checksum += drop(item);
        } else if (dice < 75) {
            uint32_t slot = rng_below(&task->rng, KEPT);
            checksum += drop(kept[slot]);
            kept[slot] = item;
        } else {
            checksum += drop(atomic_exchange(&shared[rng_below(&task->rng, SHARED)], item));
        }
    }
    for (int slot = 0; slot < KEPT; slot++) checksum += drop(kept[slot]);
    task->checksum = checksum;
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct task *tasks = must(calloc((size_t)work.threads, sizeof *tasks));
    uint64_t checksum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < work.threads; i++) {
            tasks[i].rng.state = (uint64_t)(round * work.threads + i);
            tasks[i].items = scaled(work, 5e6 / ROUNDS / work.threads);
        }
        run_threads(work.threads, run, tasks, sizeof *tasks);
        for (int i = 0; i < work.threads; i++) checksum += tasks[i].checksum;
        /* As if a part of the work was done with. */
        for (int slot = 0; slot < SHARED; slot += 4) checksum += drop(atomic_exchange(&shared[slot], NULL));
    }
    for (int slot = 0; slot < SHARED; slot++) checksum += drop(atomic_exchange(&shared[slot], NULL));
    free(tasks);
    return finish(checksum);
}
