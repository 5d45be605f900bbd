/* A library that registers, before the program has allocated anything, a handler that allocates before each fork. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void before(void)
{
    for (size_t size = 8; size < 1000000; size *= 3) {
        void *block = malloc(size);
        if (!block)
            abort();
        memset(block, 1, size);
        free(block);
    }
}

__attribute__((constructor)) static void start(void)
{
    pthread_atfork(before, before, before);
}
