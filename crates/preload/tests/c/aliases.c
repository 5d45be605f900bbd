/* Every other name of malloc and free is there and means the same heap: what one name gives, another frees. Names that
 * glibc 2.36 has not got (C23's) or has only for old programs (cfree) are looked up while running. */
#include "check.h"
#include <dlfcn.h>

/* A name that need not exist on the system's own allocator, but must in the library. */
static void *name(const char *symbol)
{
    void *address = dlsym(RTLD_DEFAULT, symbol);
    CHECK(address != NULL || on_system(), "no %s", symbol);
    return address;
}

typedef void *(*one_size)(size_t);
typedef void *(*two_sizes)(size_t, size_t);
typedef void *(*resize)(void *, size_t);
typedef void (*release)(void *);
typedef void (*release_sized)(void *, size_t);
typedef void (*release_aligned)(void *, size_t, size_t);
typedef int (*checked)(void **, size_t, size_t);

static const size_t sizes[] = {0, 1, 8, 24, 100, 1000, 4096, 5000, 40000, 256 * KIB, 256 * KIB + 1, 3 * MIB, 40 * MIB};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void *used(void *block, size_t size, const char *maker)
{
    CHECK(block != NULL && is_aligned(block, 16), "%s(%zu) gave %p", maker, size, block);
    CHECK(malloc_usable_size(block) >= size, "%s(%zu) holds %zu", maker, size, malloc_usable_size(block));
    fill(block, size, size);
    CHECK(holds(block, size, size), "%s(%zu)", maker, size);
    return block;
}

static void internal_names(void)
{
    one_size libc_malloc = (one_size)name("__libc_malloc");
    two_sizes libc_calloc = (two_sizes)name("__libc_calloc");
    resize libc_realloc = (resize)name("__libc_realloc");
    release libc_free = (release)name("__libc_free");
    two_sizes libc_memalign = (two_sizes)name("__libc_memalign");
    one_size libc_valloc = (one_size)name("__libc_valloc");
    one_size libc_pvalloc = (one_size)name("__libc_pvalloc");
    release libc_cfree = (release)name("__libc_cfree");
    checked posix = (checked)name("__posix_memalign");
    release old_free = (release)name("cfree");
    if (!libc_cfree)
        libc_cfree = libc_free;
    if (!old_free)
        old_free = free;

    for (int i = 0; i < SIZES; i++) {
        size_t size = sizes[i];
        free(used(libc_malloc(size), size, "__libc_malloc"));
        libc_free(used(malloc(size), size, "malloc"));
        old_free(used(malloc(size), size, "malloc"));
        libc_cfree(used(malloc(size), size, "malloc"));
        void *block = libc_calloc(size, 1);
        CHECK(is_zero(block, size), "__libc_calloc(%zu, 1)", size);
        free(used(block, size, "__libc_calloc"));
        block = realloc(used(libc_malloc(size), size, "__libc_malloc"), size + 100);
        CHECK(holds(block, size, size), "realloc of __libc_malloc's %zu bytes", size);
        block = libc_realloc(block, size + 5000);
        CHECK(holds(block, size, size), "__libc_realloc to %zu bytes", size + 5000);
        free(block);
        block = used(libc_memalign(512, size), size, "__libc_memalign");
        CHECK(is_aligned(block, 512), "__libc_memalign(512, %zu) at %p", size, block);
        free(block);
        free(used(libc_valloc(size), size, "__libc_valloc"));
        free(used(libc_pvalloc(size), size, "__libc_pvalloc"));
        if (posix) {
            CHECK(posix(&block, 256, size) == 0 && is_aligned(block, 256), "__posix_memalign(256, %zu)", size);
            libc_free(used(block, size, "__posix_memalign"));
            CHECK(posix(&block, 24, size) == EINVAL, "__posix_memalign on 24");
        }
    }
    libc_free(NULL);
    old_free(NULL);
    errno = 0;
    CHECK(libc_malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM, "__libc_malloc(PTRDIFF_MAX)");
    CHECK(libc_calloc(SIZE_MAX, 2) == NULL, "__libc_calloc that overflows");
}

/* C23: a program that knows the size may say it. Every way to have got the block that the standard allows. */
static void sized(void)
{
    release_sized free_sized = (release_sized)name("free_sized");
    release_aligned free_aligned_sized = (release_aligned)name("free_aligned_sized");
    if (!free_sized || !free_aligned_sized) {
        puts("free_sized, free_aligned_sized: not on this system");
        return;
    }
    free_sized(NULL, 0);
    free_sized(NULL, 100);
    free_aligned_sized(NULL, 64, 100);
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size <= 5000; size++) {
            free_sized(malloc(size), size);
            free_sized(calloc(1, size), size);
            free_sized(realloc(malloc(size / 3), size ? size : 1), size ? size : 1);
        }
        for (int i = 0; i < SIZES; i++) {
            size_t size = sizes[i];
            free_sized(used(malloc(size), size, "malloc"), size);
            free_sized(used(calloc(size, 1), size, "calloc"), size);
            for (size_t alignment = 1; alignment <= 64 * KIB; alignment *= 2) {
                void *block = used(aligned_alloc(alignment, size), size, "aligned_alloc");
                CHECK(is_aligned(block, alignment), "aligned_alloc(%zu, %zu)", alignment, size);
                free_aligned_sized(block, alignment, size);
            }
        }
    }
    /* The heap is whole afterwards: live blocks keep their contents while others come and go by size. */
    void *kept[500];
    for (size_t i = 0; i < 500; i++)
        fill(kept[i] = malloc(i * 3), i * 3, i);
    for (size_t i = 0; i < 500; i += 2)
        free_sized(kept[i], i * 3);
    for (size_t i = 0; i < 500; i += 2)
        fill(kept[i] = malloc(i * 3), i * 3, i + 1000);
    for (size_t i = 0; i < 500; i++) {
        CHECK(holds(kept[i], i * 3, i % 2 ? i : i + 1000), "block %zu", i);
        free(kept[i]);
    }
}

int main(void)
{
    internal_names();
    sized();
    puts("aliases: all names, one heap");
    return 0;
}
