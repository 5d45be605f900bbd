/* cache-thrash: active false sharing (after Berger et al., "Hoard: a scalable memory allocator for
 * multithreaded applications", ASPLOS 2000).
 *
 * THREADS threads each allocate an object of 8 bytes, write to it many times, and free it, over and over.
 * An allocator that hands out pieces of one cache line to several threads makes them fight for it.
 *
 * Stresses: from where the small objects of different threads come. */

#include "common.h"

enum { SIZE = 8, WRITES = 400 };

struct writer {
    uint64_t objects;
    uint64_t checksum;
    APART;
};

static void *thrash(void *argument) {
    struct writer *writer = argument;
    uint64_t checksum = 0;
    for (uint64_t i = 0; i < writer->objects; i++) {
        volatile uint8_t *object = take(SIZE);
        for (int at = 0; at < SIZE; at++) object[at] = (uint8_t)i;
        for (int j = 0; j < WRITES; j++) object[j % SIZE] = (uint8_t)(object[j % SIZE] + 1);
        for (int at = 0; at < SIZE; at++) checksum += object[at];
        free((void *)object);
    }
    writer->checksum = checksum;
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct writer *writers = must(calloc((size_t)work.threads, sizeof *writers));
    for (int i = 0; i < work.threads; i++) writers[i].objects = scaled(work, 2.4e6 / work.threads);
    run_threads(work.threads, thrash, writers, sizeof *writers);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum += writers[i].checksum;
    free(writers);
    return finish(checksum);
}
