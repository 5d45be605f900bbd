/* Whatever the size, a block of malloc, calloc or realloc begins on a boundary of 16 bytes and overlaps no other. */
#include "check.h"

enum { DENSE = 5000 };

static void check(void *block, size_t size, const char *maker)
{
    CHECK(block != NULL, "%s of %zu bytes", maker, size);
    CHECK(is_aligned(block, 16), "%s of %zu bytes at %p", maker, size, block);
}

static void every_small_size(void)
{
    static void *first[DENSE + 1], *second[DENSE + 1], *third[DENSE + 1];
    for (size_t size = 0; size <= DENSE; size++) {
        check(first[size] = malloc(size), size, "malloc");
        check(second[size] = calloc(1, size), size, "calloc");
        check(third[size] = realloc(malloc(1), size ? size : 1), size, "realloc");
        fill(first[size], size, size);
        fill(second[size], size, ~size);
        fill(third[size], size, size * 3);
    }
    for (size_t size = 0; size <= DENSE; size++) {
        CHECK(holds(first[size], size, size), "malloc of %zu bytes", size);
        CHECK(holds(second[size], size, ~size), "calloc of %zu bytes", size);
        CHECK(holds(third[size], size, size * 3), "realloc of %zu bytes", size);
    }
    for (size_t size = 0; size <= DENSE; size++) {
        free(first[size]);
        free(second[DENSE - size]);
        free(third[size]);
    }
}

/* Many objects of one size: not only the first of a span is aligned. */
static void every_object_of_a_span(void)
{
    static void *blocks[600];
    for (size_t size = 1; size <= 1100; size += size < 130 ? 1 : 17) {
        for (size_t i = 0; i < 600; i++)
            check(blocks[i] = malloc(size), size, "malloc");
        for (size_t i = 0; i < 600; i++)
            free(blocks[i]);
    }
}

static void large_sizes(void)
{
    for (size_t size = DENSE; size < 32 * MIB; size += size / 9) {
        for (size_t off = 0; off < 3; off++) {
            void *block = malloc(size - 1 + off);
            check(block, size - 1 + off, "malloc");
            ((char *)block)[0] = 1;
            ((char *)block)[size - 2 + off] = 1;
            block = realloc(block, size + size / 3 + off);
            check(block, size + size / 3 + off, "realloc");
            free(block);
        }
    }
    /* The edges of whatever a size class table may be made of. */
    for (int bit = 10; bit < 27; bit++) {
        size_t edge = (size_t)1 << bit;
        for (size_t size = edge - 17; size <= edge + 17; size++) {
            void *block = calloc(size, 1);
            check(block, size, "calloc");
            CHECK(((char *)block)[0] == 0 && ((char *)block)[size - 1] == 0, "calloc of %zu bytes", size);
            free(block);
            if (bit >= 20)
                size += 8;
        }
    }
}

int main(void)
{
    every_small_size();
    every_object_of_a_span();
    large_sizes();
    puts("alignment: 16 bytes for every size, no overlap");
    return 0;
}
