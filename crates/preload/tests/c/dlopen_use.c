/* The library loaded by dlopen, not preloaded: its heap stands beside the program's own. Threads use it through dlsym,
 * dlclose comes while they are alive, and their ends find nothing missing. Arguments: the library, and how to load it. */
#include "check.h"
#include <dlfcn.h>
#include <stdatomic.h>

enum { THREADS = 6, SLOTS = 256 };

static void *(*its_malloc)(size_t);
static void *(*its_realloc)(void *, size_t);
static void *(*its_calloc)(size_t, size_t);
static void (*its_free)(void *);
static size_t (*its_usable_size)(void *);

static _Atomic(unsigned char *) table[SLOTS];
static pthread_barrier_t worked, closed;

static void *body(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    for (int i = 0; i < 40000; i++) {
        size_t size = 16 + program_size(&random) % (20 * KIB);
        unsigned char *block = i % 3 ? its_malloc(size) : its_calloc(1, size);
        CHECK(block != NULL && is_aligned(block, 16), "%zu bytes of its heap at %p", size, (void *)block);
        if (i % 7 == 0) {
            block = its_realloc(block, size * 2);
            CHECK(block != NULL, "growing to %zu bytes", size * 2);
        }
        CHECK(its_usable_size(block) >= size, "%zu bytes", size);
        memset(block, (int)(size & 0xff), size);
        memcpy(block, &size, sizeof size);
        block = atomic_exchange(&table[next_random(&random) % SLOTS], block);
        if (block) {
            memcpy(&size, block, sizeof size);
            CHECK(block[size - 1] == (size & 0xff) || size <= 16, "a block of %zu bytes from another thread", size);
            its_free(block);
        }
        /* The program's own heap goes on beside it. */
        free(malloc(100));
    }
    pthread_barrier_wait(&worked);
    pthread_barrier_wait(&closed);
    return NULL;
}

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    CHECK(address != NULL, "%s", dlerror());
    return address;
}

int main(int count, char **arguments)
{
    CHECK(count == 3, "usage: dlopen_use LIBRARY local|deepbind");
    int flags = RTLD_NOW | RTLD_LOCAL | (strcmp(arguments[2], "deepbind") == 0 ? RTLD_DEEPBIND : 0);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(arguments[1], flags);
        CHECK(library != NULL, "%s", dlerror());
        its_malloc = (void *(*)(size_t))symbol(library, "malloc");
        its_realloc = (void *(*)(void *, size_t))symbol(library, "realloc");
        its_calloc = (void *(*)(size_t, size_t))symbol(library, "calloc");
        its_free = (void (*)(void *))symbol(library, "free");
        its_usable_size = (size_t(*)(void *))symbol(library, "malloc_usable_size");
        CHECK(its_malloc != malloc, "a heap beside the program's own");
        pthread_barrier_init(&worked, NULL, THREADS + 1);
        pthread_barrier_init(&closed, NULL, THREADS + 1);
        pthread_t threads[THREADS];
        for (size_t i = 0; i < THREADS; i++)
            threads[i] = start(body, (void *)i);
        pthread_barrier_wait(&worked);
        for (int i = 0; i < SLOTS; i++)
            its_free(atomic_exchange(&table[i], NULL));
        CHECK(dlclose(library) == 0, "%s", dlerror());
        /* Now the threads end, and whatever the library asked pthread to call then must still be there. */
        pthread_barrier_wait(&closed);
        for (int i = 0; i < THREADS; i++)
            finish(threads[i]);
        pid_t pid = fork();
        CHECK(pid >= 0, "fork after dlclose");
        if (pid == 0) {
            free(malloc(1000));
            exit(0);
        }
        reap(pid, "a child after dlclose");
    }
    printf("dlopen, %s: used by threads, closed while they lived\n", arguments[2]);
    return 0;
}
