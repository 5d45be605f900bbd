/* errno belongs to the program: what succeeds leaves it alone, and free does so whatever the block, because a program
 * frees between a failing call and the look at why it failed. */
#include "check.h"

enum { MARK = 4711 };

static void unchanged(const char *what, size_t size)
{
    CHECK(errno == MARK, "%s of %zu bytes changed errno", what, size);
}

static void one_size(size_t size)
{
    void *aligned = NULL;
    errno = MARK;
    void *block = malloc(size);
    unchanged("malloc", size);
    CHECK(block != NULL, "%zu bytes", size);
    block = realloc(block, size + size / 2 + 1);
    unchanged("a growing realloc", size);
    block = realloc(block, size / 2 + 1);
    unchanged("a shrinking realloc", size);
    free(block);
    unchanged("free", size);
    block = calloc(1, size);
    unchanged("calloc", size);
    malloc_usable_size(block);
    unchanged("malloc_usable_size", size);
    free(block);
    block = memalign(4096, size);
    unchanged("memalign", size);
    free(block);
    unchanged("free of an aligned block", size);
    CHECK(posix_memalign(&aligned, 64 * KIB, size) == 0, "%zu bytes on 64 KiB", size);
    unchanged("posix_memalign", size);
    free(aligned);
    unchanged("free of an aligned block", size);
    free(NULL);
    unchanged("free of null", 0);
}

static void *in_a_thread(void *argument)
{
    (void)argument;
    errno = MARK;
    void *block = malloc(100);
    unchanged("the first malloc of a thread", 100);
    free(block);
    unchanged("the first free of a thread", 100);
    for (size_t size = 1; size < 4 * MIB; size *= 3)
        one_size(size);
    return NULL;
}

/* Enough at once that every cache overflows and memory goes back to the system. */
static void many(size_t size, int count)
{
    void **blocks = malloc(sizeof(void *) * count);
    CHECK(blocks != NULL, "a table");
    errno = MARK;
    for (int i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL, "%zu bytes, %d of them", size, i);
    }
    unchanged("a row of mallocs", size);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    unchanged("a row of frees", size);
    malloc_trim(0);
    errno = MARK;
    free(blocks);
    unchanged("free", sizeof(void *) * count);
}

int main(void)
{
    errno = MARK;
    void *first = malloc(1);
    unchanged("the first malloc", 1);
    free(first);
    for (size_t size = 0; size <= 400 * MIB; size = size * 2 + 1)
        one_size(size);
    many(40, 200000);
    many(3000, 10000);
    many(100 * KIB, 300);
    many(2 * MIB, 60);
    finish(start(in_a_thread, NULL));
    puts("errno: untouched by what succeeds and by every free");
    return 0;
}
