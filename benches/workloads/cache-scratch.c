/* cache-scratch: passive false sharing (after Berger et al., "Hoard: a scalable memory allocator for
 * multithreaded applications", ASPLOS 2000).
 *
 * The main thread allocates one small object for each of THREADS threads, side by side in one cache line as
 * likely as not, and hands them out. Each thread writes to its object, frees it, and goes on with objects of
 * its own of the same size. An allocator that lets a thread reuse the foreign object at once keeps the
 * cache line moving between processors; one that gives each thread memory of its own is free of that.
 *
 * Stresses: to whom a freed object goes. */

#include "common.h"

enum { SIZE = 8, WRITES = 2000 };

struct writer {
    volatile uint8_t *object;
    uint64_t objects;
    uint64_t checksum;
    APART;
};

static void *scratch(void *argument) {
    struct writer *writer = argument;
    volatile uint8_t *object = writer->object;
    for (uint64_t i = 0; i < writer->objects; i++) {
        for (int at = 0; at < SIZE; at++) object[at] = (uint8_t)i;
        for (int j = 0; j < WRITES; j++) object[j % SIZE] = (uint8_t)(object[j % SIZE] + 1);
        for (int at = 0; at < SIZE; at++) writer->checksum += object[at];
        free((void *)object);
        object = take(SIZE);
    }
    free((void *)object);
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct writer *writers = must(calloc((size_t)work.threads, sizeof *writers));
    for (int i = 0; i < work.threads; i++) {
        writers[i].object = take(SIZE);
        writers[i].objects = scaled(work, 400e3 / work.threads);
    }
    run_threads(work.threads, scratch, writers, sizeof *writers);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum += writers[i].checksum;
    free(writers);
    return finish(checksum);
}
