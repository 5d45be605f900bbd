/*
 * smoke PAGE_SIZE: a program that looks at an allocator preloaded under it, for `cargo xtask aarch64`.
 *
 * It says what is wrong and ends with 1, or prints one line and ends with 0. The page size is the one
 * that it was told to expect: the emulator that runs it can show it another than the machine's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "smoke: line %d: not so: %s\n", __LINE__, #condition); \
            _exit(1);                                                             \
        }                                                                         \
    } while (0)

/* One byte that follows from address and size: memory that two objects share shows. */
static unsigned char mark(const void *p, size_t size) {
    return (unsigned char)(((uintptr_t)p >> 4) * 31 + size);
}

static void fill(void *p, size_t size) { memset(p, mark(p, size), size); }

static void check(const void *p, size_t size) {
    const unsigned char *bytes = p, expected = mark(p, size);
    for (size_t i = 0; i < size; i += (size > 4096 ? 509 : 1))
        CHECK(bytes[i] == expected);
    CHECK(size == 0 || bytes[size - 1] == expected);
}

static unsigned next(unsigned *seed) { return *seed = *seed * 1664525u + 1013904223u; }

/* Mostly small, sometimes up to 600 KiB: every tier is reached. */
static size_t some_size(unsigned *seed) {
    unsigned r = next(seed) >> 8, kind = r % 100;
    if (kind < 80)
        return r % 1024;
    return kind < 97 ? r % 40000 : r % 600000;
}

#define LIVE 300
#define HANDED 64

/* Objects that one thread leaves for another to free. */
static _Atomic(void *) handed[HANDED];

static void *churn(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    void *live[LIVE] = {0};
    size_t sizes[LIVE] = {0};
    for (int round = 0; round < 6000; round++) {
        unsigned k = (next(&seed) >> 8) % LIVE;
        if (live[k]) {
            check(live[k], sizes[k]);
            if (round % 5 == 0) {
                /* Keeps what is in the old part. */
                size_t size = some_size(&seed), kept = size < sizes[k] ? size : sizes[k];
                unsigned char byte = mark(live[k], sizes[k]);
                unsigned char *p = realloc(live[k], size ? size : 1);
                CHECK(p && (kept == 0 || (p[0] == byte && p[kept - 1] == byte)));
                live[k] = p;
                sizes[k] = size ? size : 1;
                fill(p, sizes[k]);
                continue;
            }
            free(round % 3 ? live[k] : atomic_exchange(&handed[k % HANDED], live[k]));
        }
        sizes[k] = some_size(&seed);
        live[k] = round % 4 ? malloc(sizes[k]) : calloc(1, sizes[k] ? sizes[k] : 1);
        CHECK(live[k] && (uintptr_t)live[k] % 16 == 0);
        CHECK(malloc_usable_size(live[k]) >= sizes[k]);
        if (round % 4 == 0)
            for (size_t i = 0; i < sizes[k]; i++)
                CHECK(((char *)live[k])[i] == 0);
        fill(live[k], sizes[k]);
    }
    for (int k = 0; k < LIVE; k++)
        free(live[k]);
    return NULL;
}

static void threads(int count) {
    pthread_t all[16];
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&all[i], NULL, churn, (void *)(uintptr_t)(i + 1)) == 0);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(all[i], NULL) == 0);
}

static void alignments(void) {
    for (size_t align = sizeof(void *); align <= (size_t)1 << 22; align *= 2) {
        void *p = NULL;
        CHECK(posix_memalign(&p, align, align / 2 + 1) == 0 && (uintptr_t)p % align == 0);
        fill(p, align / 2 + 1);
        free(p);
        p = aligned_alloc(align, 3 * align);
        CHECK(p && (uintptr_t)p % align == 0);
        free(p);
    }
    void *p = valloc(1);
    CHECK(p && (uintptr_t)p % (uintptr_t)sysconf(_SC_PAGESIZE) == 0);
    free(p);
    CHECK(posix_memalign(&p, 3, 8) == EINVAL);
}

static void refusals(void) {
    volatile size_t huge = SIZE_MAX / 2 + 1;
    errno = 0;
    CHECK(malloc(huge) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(huge, 4) == NULL && errno == ENOMEM);
    void *zero = malloc(0), *other = malloc(0);
    CHECK(zero && other && zero != other);
    free(zero);
    free(other);
}

static void large(void) {
    size_t size = (size_t)5 << 20;
    char *p = malloc(size);
    CHECK(p);
    memset(p, 'a', size);
    for (int step = 0; step < 4; step++) {
        p = realloc(p, size * 2);
        CHECK(p && p[0] == 'a' && p[size - 1] == 'a');
        memset(p + size, 'a', size);
        size *= 2;
    }
    free(p);
    char *zeroed = calloc(3, (size_t)4 << 20);
    CHECK(zeroed && zeroed[0] == 0 && zeroed[((size_t)12 << 20) - 1] == 0);
    free(zeroed);
}

static void forks(void) {
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            threads(2);
            churn((void *)(uintptr_t)99);
            _exit(0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    CHECK(sysconf(_SC_PAGESIZE) == atol(argv[1]));
    Dl_info info;
    CHECK(dladdr((void *)malloc, &info) && info.dli_fname && strstr(info.dli_fname, "tiermalloc"));
    alignments();
    refusals();
    large();
    threads(4);
    forks();
    for (int i = 0; i < HANDED; i++)
        free(atomic_exchange(&handed[i], NULL));
    printf("pages of %s bytes: sizes, alignments, threads, forks as they should be\n", argv[1]);
    return 0;
}
