/* calloc gives zeros, always: on memory that was never used, that was just freed full of ones, that served another
 * size before, that went back to the system in between, or that comes from another thread. */
#include "check.h"

static void dirty(size_t size, int count)
{
    void *blocks[64];
    CHECK(count <= 64, "room for %d blocks", count);
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL, "%zu bytes", size);
        memset(blocks[i], 0xff, malloc_usable_size(blocks[i]));
    }
    for (int i = 0; i < count; i++)
        free(blocks[i]);
}

static void zeroed(size_t size, int count, const char *after)
{
    void *blocks[64];
    for (int i = 0; i < count; i++) {
        /* Both factors, one way and the other. */
        blocks[i] = i & 1 ? calloc(size, 1) : size % 4 == 0 ? calloc(size / 4, 4) : calloc(1, size);
        CHECK(blocks[i] != NULL, "calloc of %zu bytes %s", size, after);
        CHECK(is_zero(blocks[i], size), "calloc of %zu bytes %s is not zero", size, after);
        memset(blocks[i], 0xff, malloc_usable_size(blocks[i]));
    }
    for (int i = 0; i < count; i++)
        free(blocks[i]);
}

static void *in_a_thread(void *argument)
{
    size_t limit = (size_t)argument;
    for (size_t size = 1; size < limit; size += 1 + size / 4)
        dirty(size, 8);
    return NULL;
}

int main(void)
{
    for (size_t size = 1; size <= 40 * MIB; size += 1 + size / 7)
        zeroed(size, 2, "on fresh memory");

    for (size_t size = 1; size <= 1200; size++) {
        dirty(size, 40);
        zeroed(size, 40, "after the same size");
    }
    for (size_t size = 1200; size <= 8 * MIB; size += 1 + size / 29) {
        int count = size < 64 * KIB ? 8 : 3;
        dirty(size, count);
        zeroed(size, count, "after the same size");
    }

    /* A big dirty stretch is cut into small pieces, and small dirty pieces merge into a big one. */
    for (int round = 0; round < 4; round++) {
        dirty(8 * MIB, 2);
        for (size_t size = 8; size <= 512 * KIB; size += 1 + size / 2)
            zeroed(size, 30, "cut from a big dirty block");
        for (size_t size = 16; size <= 64 * KIB; size *= 2)
            dirty(size, 64);
        for (size_t size = 64 * KIB; size <= 8 * MIB; size += size / 2)
            zeroed(size, 2, "merged from small dirty blocks");
        if (round & 1)
            malloc_trim(0);
    }

    /* Half of a block was given up by realloc and comes back by calloc. */
    for (size_t size = 64; size <= 8 * MIB; size *= 2) {
        char *block = malloc(size);
        CHECK(block != NULL, "%zu bytes", size);
        memset(block, 0xff, size);
        block = realloc(block, size / 2);
        CHECK(block != NULL, "shrinking %zu bytes", size);
        zeroed(size / 2, 4, "after half of a block was given up");
        block = realloc(block, size);
        CHECK(block != NULL, "growing to %zu bytes", size);
        memset(block, 0xff, size);
        zeroed(size, 2, "beside a block that grew");
        free(block);
        zeroed(size, 2, "after a block that shrank and grew");
    }

    finish(start(in_a_thread, (void *)(2 * MIB)));
    for (size_t size = 1; size < 2 * MIB; size += 1 + size / 4)
        zeroed(size, 8, "after a thread that is gone");

    puts("calloc: zero on fresh, recycled, cut, merged and returned memory");
    return 0;
}
