/* Blocks go from malloc to free by whatever way these are found: as the program's own, by a handle of glibc, or by a library
 * that looks into glibc first, whoever has opened it. Argument: the library. */
#include "check.h"
#include <dlfcn.h>

enum { THREADS = 8, TIMES = 40 };

static const char *path;
static pthread_barrier_t together;

static void exchange(void *library)
{
    CHECK(library != NULL, "%s", dlerror());
    void *(*take)(int, size_t) = (void *(*)(int, size_t))dlsym(library, "deep_take");
    void (*give)(void *) = (void (*)(void *))dlsym(library, "deep_give");
    CHECK(take != NULL && give != NULL, "%s", dlerror());
    for (int i = 0; i < 64; i++) {
        free(take(i % 8, 1000));
        give(malloc(1000));
    }
}

static void *opens(void *argument)
{
    pthread_barrier_wait(&together);
    exchange(dlopen(path, RTLD_NOW | RTLD_DEEPBIND));
    return argument;
}

/* In a process in which nothing was opened yet. */
static void open_together(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        threads[i] = start(opens, NULL);
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: deep_handle LIBRARY");
    path = arguments[1];
    for (int round = 0; round < TIMES; round++) {
        pid_t fresh = fork();
        CHECK(fresh >= 0, "fork");
        if (fresh == 0) {
            open_together();
            _exit(0);
        }
        reap(fresh, "a process whose threads open a library at the same time");
    }
    void *early = malloc(500), *libc = dlopen("libc.so.6", RTLD_NOW);
    CHECK(libc != NULL, "%s", dlerror());
    void *(*its_malloc)(size_t) = (void *(*)(size_t))dlsym(libc, "malloc");
    void (*its_free)(void *) = (void (*)(void *))dlsym(libc, "free");
    its_free(early);
    its_free(strdup("what glibc allocates"));
    free(its_malloc(100));
    void *late = its_malloc(100);
    exchange(dlopen(path, RTLD_NOW | RTLD_DEEPBIND));
    its_free(late);
    exchange(dlmopen(LM_ID_BASE, path, RTLD_NOW | RTLD_DEEPBIND));
    puts("deep_handle: one heap, by whatever way");
    return 0;
}
