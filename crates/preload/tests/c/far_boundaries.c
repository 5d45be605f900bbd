/* A boundary of terabytes, or a block of many gigabytes of which little is touched, costs no memory to speak of: neither
 * pages, nor the tables that the kernel has for them. */
#include "check.h"

static void cheap(const char *what, size_t bytes, char *block, size_t alignment, long before)
{
    long grown = status_kib("VmPTE:") - before;
    CHECK(is_aligned(block, alignment), "%s of %zu bytes at %p", what, bytes, (void *)block);
    block[0] = 1;
    CHECK(grown < 16 * 1024, "a %s of %zu bytes cost %ld KiB of page tables", what, bytes, grown);
    free(block);
}

int main(void)
{
    int boundaries = 0, blocks = 0;
    long before = status_kib("VmPTE:");
    for (size_t alignment = 4 * GIB; alignment <= 8192 * GIB; alignment *= 2) {
        char *block = memalign(alignment, 100);
        if (block == NULL)
            break;
        cheap("boundary", alignment, block, alignment, before);
        boundaries++;
    }
    for (size_t size = 6 * GIB; size <= 96 * GIB; size *= 2) {
        char *block = malloc(size);
        if (block == NULL)
            break;
        cheap("block", size, block, 16, before);
        blocks++;
    }
    printf("cheap: %d boundaries and %d blocks\n", boundaries, blocks);
    return 0;
}
