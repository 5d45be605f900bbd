/* Zero is a size: every way to ask for nothing gives a block of its own that can be freed, and realloc to zero frees. */
#include "check.h"

enum { BLOCKS = 2000 };

static void *of_every_kind(int i)
{
    void *block = NULL;
    switch (i % 10) {
    case 0: return malloc(0);
    case 1: return calloc(0, 5);
    case 2: return calloc(5, 0);
    case 3: return calloc(0, SIZE_MAX);
    case 4: return realloc(NULL, 0);
    case 5: return memalign(64, 0);
    case 6: return aligned_alloc(32, 0);
    case 7: return reallocarray(NULL, 0, SIZE_MAX);
    case 8: CHECK(posix_memalign(&block, 128, 0) == 0, "zero bytes on a boundary of 128"); return block;
    default: return i % 50 == 9 ? valloc(0) : malloc(0);
    }
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static void every_block_is_its_own(void)
{
    static void *blocks[BLOCKS], *sorted[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = of_every_kind(i);
        CHECK(blocks[i] != NULL, "block %d of no bytes", i);
        CHECK(is_aligned(blocks[i], 16), "block %d at %p", i, blocks[i]);
    }
    memcpy(sorted, blocks, sizeof blocks);
    qsort(sorted, BLOCKS, sizeof *sorted, by_address);
    for (int i = 1; i < BLOCKS; i++)
        CHECK(sorted[i] != sorted[i - 1], "two live blocks of no bytes at %p", sorted[i]);

    /* What they say they hold may be used. */
    for (int i = 0; i < BLOCKS; i++)
        fill(blocks[i], malloc_usable_size(blocks[i]), i);
    for (int i = 0; i < BLOCKS; i++)
        CHECK(holds(blocks[i], malloc_usable_size(blocks[i]), i), "block %d was overwritten by a neighbour", i);
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static void realloc_to_zero_frees(void)
{
    static const size_t sizes[] = {0, 1, 100, 5000, 300 * KIB, 5 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *block = malloc(sizes[i]);
        errno = 77;
        CHECK(realloc(block, 0) == NULL, "realloc(p, 0) of %zu bytes frees and returns null", sizes[i]);
        CHECK(errno == 77, "and leaves errno alone");
        block = malloc(sizes[i]);
        CHECK(reallocarray(block, 0, 12) == NULL, "reallocarray(p, 0, n) frees and returns null");
        CHECK(errno == 77, "and leaves errno alone");
    }
    /* That it frees shows when it does so often: 2 GiB in all. */
    long before = status_kib("VmRSS:");
    for (int i = 0; i < 20000; i++) {
        char *block = malloc(100 * KIB);
        CHECK(block != NULL, "100 KiB, time %d", i);
        for (size_t page = 0; page < 100 * KIB; page += 4 * KIB)
            block[page] = 1;
        CHECK(realloc(block, 0) == NULL, "time %d", i);
    }
    long grown = status_kib("VmRSS:") - before;
    CHECK(grown < 16 * 1024, "realloc(p, 0) leaks: resident memory grew by %ld KiB", grown);
}

int main(void)
{
    free(NULL);
    CHECK(malloc_usable_size(NULL) == 0, "null has no bytes");
    every_block_is_its_own();
    realloc_to_zero_frees();
    puts("zero sizes: own blocks, freeable; realloc to zero frees");
    return 0;
}
