/* shbench: rising and falling sizes, freed in different orders (after the descriptions of MicroQuill's
 * SmartHeap benchmark in the literature, where it is called sh6bench; with `foreign`, as in sh8bench, a part
 * of the objects is freed by another thread).
 *
 * Each thread goes through sizes of 1 to 1,000 bytes, small ones in longer runs. It frees a run first in the
 * order of allocation, the next in the opposite order, and keeps every eighth object for several runs.
 *
 * Stresses: runs of one size, frees in order and in reverse, objects that pin what is around them. */

#include "mailbox.h"

enum { RUN = 600, KEPT = 512, LARGEST = 1000 };

static pthread_barrier_t meeting;

struct runner {
    struct runner *next; /* to whom a part goes, or NULL */
    struct mailbox inbox;
    uint64_t rounds;
    uint64_t checksum;
    APART;
};

static void *run(void *argument) {
    struct runner *runner = argument;
    uint8_t *kept[KEPT] = {NULL}, *objects[RUN];
    uint64_t checksum = 0, runs = 0;
    for (uint64_t round = 0; round < runner->rounds; round++) {
        for (size_t step = 0; step < 64; step++) {
            /* Up and down again, in steps that grow with the size. */
            size_t at = step < 32 ? step : 63 - step, size = 1 + at * at * (LARGEST - 1) / (31 * 31);
            int count = RUN - (int)at * (RUN - 40) / 31, left = 0;
            for (int i = 0; i < count; i++) {
                uint8_t *object = take(size);
                object[0] = (uint8_t)(size + (size_t)i);
                object[size - 1] = object[0];
                if (i % 8 == 7) {
                    uint64_t slot = (runs * 131 + (uint64_t)i) % KEPT;
                    checksum += drop(kept[slot]);
                    kept[slot] = object;
                } else {
                    objects[left++] = object;
                }
            }
            if (runner->next != NULL && runs % 3 == 0)
                mailbox_send(&runner->next->inbox, objects, left);
            else if (runs % 2 == 0)
                for (int i = 0; i < left; i++) checksum += drop(objects[i]);
            else
                for (int i = left - 1; i >= 0; i--) checksum += drop(objects[i]);
            runs++;
        }
        checksum += mailbox_empty(&runner->inbox);
        if (runner->next != NULL) pthread_barrier_wait(&meeting);
    }
    for (int slot = 0; slot < KEPT; slot++) checksum += drop(kept[slot]);
    runner->checksum = checksum;
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    int foreign = argc > 3 && strcmp(argv[3], "foreign") == 0;
    struct runner *runners = must(calloc((size_t)work.threads, sizeof *runners));
    for (int i = 0; i < work.threads; i++) {
        runners[i].rounds = scaled(work, 520.0 / work.threads);
        if (foreign) runners[i].next = &runners[(i + 1) % work.threads];
    }
    pthread_barrier_init(&meeting, NULL, (unsigned)work.threads);
    run_threads(work.threads, run, runners, sizeof *runners);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum += runners[i].checksum + mailbox_empty(&runners[i].inbox);
    free(runners);
    return finish(checksum);
}
