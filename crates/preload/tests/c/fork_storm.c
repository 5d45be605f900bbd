/* Forks in the middle of other threads' allocations, from two threads at once. Each child checks what it inherited,
 * frees it, allocates, runs threads of its own, forks again, and ends. A lock that some thread held at the moment of the
 * fork, or a cache half filled, shows as a hang (the child's own alarm), as a wrong pattern, or as a crash. */
#include "check.h"
#include <stdatomic.h>

enum { CHURNERS = 4, FORKERS = 2, INHERITED = 200 };
static const double duration = 3.0;

static atomic_int stop;
static atomic_long forks, swaps;

static void *churn(void *argument)
{
    enum { LIVE = 300 };
    void *blocks[LIVE] = {0};
    size_t sizes[LIVE];
    uint64_t random = (uintptr_t)argument + 1;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t r = next_random(&random);
        size_t i = r % LIVE;
        if (blocks[i]) {
            CHECK(holds(blocks[i], sizes[i] < 512 ? sizes[i] : 512, i), "a block of %zu bytes beside forks", sizes[i]);
            free(blocks[i]);
        }
        sizes[i] = program_size(&random);
        if (r >> 60 == 0)
            sizes[i] += 256 * KIB;
        blocks[i] = malloc(sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes", sizes[i]);
        fill(blocks[i], sizes[i] < 512 ? sizes[i] : 512, i);
        swaps++;
    }
    for (int i = 0; i < LIVE; i++)
        free(blocks[i]);
    return NULL;
}

struct family {
    void *blocks[INHERITED];
    size_t sizes[INHERITED];
    uint64_t seed;
};

static void settle(struct family *family, uint64_t seed)
{
    family->seed = seed;
    for (int i = 0; i < INHERITED; i++) {
        family->sizes[i] = program_size(&family->seed);
        family->blocks[i] = malloc(family->sizes[i]);
        CHECK(family->blocks[i] != NULL, "%zu bytes", family->sizes[i]);
        fill(family->blocks[i], family->sizes[i], i);
    }
}

static void leave(struct family *family, const char *where)
{
    for (int i = 0; i < INHERITED; i++) {
        CHECK(holds(family->blocks[i], family->sizes[i], i), "inherited block %d of %zu bytes in %s", i, family->sizes[i], where);
        free(family->blocks[i]);
    }
}

static void *childs_thread(void *argument)
{
    struct family own;
    settle(&own, (uintptr_t)argument + 99);
    leave(&own, "a thread of a child");
    return NULL;
}

static void child(struct family *family, uint64_t number)
{
    alarm(20);
    struct family own;
    settle(&own, number);
    leave(family, "a child");
    settle(family, number + 1);
    if (number % 4 == 0) {
        pthread_t one = start(childs_thread, (void *)1), two = start(childs_thread, (void *)2);
        leave(&own, "a child with threads");
        settle(&own, number);
        finish(one);
        finish(two);
    }
    if (number % 3 == 0) {
        pid_t grandchild = fork();
        CHECK(grandchild >= 0, "fork in a child");
        if (grandchild == 0) {
            alarm(20);
            leave(family, "a grandchild");
            settle(family, 5);
            leave(&own, "a grandchild");
            _exit(0);
        }
        reap(grandchild, "a grandchild");
    }
    leave(family, "a child");
    leave(&own, "a child");
    _exit(0);
}

static void *fork_on(void *argument)
{
    struct family family;
    uint64_t number = (uintptr_t)argument * 1000;
    settle(&family, number);
    for (double begin = seconds(); seconds() - begin < duration; number++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0)
            child(&family, number);
        reap(pid, "a child");
        forks++;
        if (number % 8 == 0) {
            leave(&family, "the parent");
            settle(&family, number);
        }
    }
    leave(&family, "the parent");
    return NULL;
}

int main(void)
{
    pthread_t churners[CHURNERS], forkers[FORKERS];
    for (size_t i = 0; i < CHURNERS; i++)
        churners[i] = start(churn, (void *)i);
    for (size_t i = 0; i < FORKERS; i++)
        forkers[i] = start(fork_on, (void *)i);
    for (int i = 0; i < FORKERS; i++)
        finish(forkers[i]);
    stop = 1;
    for (int i = 0; i < CHURNERS; i++)
        finish(churners[i]);
    CHECK(forks >= 4 && swaps > 1000, "%ld forks, %ld allocations: too few to show anything", forks, swaps);
    printf("fork storm: %ld forks beside %ld allocations, no hang, nothing overwritten\n", forks, swaps);
    return 0;
}
