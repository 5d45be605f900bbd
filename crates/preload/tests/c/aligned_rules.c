/* The rules of the aligned entry points: posix_memalign's EINVAL, what it leaves alone, glibc's rounding of odd
 * boundaries in memalign, and whole pages from valloc and pvalloc. */
#include "check.h"

static void posix_memalign_refuses(void)
{
    static const size_t bad[] = {
        0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 24, 40, 48, 63, 65, 96, 100, 1000, 4095, 4097, 12288,
        SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2, PTRDIFF_MAX, ((size_t)1 << 40) + 8, (size_t)3 << 40,
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t size = 0; size <= 1000; size += 100) {
            void *pointer = &pointer;
            errno = 99;
            int result = posix_memalign(&pointer, bad[i], size);
            CHECK(result == EINVAL, "a boundary of %zu gives %d", bad[i], result);
            CHECK(pointer == &pointer, "a boundary of %zu changed the pointer", bad[i]);
            CHECK(errno == 99, "a boundary of %zu changed errno", bad[i]);
        }
    /* A bad boundary is EINVAL even where the size is hopeless; a good one is ENOMEM then. */
    void *pointer = &pointer;
    CHECK(posix_memalign(&pointer, 24, SIZE_MAX) == EINVAL, "a bad boundary and a bad size");
    CHECK(posix_memalign(&pointer, 64, SIZE_MAX) == ENOMEM, "a good boundary and a bad size");
    CHECK(posix_memalign(&pointer, 64, PTRDIFF_MAX) == ENOMEM, "a good boundary and a bad size");
    CHECK(pointer == &pointer, "failures leave the pointer alone");
    /* glibc 2.36 sets errno to ENOMEM as well, against its own manual. */
    CHECK(errno == 99 || on_system(), "failures leave errno alone");
    errno = 99;
    for (size_t good = sizeof(void *); good <= 64 * KIB; good *= 2) {
        CHECK(posix_memalign(&pointer, good, 10) == 0, "a boundary of %zu", good);
        CHECK(pointer != NULL && is_aligned(pointer, good), "a boundary of %zu at %p", good, pointer);
        CHECK(errno == 99, "success leaves errno alone");
        free(pointer);
    }
}

/* glibc's memalign takes any boundary and rounds it up to a power of two; programs rely on it without knowing. */
static void memalign_rounds_up(void)
{
    static const size_t odd[][2] = {
        {0, 16}, {1, 16}, {2, 16}, {3, 16}, {8, 16}, {12, 16}, {16, 16}, {17, 32}, {20, 32}, {24, 32}, {33, 64},
        {48, 64}, {96, 128}, {100, 128}, {1000, 1024}, {3000, 4096}, {4097, 8192}, {12288, 16384}, {100000, 131072},
        {1000000, 1048576},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (size_t size = 0; size < 10000; size = size * 3 + 1) {
            void *block = memalign(odd[i][0], size);
            CHECK(block != NULL, "memalign(%zu, %zu)", odd[i][0], size);
            CHECK(is_aligned(block, odd[i][1]), "memalign(%zu, %zu) at %p", odd[i][0], size, block);
            fill(block, size, 1);
            CHECK(malloc_usable_size(block) >= size, "memalign(%zu, %zu)", odd[i][0], size);
            free(block);
        }
}

/* aligned_alloc wants no multiple of the boundary (C17), and the block need not end on one. */
static void aligned_alloc_takes_any_size(void)
{
    for (size_t alignment = 1; alignment <= 8 * KIB; alignment *= 2)
        for (size_t size = 1; size <= 3 * alignment; size += 1 + alignment / 3) {
            void *block = aligned_alloc(alignment, size);
            CHECK(block != NULL && is_aligned(block, alignment), "aligned_alloc(%zu, %zu)", alignment, size);
            fill(block, size, 2);
            free(block);
        }
}

static void whole_pages(void)
{
    size_t page = sysconf(_SC_PAGESIZE);
    void *blocks[40];
    for (size_t size = 0; size <= 5 * page; size += 1 + size / 3) {
        void *block = valloc(size);
        CHECK(block != NULL && is_aligned(block, page), "valloc(%zu) at %p", size, block);
        fill(block, size, 3);
        free(block);
    }
    for (int i = 0; i < 40; i++) {
        size_t size = (size_t)i * page / 4 + 1;
        blocks[i] = pvalloc(size);
        CHECK(blocks[i] != NULL && is_aligned(blocks[i], page), "pvalloc(%zu) at %p", size, blocks[i]);
        /* pvalloc rounds the size up to whole pages: all of the last one is the program's. */
        size_t whole = (size + page - 1) / page * page;
        CHECK(malloc_usable_size(blocks[i]) >= whole, "pvalloc(%zu) holds %zu", size, malloc_usable_size(blocks[i]));
        fill(blocks[i], whole, i);
    }
    for (int i = 0; i < 40; i++) {
        size_t whole = ((size_t)i * page / 4 + 1 + page - 1) / page * page;
        CHECK(holds(blocks[i], whole, i), "block %d of whole pages", i);
        free(blocks[i]);
    }
    void *block = pvalloc(0);
    CHECK(block != NULL && is_aligned(block, page), "pvalloc(0) at %p", block);
    free(block);
}

int main(void)
{
    posix_memalign_refuses();
    memalign_rounds_up();
    aligned_alloc_takes_any_size();
    whole_pages();
    puts("aligned rules: EINVAL and ENOMEM, odd boundaries rounded up, whole pages");
    return 0;
}
