/* A library that looks for malloc in itself and in what it needs first, because it is opened with RTLD_DEEPBIND: see
 * deep.c. Every function is one that a block comes from or goes to. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *deep_take(int way, size_t size)
{
    void *block = NULL;
    switch (way) {
    case 0: return malloc(size);
    case 1: return calloc(1, size);
    case 2: return realloc(NULL, size);
    case 3: return memalign(64, size);
    case 4: return aligned_alloc(256, size);
    case 5: return posix_memalign(&block, 4096, size) == 0 ? block : NULL;
    case 6: return valloc(size);
    case 7: return reallocarray(NULL, size, 1);
    default: return NULL;
    }
}

void deep_give(void *block)
{
    free(block);
}

void *deep_grow(void *block, size_t size)
{
    return realloc(block, size);
}

size_t deep_usable(void *block)
{
    return malloc_usable_size(block);
}

/* What glibc allocates on its own for somebody who frees it. */
char *deep_text(int number)
{
    char *text = NULL;
    return asprintf(&text, "number %d", number) > 0 ? text : NULL;
}
