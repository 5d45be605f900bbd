/* Sizes that nobody can have, through every entry point: null and ENOMEM, nothing harmed. The dangerous ones are those
 * that become small when a header, a boundary or a page is added to them, or two factors are multiplied. */
#include "check.h"

static void *kept;
enum { KEPT = 1000 };

static void refused(void *block, const char *what, size_t size)
{
    int error = errno;
    CHECK(block == NULL, "%s of %#zx bytes gave %p", what, size, block);
    CHECK(error == ENOMEM, "%s of %#zx bytes set errno to %d", what, size, error);
    errno = 0;
}

static void through_every_entry(size_t size)
{
    void *block = kept;
    errno = 0;
    refused(malloc(size), "malloc", size);
    refused(calloc(1, size), "calloc", size);
    refused(calloc(size, 1), "calloc", size);
    refused(realloc(NULL, size), "realloc of null", size);
    refused(realloc(kept, size), "realloc", size);
    refused(reallocarray(kept, size, 1), "reallocarray", size);
    refused(reallocarray(NULL, 1, size), "reallocarray of null", size);
    refused(memalign(64, size), "memalign", size);
    refused(memalign(64 * KIB, size), "memalign", size);
    refused(memalign(1 * GIB, size), "memalign", size);
    refused(aligned_alloc(4096, size), "aligned_alloc", size);
    refused(valloc(size), "valloc", size);
    refused(pvalloc(size), "pvalloc", size);
    CHECK(posix_memalign(&block, 16, size) == ENOMEM, "posix_memalign of %#zx bytes", size);
    CHECK(posix_memalign(&block, 1 * MIB, size) == ENOMEM, "posix_memalign of %#zx bytes", size);
    CHECK(block == kept, "posix_memalign that fails leaves the pointer alone");
    /* glibc 2.36 sets errno as well, against its own manual. */
    CHECK(errno == 0 || on_system(), "posix_memalign says it by its result, not by errno");
    CHECK(holds(kept, KEPT, 5), "a block that could not grow to %#zx bytes is untouched", size);
}

static void products_that_overflow(void)
{
    static const size_t factors[][2] = {
        {SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX, SIZE_MAX}, {SIZE_MAX / 2 + 1, 2}, {2, SIZE_MAX / 2 + 1},
        {(size_t)1 << 32, (size_t)1 << 32}, {((size_t)1 << 32) + 1, (size_t)1 << 32}, {SIZE_MAX / 8 + 1, 8},
        {SIZE_MAX / 16 + 1, 16}, {SIZE_MAX / 3 + 1, 3}, {((size_t)1 << 33) + 8, ((size_t)1 << 31)},
        {SIZE_MAX / 1000 + 1, 1000}, {PTRDIFF_MAX, 3}, {SIZE_MAX - 1, SIZE_MAX - 1},
    };
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        size_t n = factors[i][0], each = factors[i][1];
        errno = 0;
        refused(calloc(n, each), "calloc", n);
        refused(reallocarray(NULL, n, each), "reallocarray of null", n);
        refused(reallocarray(kept, n, each), "reallocarray", n);
        CHECK(holds(kept, KEPT, 5), "the block that reallocarray could not grow");
    }
}

static void absurd_boundaries(void)
{
    for (int bit = 47; bit < 63; bit++) {
        size_t alignment = (size_t)1 << bit;
        void *block = kept;
        errno = 0;
        refused(memalign(alignment, 100), "memalign on an absurd boundary", alignment);
        refused(aligned_alloc(alignment, 100), "aligned_alloc on an absurd boundary", alignment);
        refused(memalign(alignment, alignment), "memalign of an absurd everything", alignment);
        CHECK(posix_memalign(&block, alignment, 100) == ENOMEM, "a boundary of 2^%d", bit);
        CHECK(block == kept && (errno == 0 || on_system()), "posix_memalign leaves pointer and errno alone");
    }
    /* 2^63 has no power of two above it: glibc says EINVAL or ENOMEM, by version. */
    CHECK(memalign((size_t)1 << 63, 100) == NULL, "a boundary of 2^63");
    CHECK(memalign(SIZE_MAX, 100) == NULL, "a boundary of 2^64 - 1");
}

int main(void)
{
    kept = malloc(KEPT);
    CHECK(kept != NULL, "%d bytes", KEPT);
    fill(kept, KEPT, 5);

    for (size_t below = 0; below <= 70; below++)
        through_every_entry(SIZE_MAX - below);
    for (size_t below = 64; below <= 16 * MIB; below *= 2) {
        through_every_entry(SIZE_MAX - below - 1);
        through_every_entry(SIZE_MAX - below);
        through_every_entry(SIZE_MAX - below + 1);
    }
    through_every_entry((size_t)PTRDIFF_MAX + 1);
    through_every_entry((size_t)PTRDIFF_MAX + 17);
    for (size_t below = 0; below <= 20000; below += 1 + below / 3)
        through_every_entry((size_t)PTRDIFF_MAX - below);
    for (int bit = 47; bit < 63; bit++) {
        through_every_entry((size_t)1 << bit);
        through_every_entry(((size_t)1 << bit) + 1);
        if (bit > 47)
            through_every_entry(((size_t)1 << bit) - 1);
    }
    products_that_overflow();
    absurd_boundaries();

    void *block = malloc(10 * MIB);
    CHECK(block != NULL, "a sane size after all that");
    free(block);
    free(kept);
    puts("absurd sizes: null and ENOMEM from every entry point");
    return 0;
}
