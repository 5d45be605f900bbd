/* Any power of two is a boundary: posix_memalign, aligned_alloc and memalign from 8 bytes to 4 GiB, with sizes below
 * and above it, among neighbours, and what they give can be used, grown and freed like any other block. */
#include "check.h"
#include <sys/mman.h>

static void *of_kind(int kind, size_t alignment, size_t size)
{
    void *block = NULL;
    switch (kind) {
    case 0: return memalign(alignment, size);
    case 1: return aligned_alloc(alignment, size);
    default:
        if (alignment < sizeof(void *))
            return memalign(alignment, size);
        return posix_memalign(&block, alignment, size) == 0 ? block : NULL;
    }
}

static void among_neighbours(size_t alignment)
{
    enum { BLOCKS = 60 };
    void *blocks[BLOCKS];
    size_t sizes[BLOCKS];
    uint64_t random = alignment;
    int count = alignment > 256 * KIB ? 6 : BLOCKS;
    for (int i = 0; i < count; i++) {
        uint64_t r = next_random(&random) >> 10;
        switch (i % 4) {
        case 0: sizes[i] = r % 64; break;
        case 1: sizes[i] = r % (alignment + 1); break;
        case 2: sizes[i] = alignment + r % 100; break;
        default: sizes[i] = r % 3000; break;
        }
        blocks[i] = of_kind(i % 3, alignment, sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes on %zu", sizes[i], alignment);
        CHECK(is_aligned(blocks[i], alignment), "%zu bytes on %zu at %p", sizes[i], alignment, blocks[i]);
        sizes[i] = malloc_usable_size(blocks[i]);
        fill(blocks[i], sizes[i] < 64 * KIB ? sizes[i] : 64 * KIB, i);
    }
    for (int i = 0; i < count; i++)
        CHECK(holds(blocks[i], sizes[i] < 64 * KIB ? sizes[i] : 64 * KIB, i), "block %d on %zu", i, alignment);
    for (int i = 0; i < count; i += 2)
        free(blocks[i]);
    /* The holes serve other sizes, and their neighbours stay as they are. */
    for (int i = 0; i < count; i += 2) {
        blocks[i] = malloc(100 + i);
        memset(blocks[i], 0xee, 100 + i);
    }
    for (int i = 1; i < count; i += 2)
        CHECK(holds(blocks[i], sizes[i] < 64 * KIB ? sizes[i] : 64 * KIB, i), "block %d on %zu", i, alignment);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
}

/* Whether this machine and this shell's limits let anyone have twice the boundary of address space. */
static int there_is_room(size_t alignment)
{
    void *room = mmap(NULL, 2 * alignment + 64 * MIB, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | (on_system() ? 0 : MAP_NORESERVE), -1, 0);
    if (room == MAP_FAILED)
        return 0;
    munmap(room, 2 * alignment + 64 * MIB);
    return 1;
}

static void giant(size_t alignment)
{
    static const size_t sizes[] = {1, 100, 4097, 300 * KIB, 5 * MIB};
    long before = status_kib("VmRSS:");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < 3; kind++) {
            char *block = of_kind(kind, alignment, sizes[i]);
            CHECK(block != NULL, "%zu bytes on %zu MiB", sizes[i], alignment / MIB);
            CHECK(is_aligned(block, alignment), "%zu bytes on %zu MiB at %p", sizes[i], alignment / MIB, (void *)block);
            size_t usable = malloc_usable_size(block);
            CHECK(usable >= sizes[i], "%zu usable of %zu bytes", usable, sizes[i]);
            block[0] = block[sizes[i] - 1] = 1;
            block[usable - 1] = 2;
            fill(block, sizes[i], 8);
            if (kind == 1) {
                block = realloc(block, sizes[i] * 2);
                CHECK(block != NULL && holds(block, sizes[i], 8), "growing %zu bytes on %zu MiB", sizes[i], alignment / MIB);
            }
            free(block);
        }
    long grown = status_kib("VmRSS:") - before;
    CHECK(grown < 64 * 1024, "boundaries of %zu MiB cost %ld KiB of resident memory", alignment / MIB, grown);
}

int main(void)
{
    for (size_t alignment = 1; alignment <= 4 * MIB; alignment *= 2)
        among_neighbours(alignment);
    for (size_t alignment = 8 * MIB; alignment <= 4 * GIB; alignment *= 2) {
        if (!there_is_room(alignment)) {
            printf("no address space for a boundary of %zu MiB here\n", alignment / MIB);
            break;
        }
        giant(alignment);
    }
    puts("aligned: every power of two up to 4 GiB");
    return 0;
}
