/* malloc_usable_size is at least what was asked for, stays the same, and may be used to its last byte: the neighbours
 * and the allocator's own data are not there. */
#include "check.h"

enum { EACH = 40 };

static void *of_kind(int kind, size_t size)
{
    void *block = NULL;
    switch (kind) {
    case 0: return malloc(size);
    case 1: return calloc(1, size);
    case 2: return realloc(malloc(size / 2 + 1), size ? size : 1);
    case 3: return memalign(64, size);
    case 4: return aligned_alloc(256, size);
    default: return posix_memalign(&block, 1024, size) == 0 ? block : NULL;
    }
}

static void one_size(size_t size, int each)
{
    void *blocks[EACH];
    size_t usable[EACH];
    for (int i = 0; i < each; i++) {
        blocks[i] = of_kind(i % 6, size);
        CHECK(blocks[i] != NULL, "%zu bytes of kind %d", size, i % 6);
        usable[i] = malloc_usable_size(blocks[i]);
        CHECK(usable[i] >= size, "%zu usable of %zu bytes of kind %d", usable[i], size, i % 6);
        CHECK(usable[i] <= 2 * size + 64 * KIB, "%zu usable of %zu bytes wastes half of it", usable[i], size);
        fill(blocks[i], usable[i], size + i);
    }
    for (int i = 0; i < each; i++) {
        CHECK(malloc_usable_size(blocks[i]) == usable[i], "usable size of a live block of %zu bytes changed", size);
        CHECK(holds(blocks[i], usable[i], size + i), "block %d of %zu bytes was overwritten", i, size);
    }
    /* Growing into what is usable keeps everything. */
    for (int i = 0; i < each; i += 3) {
        blocks[i] = realloc(blocks[i], usable[i] ? usable[i] : 1);
        CHECK(blocks[i] != NULL && holds(blocks[i], usable[i], size + i), "realloc of %zu bytes to its usable size", size);
    }
    for (int i = 0; i < each; i += 2)
        free(blocks[i]);
    for (int i = 1; i < each; i += 2) {
        CHECK(holds(blocks[i], usable[i], size + i), "block %d of %zu bytes after its neighbours' end", i, size);
        free(blocks[i]);
    }
}

int main(void)
{
    CHECK(malloc_usable_size(NULL) == 0, "null has no bytes");
    for (size_t size = 0; size <= 1100; size++)
        one_size(size, EACH);
    for (size_t size = 1101; size <= 300 * KIB; size += size / 23)
        one_size(size, 12);
    for (size_t size = 300 * KIB; size <= 24 * MIB; size += size / 3)
        one_size(size, 6);
    puts("usable size: at least as asked, and really usable");
    return 0;
}
