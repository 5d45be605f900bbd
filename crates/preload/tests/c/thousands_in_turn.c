/* Two thousand threads, one after the other, four at a time: what a thread leaves in its cache serves the next one, and
 * resident memory stays where the first two hundred left it. */
#include "check.h"

enum { AT_ONCE = 4 };

static void *leftovers[AT_ONCE];

static void *body(void *argument)
{
    size_t me = (size_t)argument;
    uint64_t random = me + 1;
    void *blocks[300];
    /* What the thread before in this place left alive. */
    free(leftovers[me % AT_ONCE]);
    for (int i = 0; i < 300; i++) {
        size_t size = program_size(&random) % (16 * KIB);
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL, "%zu bytes", size);
        memset(blocks[i], 1, size);
    }
    for (int i = 0; i < 300; i++)
        free(blocks[i]);
    leftovers[me % AT_ONCE] = malloc(1000);
    return NULL;
}

static void many(size_t count)
{
    for (size_t first = 0; first < count; first += AT_ONCE) {
        pthread_t threads[AT_ONCE];
        for (size_t i = 0; i < AT_ONCE; i++)
            threads[i] = start(body, (void *)(first + i));
        for (int i = 0; i < AT_ONCE; i++)
            finish(threads[i]);
    }
}

int main(void)
{
    many(200);
    long warm = status_kib("VmRSS:");
    many(1000);
    long half = status_kib("VmRSS:");
    many(1000);
    long bound = warm * 11 / 10 + 2 * 1024, after = resident_within(bound);
    printf("threads in turn: %ld KiB resident after 200, %ld after 1200, %ld after 2200\n", warm, half, after);
    CHECK(after <= bound, "resident memory grew from %ld KiB to %ld", warm, after);
    return 0;
}
