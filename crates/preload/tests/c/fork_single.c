/* fork in a program of one thread: the child has the parent's blocks, whole; it checks, frees, grows and allocates, and
 * forks again; nothing it does shows in the parent. */
#include "check.h"

enum { BLOCKS = 500 };

static void *blocks[BLOCKS];
static size_t sizes[BLOCKS];

static void check_all(const char *where)
{
    for (size_t i = 0; i < BLOCKS; i++)
        CHECK(holds(blocks[i], sizes[i], i), "block %zu of %zu bytes in %s", i, sizes[i], where);
}

static void churn(uint64_t seed)
{
    for (int i = 0; i < 3000; i++) {
        size_t which = next_random(&seed) % BLOCKS;
        CHECK(holds(blocks[which], sizes[which], which), "block %zu", which);
        sizes[which] = program_size(&seed) % (32 * KIB);
        if (i % 3) {
            free(blocks[which]);
            blocks[which] = malloc(sizes[which]);
        } else {
            blocks[which] = realloc(blocks[which], sizes[which] + 1);
        }
        CHECK(blocks[which] != NULL, "%zu bytes", sizes[which]);
        fill(blocks[which], sizes[which], which);
    }
}

__attribute__((noreturn)) static void child(int depth)
{
    alarm(30);
    check_all("a child");
    churn(depth + 7);
    check_all("a child that worked");
    if (depth > 0) {
        pid_t grandchild = fork();
        CHECK(grandchild >= 0, "fork");
        if (grandchild == 0)
            child(depth - 1);
        reap(grandchild, "a grandchild");
        check_all("a child after its own child");
    }
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    /* Both ways out: with atexit handlers and stdio, and without. */
    if (depth % 2)
        exit(0);
    _exit(0);
}

static int forked, left;

static void count_fork(void)
{
    forked++;
    free(malloc(100));
}

static void leave(void)
{
    free(malloc(1000));
    left++;
}

int main(void)
{
    /* Handlers of the program's own, that allocate, around the allocator's. */
    pthread_atfork(count_fork, count_fork, count_fork);
    atexit(leave);
    uint64_t random = 1;
    for (size_t i = 0; i < BLOCKS; i++) {
        sizes[i] = program_size(&random);
        blocks[i] = malloc(sizes[i]);
        fill(blocks[i], sizes[i], i);
    }
    for (int round = 0; round < 30; round++) {
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0)
            child(round % 4);
        reap(pid, "a child");
        check_all("the parent");
        if (round % 5 == 0)
            churn(round);
    }
    CHECK(forked == 60, "%d calls of fork handlers", forked);
    puts("fork: children own what the parent had, and the parent keeps it");
    return 0;
}
