/* What the library says of every class is what the program knows that it has: alone, when other threads made or freed
 * it, and in the child of a fork. */
#include "figures.h"

static struct picture before, after;

/* Sizes of classes that malloc serves, by `tiermalloc classes`. */
static const size_t SIZES[] = {16, 32, 48, 64, 80, 256, 1008, 1024, 1088, 2048, 4224, 5248, 28800, 65664, 262272};
enum { KINDS = sizeof SIZES / sizeof *SIZES, MOST = 3000 };
static void *blocks[KINDS][MOST];

static int count_of(int kind)
{
    return SIZES[kind] > 16384 ? 20 : MOST - 100 * kind;
}

static void *make(void *from)
{
    for (int kind = from ? 1 : 0; kind < KINDS; kind += from ? 2 : 1)
        for (int i = 0; i < count_of(kind); i++) {
            blocks[kind][i] = malloc(SIZES[kind] - (i % 2) * 7);
            CHECK(blocks[kind][i] != NULL, "%zu bytes", SIZES[kind]);
        }
    return NULL;
}

static void *drop(void *unused)
{
    (void)unused;
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < count_of(kind); i++)
            free(blocks[kind][i]), blocks[kind][i] = NULL;
    return NULL;
}

/* That there are so many more of each class, times `sign`, and nothing of any other. Where blocks are of no class, they
 * count as long as was asked for. */
static void differ(int sign, const char *what)
{
    int64_t bytes = 0, objects = 0;
    for (int kind = 0; kind < KINDS && is_guarded(); kind++) {
        objects += sign * count_of(kind);
        bytes += sign * (int64_t)(count_of(kind) * SIZES[kind] - count_of(kind) / 2 * 7);
    }
    for (int i = 0; i < after.count; i++) {
        size_t size = after.classes[i].size;
        int64_t expected = 0;
        for (int kind = 0; kind < KINDS; kind++)
            if (SIZES[kind] == size && !is_guarded())
                expected = sign * count_of(kind);
        int64_t more = (int64_t)(after.classes[i].live_objects - class_of_size(&before, size).live_objects);
        CHECK(more == expected, "%s: %lld more of %zu bytes, not %lld", what, (long long)more, size, (long long)expected);
        bytes += expected * (int64_t)size;
        objects += expected;
    }
    CHECK((int64_t)(after.stats.live - before.stats.live) == bytes, "%s: live", what);
    CHECK((int64_t)(after.stats.live_objects - before.stats.live_objects) == objects, "%s: objects", what);
    sums_hold(&before);
    sums_hold(&after);
}

static pthread_barrier_t ready, go;

/* A thread that has something in its cache, and sleeps. */
static void *sleeper(void *unused)
{
    (void)unused;
    void *own[500];
    for (int i = 0; i < 500; i++)
        own[i] = malloc(48);
    for (int i = 0; i < 500; i++)
        free(own[i]);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    return NULL;
}

int main(void)
{
    free(malloc(1));
    CHECK(tiermalloc_stats && tiermalloc_each_class && tiermalloc_version, "the library is there");

    /* Alone. */
    look(&before);
    make(NULL);
    look(&after);
    differ(1, "made");
    before = after;
    drop(NULL);
    look(&after);
    differ(-1, "freed");

    /* Blocks of whole pages, and mappings of their own. */
    before = after;
    void *large = malloc(1 * MIB), *huge = malloc(100 * MIB);
    CHECK(large && huge, "memory");
    look(&after);
    sums_hold(&after);
    CHECK(after.stats.live_objects == before.stats.live_objects + 2, "two more");
    CHECK(after.stats.live >= before.stats.live + 101 * MIB && after.stats.live <= before.stats.live + 101 * MIB + 64 * KIB, "their bytes");
    CHECK(after.stats.huge_made > before.stats.huge_made || is_guarded(), "one is a mapping of its own");
    free(large);
    free(huge);
    look(&after);
    CHECK(after.stats.live == before.stats.live && after.stats.live_objects == before.stats.live_objects, "gone");
    CHECK(after.stats.returned >= before.stats.returned + 100 * MIB || is_guarded(), "given back");

    /* Made here, freed by a thread that ends, and the other way round. The thread's own memory, which the C library
     * keeps, is there before and after. */
    finish(start(make, &before));
    drop(NULL);
    look(&before);
    make(NULL);
    finish(start(drop, NULL));
    look(&after);
    differ(0, "freed by a thread");

    /* The child of a fork, in which two threads with full caches do not exist. */
    pthread_barrier_init(&ready, NULL, 3);
    pthread_barrier_init(&go, NULL, 3);
    pthread_t one = start(sleeper, NULL), two = start(sleeper, NULL);
    pthread_barrier_wait(&ready);
    look(&before);
    uint64_t forks = before.stats.forks;
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        look(&after);
        differ(0, "in the child");
        CHECK(after.stats.forks == 0, "it has not forked");
        before = after;
        make(NULL);
        look(&after);
        differ(1, "made in the child");
        _exit(0);
    }
    reap(child, "the child");
    look(&after);
    differ(0, "in the parent");
    CHECK(after.stats.forks == forks + 1, "it has forked");
    pthread_barrier_wait(&go);
    finish(one);
    finish(two);
    look(&after);
    sums_hold(&after);
    CHECK(after.stats.threads_ever >= (is_guarded() ? 4 : 5), "%llu threads", (unsigned long long)after.stats.threads_ever);
    puts("stats_exact: every object was counted once");
    return 0;
}
