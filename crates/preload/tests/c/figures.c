/* mallinfo2, mallinfo, malloc_stats, malloc_trim, mallopt: figures that are true, and switches that do no harm. */
#include "check.h"

static size_t in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* The figure follows what the program has: within a quarter for overhead, within `slack` for what caches keep. */
static void follows(size_t each, size_t count, const char *what)
{
    const size_t slack = 2 * MIB;
    void **blocks = malloc(count * sizeof *blocks);
    CHECK(blocks != NULL, "a table of %zu", count);
    size_t before = in_use();
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(each);
        CHECK(blocks[i] != NULL, "%zu bytes", each);
    }
    size_t total = each * count, with = in_use();
    CHECK(with >= before + total, "%s: %zu in use before, %zu after %zu more", what, before, with, total);
    CHECK(with <= before + total + total / 4 + slack, "%s: %zu in use before, %zu after %zu more", what, before, with, total);
    for (size_t i = 0; i < count; i += 2)
        free(blocks[i]);
    size_t half = in_use();
    CHECK(half + total / 2 <= with + slack, "%s: %zu in use, %zu after half was freed", what, with, half);
    for (size_t i = 1; i < count; i += 2)
        free(blocks[i]);
    size_t after = in_use();
    CHECK(after <= before + slack, "%s: %zu in use before, %zu after all was freed", what, before, after);
    free(blocks);
}

/* What other threads hold counts too. */
static pthread_barrier_t holding, looked;

static void *hold(void *argument)
{
    void *blocks[1000];
    (void)argument;
    for (int i = 0; i < 1000; i++)
        blocks[i] = malloc(10000);
    pthread_barrier_wait(&holding);
    pthread_barrier_wait(&looked);
    for (int i = 0; i < 1000; i++)
        free(blocks[i]);
    return NULL;
}

static void other_threads_count(void)
{
    pthread_barrier_init(&holding, NULL, 3);
    pthread_barrier_init(&looked, NULL, 3);
    size_t before = in_use();
    pthread_t one = start(hold, NULL), two = start(hold, NULL);
    pthread_barrier_wait(&holding);
    size_t with = in_use();
    pthread_barrier_wait(&looked);
    finish(one);
    finish(two);
    size_t after = in_use();
    CHECK(with >= before + 20 * 1000 * 1000, "two threads hold 20 MB: %zu in use before, %zu now", before, with);
    CHECK(after <= before + 2 * MIB, "two threads held 20 MB: %zu in use before, %zu after", before, after);
}

static void both_mallinfos_agree(void)
{
    struct mallinfo2 wide = mallinfo2();
    struct mallinfo narrow = mallinfo();
    CHECK(wide.uordblks <= wide.arena + wide.hblkhd, "%zu in use of %zu", wide.uordblks, wide.arena);
    CHECK((unsigned)narrow.uordblks == (unsigned)wide.uordblks, "%d and %zu", narrow.uordblks, wide.uordblks);
    CHECK((unsigned)narrow.arena == (unsigned)wide.arena, "%d and %zu", narrow.arena, wide.arena);
    CHECK((unsigned)narrow.fordblks == (unsigned)wide.fordblks, "%d and %zu", narrow.fordblks, wide.fordblks);
}

/* malloc_stats writes to stderr, and to nothing else. */
static void stats_on_stderr(void)
{
    char text[4096];
    FILE *temporary = tmpfile();
    CHECK(temporary != NULL, "a temporary file");
    int file = fileno(temporary), saved = dup(2);
    fflush(stderr);
    dup2(file, 2);
    malloc_stats();
    fflush(stderr);
    dup2(saved, 2);
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    CHECK(length > 0, "malloc_stats wrote nothing to stderr");
    text[length] = 0;
    CHECK(strpbrk(text, "0123456789") != NULL, "malloc_stats wrote no figures");
    CHECK(text[length - 1] == '\n' || length == sizeof text - 1, "malloc_stats ends its last line");
    fclose(temporary);
    close(saved);
}

static void trim_gives_back(void)
{
    enum { COUNT = 64 * 1024 };
    static void *blocks[COUNT];
    long before = status_kib("VmRSS:");
    for (int i = 0; i < COUNT; i++)
        memset(blocks[i] = malloc(1000), 1, 1000);
    for (int i = 0; i < COUNT; i++)
        free(blocks[i]);
    int released = malloc_trim(0);
    CHECK(released == 0 || released == 1, "malloc_trim says %d", released);
    long after = status_kib("VmRSS:");
    CHECK(after <= before + 16 * 1024, "%ld KiB resident before 64 MiB came and went, %ld after a trim", before, after);
    released = malloc_trim(1 * MIB);
    CHECK(released == 0 || released == 1, "malloc_trim says %d", released);
}

static void switches_do_no_harm(void)
{
    static const int parameters[] = {M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_PERTURB,
                                     M_ARENA_TEST, M_ARENA_MAX, 12345, -12345};
    static const int values[] = {64, 131072, 4096, 65536, 1000, 0, 2, 2, 1, 1};
    void *block = malloc(1000);
    fill(block, 1000, 1);
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        int result = mallopt(parameters[i], values[i]);
        CHECK(result == 0 || result == 1, "mallopt(%d, %d) says %d", parameters[i], values[i], result);
        free(malloc(100 * KIB));
        CHECK(holds(block, 1000, 1), "after mallopt(%d, %d)", parameters[i], values[i]);
    }
    free(block);
}

int main(void)
{
    follows(40, 400000, "small blocks");
    follows(1000, 20000, "blocks of 1000 bytes");
    follows(20000, 1000, "blocks of 20000 bytes");
    follows(300 * KIB, 100, "blocks of 300 KiB");
    follows(64 * MIB, 4, "blocks of 64 MiB");
    other_threads_count();
    both_mallinfos_agree();
    stats_on_stderr();
    trim_gives_back();
    switches_do_no_harm();
    puts("figures: mallinfo2 follows the program, malloc_stats on stderr, malloc_trim gives back");
    return 0;
}
