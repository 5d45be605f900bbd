/* rptest: blocks of 16 bytes to 64 KiB, a part of them freed by the neighbour (after the benchmark that
 * comes with rpmalloc and its published description).
 *
 * Each thread fills the free ones of its slots with blocks, in most rounds small and in some large, writes
 * to each page of them, frees a random part, and hands another part to the next thread, which frees it.
 *
 * Stresses: medium and large sizes, page faults, cross-thread frees of whole spans. */

#include "mailbox.h"

enum { SLOTS = 1024, PARCEL = 128 };

static pthread_barrier_t meeting;

struct worker {
    struct worker *next; /* to whom a part goes */
    struct mailbox inbox;
    struct rng rng;
    uint64_t rounds;
    uint64_t checksum;
    APART;
};

static uint8_t *block_of(struct rng *rng, int large) {
    size_t size = large ? rng_skewed(rng, 2048, 65536) : rng_skewed(rng, 16, 4096);
    uint8_t *block = take(size);
    touch(block, size, (uint8_t)size);
    return block;
}

static void *run(void *argument) {
    struct worker *worker = argument;
    uint8_t *slots[SLOTS] = {NULL};
    uint64_t checksum = 0;
    for (uint64_t round = 0; round < worker->rounds; round++) {
        for (int slot = 0; slot < SLOTS; slot++)
            if (slots[slot] == NULL) slots[slot] = block_of(&worker->rng, round % 8 == 0);
        for (int i = 0; i < SLOTS / 2; i++) {
            uint32_t slot = rng_below(&worker->rng, SLOTS);
            checksum += drop(slots[slot]);
            slots[slot] = NULL;
        }
        uint8_t *packed[PARCEL];
        int count = 0;
        for (int slot = 0; slot < SLOTS && count < PARCEL; slot++)
            if (slots[slot] != NULL) {
                packed[count++] = slots[slot];
                slots[slot] = NULL;
            }
        mailbox_send(&worker->next->inbox, packed, count);
        checksum += mailbox_empty(&worker->inbox);
        if (round % 16 == 15) pthread_barrier_wait(&meeting);
    }
    for (int slot = 0; slot < SLOTS; slot++) checksum += drop(slots[slot]);
    worker->checksum = checksum;
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct worker *workers = must(calloc((size_t)work.threads, sizeof *workers));
    for (int i = 0; i < work.threads; i++) {
        workers[i].next = &workers[(i + 1) % work.threads];
        workers[i].rng.state = 99 + (uint64_t)i;
        workers[i].rounds = scaled(work, 8000.0 / work.threads);
    }
    pthread_barrier_init(&meeting, NULL, (unsigned)work.threads);
    run_threads(work.threads, run, workers, sizeof *workers);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum += workers[i].checksum + mailbox_empty(&workers[i].inbox);
    free(workers);
    return finish(checksum);
}
