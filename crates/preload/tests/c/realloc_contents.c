/* realloc keeps what fits, through every size and both ways, alone and among neighbours, in place and moved. */
#include "check.h"

static void *resized(void *block, size_t old, size_t size, uint64_t seed)
{
    block = realloc(block, size);
    CHECK(block != NULL, "realloc from %zu to %zu bytes", old, size);
    CHECK(is_aligned(block, 16), "realloc from %zu to %zu bytes at %p", old, size, block);
    CHECK(malloc_usable_size(block) >= size, "realloc from %zu to %zu bytes", old, size);
    size_t both = old < size ? old : size;
    CHECK(holds(block, both, seed), "contents from %zu to %zu bytes", old, size);
    fill(block, size, seed);
    return block;
}

/* One byte at a time, up and down. */
static void every_step(void)
{
    void *block = NULL;
    for (size_t size = 1; size <= 3000; size++)
        block = resized(block, size - 1, size, 1);
    for (size_t size = 2999; size >= 1; size--)
        block = resized(block, size + 1, size, 1);
    free(block);
}

static void every_pair(void)
{
    static const size_t sizes[] = {
        1, 7, 8, 9, 15, 16, 17, 24, 25, 32, 33, 48, 64, 65, 100, 128, 129, 250, 256, 257, 500, 512, 1000, 1024, 1025,
        2000, 4096, 4097, 8191, 8192, 8193, 16384, 20000, 32768, 50000, 65536, 65537, 100000, 131072, 200000, 262143,
        262144, 262145, 300000, 524288, 524289, 1000000, 1048576, 2097152, 2097153, 3000000,
    };
    size_t count = sizeof sizes / sizeof *sizes;
    for (size_t from = 0; from < count; from++)
        for (size_t to = 0; to < count; to++) {
            if (sizes[from] + sizes[to] > 3 * MIB && (from + to) % 3 != 0)
                continue;
            void *block = resized(NULL, 0, sizes[from], from);
            block = resized(block, sizes[from], sizes[to], from);
            free(block);
        }
}

/* To 64 MiB and back, with a live neighbour at every step so that growing in place is not always possible. */
static void to_the_biggest_and_back(void)
{
    void *neighbours[400];
    size_t sizes[400], count = 0, size = 100;
    void *block = resized(NULL, 0, size, 9);
    while (size < 64 * MIB) {
        size_t bigger = size + size / 5 + 1;
        block = resized(block, size, bigger, 9);
        size = bigger;
        sizes[count] = size / 7 % (100 * KIB);
        neighbours[count] = malloc(sizes[count]);
        CHECK(neighbours[count] != NULL, "a neighbour of %zu bytes", sizes[count]);
        fill(neighbours[count], sizes[count], count);
        count++;
    }
    while (size > 1) {
        size_t smaller = size - size / 4 - 1;
        smaller = smaller ? smaller : 1;
        block = resized(block, size, smaller, 9);
        size = smaller;
    }
    free(block);
    for (size_t i = 0; i < count; i++) {
        CHECK(holds(neighbours[i], sizes[i], i), "neighbour %zu of a block that grew and shrank", i);
        free(neighbours[i]);
    }
}

/* Buffers that grow by turns, as in a program that appends to many of them. */
static void many_by_turns(void)
{
    enum { BUFFERS = 300 };
    void *blocks[BUFFERS] = {0};
    size_t sizes[BUFFERS] = {0};
    uint64_t random = 3;
    for (int step = 0; step < 40000; step++) {
        int i = next_random(&random) % BUFFERS;
        uint64_t r = next_random(&random);
        size_t size = sizes[i] + 1 + r % 200;
        if (r % 11 == 0)
            size = sizes[i] * 2 + 1;
        if (r % 17 == 0 || size > 200 * KIB)
            size = sizes[i] / 3 + 1;
        blocks[i] = resized(blocks[i], sizes[i], size, i);
        sizes[i] = size;
    }
    for (int i = 0; i < BUFFERS; i++) {
        CHECK(holds(blocks[i], sizes[i], i), "buffer %d", i);
        free(blocks[i]);
    }
}

/* Blocks of the aligned entry points go through realloc as well. */
static void from_aligned(void)
{
    for (size_t alignment = 32; alignment <= 1 * MIB; alignment *= 4)
        for (size_t size = 10; size <= 2 * MIB; size *= 5) {
            void *block = memalign(alignment, size);
            CHECK(block != NULL && is_aligned(block, alignment), "%zu bytes on %zu", size, alignment);
            fill(block, size, 4);
            block = resized(block, size, size * 3, 4);
            block = resized(block, size * 3, size / 2 + 1, 4);
            free(block);
        }
}

/* A realloc that fails leaves everything as it was. */
static void failing(void)
{
    for (size_t size = 1; size <= 64 * MIB; size = size * 3 + 1) {
        char *block = malloc(size);
        CHECK(block != NULL, "%zu bytes", size);
        fill(block, size, size);
        errno = 0;
        CHECK(realloc(block, PTRDIFF_MAX) == NULL && errno == ENOMEM, "realloc of %zu bytes to PTRDIFF_MAX", size);
        CHECK(realloc(block, SIZE_MAX - 8) == NULL && errno == ENOMEM, "realloc of %zu bytes to SIZE_MAX - 8", size);
        CHECK(realloc(block, (size_t)1 << 47) == NULL, "realloc of %zu bytes to 2^47", size);
        CHECK(reallocarray(block, SIZE_MAX / 4, 5) == NULL && errno == ENOMEM, "reallocarray of %zu bytes", size);
        CHECK(holds(block, size, size), "%zu bytes after a realloc that failed", size);
        free(block);
    }
}

int main(void)
{
    every_step();
    every_pair();
    to_the_biggest_and_back();
    many_by_turns();
    from_aligned();
    failing();
    puts("realloc: contents kept through all sizes, both ways, and when it fails");
    return 0;
}
