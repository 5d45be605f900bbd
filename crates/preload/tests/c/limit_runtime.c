/* Limits that a program sets itself. */
#include "hard_limit.h"

extern size_t tiermalloc_set_hard_limit(size_t bytes) __attribute__((weak));
extern size_t tiermalloc_trim(size_t keep) __attribute__((weak));
extern void tiermalloc_thread_idle(void) __attribute__((weak));
extern void tiermalloc_thread_busy(void) __attribute__((weak));

static pthread_barrier_t together;

static void *idler(void *argument)
{
    (void)argument;
    tiermalloc_thread_busy();
    void **blocks = malloc(20000 * sizeof *blocks);
    for (int i = 0; i < 20000; i++) {
        blocks[i] = malloc(40);
        memset(blocks[i], 1, 40);
    }
    for (int i = 0; i < 20000; i++)
        free(blocks[i]);
    tiermalloc_thread_idle();
    tiermalloc_thread_idle();
    pthread_barrier_wait(&together);
    pthread_barrier_wait(&together);
    /* And goes on as if nothing was. */
    tiermalloc_thread_busy();
    for (int i = 0; i < 20000; i++)
        CHECK((blocks[i] = malloc(40)) != NULL, "after a pause");
    for (int i = 0; i < 20000; i++)
        free(blocks[i]);
    free(blocks);
    return NULL;
}

int main(int count, char **arguments)
{
    (void)count;
    begin_under(arguments[1]);
    CHECK(tiermalloc_set_hard_limit && tiermalloc_trim && tiermalloc_thread_idle, "names of our own");
    struct blocks list = {NULL, 0, 0};
    CHECK(tiermalloc_set_hard_limit(limit) == 0, "there was none");
    while (want(&list, 'm', 10000))
        CHECK(list.bytes < limit, "the limit limits");
    within_limit("set by the program");
    /* Lower than what is in use: nothing is lost, nothing to be had. */
    CHECK(tiermalloc_set_hard_limit(limit / 2) == limit, "the one before");
    CHECK(!want(&list, 'm', 100 * KIB), "half of it is used twice");
    let_go(&list, 3);
    CHECK(!want(&list, 'm', 4 * MIB), "a third is not enough");
    let_go(&list, 1);
    CHECK(want(&list, 'm', limit / 4), "all was freed");
    CHECK(tiermalloc_set_hard_limit(0) == limit / 2, "the one before");
    CHECK(want(&list, 'm', 2 * limit), "without one");
    let_go(&list, 1);

    /* What idle threads had is the system's. */
    enum { THREADS = 20 };
    pthread_barrier_init(&together, NULL, THREADS + 1);
    tiermalloc_trim(0);
    long before = status_kib("RssAnon:");
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = start(idler, NULL);
    pthread_barrier_wait(&together);
    size_t gone = tiermalloc_trim(0);
    long now = status_kib("RssAnon:");
    /* Stacks, the arrays of addresses and the caches themselves stay. */
    long own = (long)(THREADS * (20000 * sizeof(void *) + 40 * KIB) / KIB);
    CHECK(now - before < own, "%ld KiB of %d idle threads are left beside %ld", now - before, THREADS, own);
    pthread_barrier_wait(&together);
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
    printf("idle threads: %zu KiB went back\n", gone / KIB);
    return 0;
}
