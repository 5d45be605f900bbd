/* A thread that only frees: what it collects must come back to those who allocate, so that memory stays bounded by what
 * is alive, however much flows through. */
#include "check.h"
#include <stdatomic.h>

enum { RING = 4096, PRODUCERS = 2 };
enum { OBJECTS = 600000 };

static _Atomic(void *) rings[PRODUCERS][RING];

static void *produce(void *argument)
{
    size_t mine = (size_t)argument;
    uint64_t random = mine + 5;
    for (int i = 0; i < OBJECTS; i++) {
        size_t size = 16 + next_random(&random) % 500;
        size_t *block = malloc(size);
        CHECK(block != NULL, "object %d of %zu bytes", i, size);
        *block = size;
        ((char *)block)[size - 1] = (char)size;
        _Atomic(void *) *slot = &rings[mine][i % RING];
        while (atomic_load_explicit(slot, memory_order_acquire))
            sched_yield();
        atomic_store_explicit(slot, block, memory_order_release);
    }
    return NULL;
}

static void *only_free(void *argument)
{
    (void)argument;
    for (int i = 0; i < OBJECTS; i++)
        for (int ring = 0; ring < PRODUCERS; ring++) {
            _Atomic(void *) *slot = &rings[ring][i % RING];
            size_t *block;
            while (!(block = atomic_load_explicit(slot, memory_order_acquire)))
                sched_yield();
            atomic_store_explicit(slot, NULL, memory_order_release);
            CHECK(((char *)block)[*block - 1] == (char)*block, "object %d of ring %d was overwritten", i, ring);
            free(block);
        }
    return NULL;
}

int main(void)
{
    long before = status_kib("VmRSS:");
    pthread_t threads[PRODUCERS];
    for (size_t i = 0; i < PRODUCERS; i++)
        threads[i] = start(produce, (void *)i);
    pthread_t consumer = start(only_free, NULL);
    for (int i = 0; i < PRODUCERS; i++)
        finish(threads[i]);
    finish(consumer);
    long peak = status_kib("VmHWM:") - before;
    /* At most 2 x 4096 objects of 516 bytes are alive: 4 MiB. More than 300 MB flowed through. */
    CHECK(peak < 40 * 1024, "a thread that only frees keeps memory from the others: the peak is %ld KiB", peak);
    printf("free only: a peak of %ld KiB for 300 MB that flowed through\n", peak);
    return 0;
}
