/*
 * pairs ENTRY ROUNDS: one loop per entry point of an allocator, for counting instructions.
 *
 * Most loops go over 64 slots, release what is in a slot and allocate anew; those called bulk allocate
 * many objects and then free them all, so that they count what lies behind the fast path. `cargo xtask
 * instructions` runs them under callgrind, with an allocator preloaded, for two numbers of rounds;
 * the difference is what a round costs, the few instructions of the loop itself included.
 *
 * Exit status 77: this allocator does not offer the entry.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 64
/* Objects of a bulk round, and of one that another thread frees. */
#define BULK 4000
#define HANDED 1000
#define NOT_OFFERED 77

/* C23, and C++ without a C++ compiler: there if a library that is loaded defines them. */
extern void free_sized(void *, size_t) __attribute__((weak));
extern void *_Znwm(size_t) __attribute__((weak));              /* operator new(size_t) */
extern void _ZdlPv(void *) __attribute__((weak));              /* operator delete(void *) */
extern void _ZdlPvm(void *, size_t) __attribute__((weak));     /* operator delete(void *, size_t) */

static void *slots[SLOTS];
static void *objects[BULK];
/* A permutation of the objects, for freeing at random. */
static unsigned order[BULK];

/* A function of its own for each entry, so that each loop is compiled alone. */
#define LOOP(name, body)                                                \
    __attribute__((noinline)) static void name(unsigned long n) {       \
        for (unsigned long i = 0; i < n; i++) {                         \
            unsigned long k = i % SLOTS;                                \
            body;                                                       \
        }                                                               \
    }

#define PAIR(size) LOOP(pair_##size, free(slots[k]); slots[k] = malloc(size))
#define CALLOC(size) LOOP(calloc_##size, free(slots[k]); slots[k] = calloc(1, size))
#define MEMALIGN(align) \
    LOOP(memalign_##align, free(slots[k]); if (posix_memalign(&slots[k], align, align)) abort())

PAIR(16)
PAIR(32)
PAIR(100)
PAIR(1000)
PAIR(4096)
PAIR(20000)
PAIR(300000)
CALLOC(32)
CALLOC(1000)
CALLOC(100000)
/* Four sizes that share a class in every allocator: their classes lie 8 bytes apart or more. */
LOOP(realloc_in_place, slots[k] = realloc(slots[k], 1001 + (i & 3)))
MEMALIGN(64)
MEMALIGN(4096)
LOOP(sized_32, free_sized(slots[k], 32); slots[k] = malloc(32))
LOOP(new_32, _ZdlPv(slots[k]); slots[k] = _Znwm(32))
LOOP(new_sized_32, _ZdlPvm(slots[k], 32); slots[k] = _Znwm(32))

/* Grows one block from 16 bytes to 64 KiB by doubling: twelve calls, what they copy included. */
LOOP(realloc_grow, (void)k;
     void *block = malloc(16);
     for (size_t size = 32; size <= 65536; size *= 2)
         block = realloc(block, size);
     free(block))

/* Allocates many objects, then frees them in some order, the object freed `j`-th being `which`. */
#define BULK_LOOP(name, size, which)                                         \
    __attribute__((noinline)) static void name(unsigned long n) {       \
        for (unsigned long i = 0; i < n; i++) {                         \
            for (unsigned j = 0; j < BULK; j++)                         \
                objects[j] = malloc(size);                              \
            for (unsigned j = 0; j < BULK; j++)                         \
                free(objects[which]);                                   \
        }                                                               \
    }

BULK_LOOP(bulk_32_fifo, 32, j)
BULK_LOOP(bulk_32_lifo, 32, BULK - 1 - j)
BULK_LOOP(bulk_32_random, 32, order[j])
/* 16 MB: more than a thread's cache holds in most allocators. */
BULK_LOOP(bulk_4096_fifo, 4096, j)
BULK_LOOP(bulk_4096_lifo, 4096, BULK - 1 - j)
BULK_LOOP(bulk_4096_random, 4096, order[j])

/* One thread allocates, another frees; they take turns, so that only allocator work varies. */
static pthread_barrier_t turn;

static void *free_what_is_handed(void *rounds) {
    for (unsigned long i = 0; i < *(unsigned long *)rounds; i++) {
        pthread_barrier_wait(&turn);
        for (unsigned j = 0; j < HANDED; j++)
            free(objects[j]);
        pthread_barrier_wait(&turn);
    }
    return NULL;
}

static void handed(unsigned long n) {
    pthread_t other;
    if (pthread_barrier_init(&turn, NULL, 2) || pthread_create(&other, NULL, free_what_is_handed, &n))
        abort();
    for (unsigned long i = 0; i < n; i++) {
        for (unsigned j = 0; j < HANDED; j++)
            objects[j] = malloc(32);
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
    }
    pthread_join(other, NULL);
}

/* Fisher and Yates, with a generator of the plainest kind. */
static void shuffle(void) {
    unsigned long state = 1;
    for (unsigned j = 0; j < BULK; j++) {
        state = state * 6364136223846793005ul + 1442695040888963407ul;
        unsigned other = (unsigned)(state >> 33) % (j + 1);
        order[j] = order[other];
        order[other] = j;
    }
}

struct entry {
    const char *name;
    void (*loop)(unsigned long);
    int offered;
};

int main(int argc, char **argv) {
    const struct entry entries[] = {
        {"pair-16", pair_16, 1},
        {"pair-32", pair_32, 1},
        {"pair-100", pair_100, 1},
        {"pair-1000", pair_1000, 1},
        {"pair-4096", pair_4096, 1},
        {"pair-20000", pair_20000, 1},
        {"pair-300000", pair_300000, 1},
        {"calloc-32", calloc_32, 1},
        {"calloc-1000", calloc_1000, 1},
        {"calloc-100000", calloc_100000, 1},
        {"realloc", realloc_in_place, 1},
        {"realloc-grow", realloc_grow, 1},
        {"memalign-64", memalign_64, 1},
        {"memalign-4096", memalign_4096, 1},
        {"sized-32", sized_32, free_sized != NULL},
        {"new-32", new_32, _Znwm != NULL && _ZdlPv != NULL},
        {"new-sized-32", new_sized_32, _Znwm != NULL && _ZdlPvm != NULL},
        {"bulk-32-fifo", bulk_32_fifo, 1},
        {"bulk-32-lifo", bulk_32_lifo, 1},
        {"bulk-32-random", bulk_32_random, 1},
        {"bulk-4096-fifo", bulk_4096_fifo, 1},
        {"bulk-4096-lifo", bulk_4096_lifo, 1},
        {"bulk-4096-random", bulk_4096_random, 1},
        {"handed", handed, 1},
    };
    if (argc != 3)
        return 2;
    shuffle();
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        if (strcmp(entries[i].name, argv[1]) == 0) {
            if (!entries[i].offered)
                return NOT_OFFERED;
            entries[i].loop(strtoul(argv[2], NULL, 10));
            return 0;
        }
    }
    return 2;
}
