/* Forks, threads and ends of processes while the allocator's own thread gives memory back: children find the heap
 * whole, whether the process has threads of its own or not, and a child gives memory back too. */
#include "check.h"

enum { BLOCKS = 300 };

/* Frees much at once, in pieces, so that there is something to give back for a while. */
static void leave_much(void)
{
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(100 * KIB);
        CHECK(blocks[i] != NULL, "100 KiB");
        memset(blocks[i], 1, 100 * KIB);
    }
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static void use_the_heap(uint64_t seed)
{
    uint64_t random = seed + 1;
    void *blocks[200];
    size_t sizes[200];
    for (int i = 0; i < 200; i++) {
        sizes[i] = program_size(&random);
        blocks[i] = malloc(sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes", sizes[i]);
        fill(blocks[i], sizes[i], seed + (uint64_t)i);
    }
    for (int i = 0; i < 200; i++) {
        CHECK(holds(blocks[i], sizes[i], seed + (uint64_t)i), "a block of %zu bytes", sizes[i]);
        free(blocks[i]);
    }
}

static void forks(int count)
{
    for (int i = 0; i < count; i++) {
        if (i % 20 == 0)
            leave_much();
        /* The looks are half a second apart: some of the forks fall on one. */
        usleep(i % 5 * 2000);
        pid_t child = fork();
        CHECK(child >= 0, "fork");
        if (child == 0) {
            use_the_heap((uint64_t)i);
            if (i % 10 == 0) {
                leave_much();
                reap(fork() ?: (use_the_heap(7), _exit(0), 0), "a child's child");
            }
            _exit(0);
        }
        use_the_heap((uint64_t)i + 1000);
        reap(child, "a child");
    }
}

static volatile int over;

static void *busy(void *argument)
{
    for (uint64_t round = (size_t)argument; !over; round++)
        use_the_heap(round);
    return NULL;
}

int main(void)
{
    forks(200);
    pthread_t others[2];
    for (size_t i = 0; i < 2; i++)
        others[i] = start(busy, (void *)i);
    forks(100);
    over = 1;
    for (int i = 0; i < 2; i++)
        finish(others[i]);
    leave_much();
    /* Memory that a child has found free is given back there as well. */
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        long before = status_kib("VmRSS:");
        leave_much();
        double began = seconds();
        while (status_kib("VmRSS:") > before / 2 + 2048) {
            CHECK(seconds() - began < 10, "%ld KiB before, %ld after", before, status_kib("VmRSS:"));
            usleep(100 * 1000);
        }
        _exit(0);
    }
    reap(child, "a child that sleeps");
    puts("forks: nothing is lost beside the thread that gives memory back");
    return 0;
}
