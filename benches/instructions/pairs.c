/*
 * pairs ENTRY ROUNDS: one loop per entry point of an allocator, for counting instructions.
 *
 * Each loop goes over 64 slots, releases what is in a slot and allocates anew. `cargo xtask
 * instructions` runs it under callgrind, with an allocator preloaded, for two numbers of rounds;
 * the difference is what the loop costs, the few instructions of the loop itself included.
 *
 * Exit status 77: this allocator does not offer the entry.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 64
#define NOT_OFFERED 77

/* C23, and C++ without a C++ compiler: there if a library that is loaded defines them. */
extern void free_sized(void *, size_t) __attribute__((weak));
extern void *_Znwm(size_t) __attribute__((weak));              /* operator new(size_t) */
extern void _ZdlPv(void *) __attribute__((weak));              /* operator delete(void *) */
extern void _ZdlPvm(void *, size_t) __attribute__((weak));     /* operator delete(void *, size_t) */

static void *slots[SLOTS];

/* A function of its own for each entry, so that each loop is compiled alone. */
#define LOOP(name, body)                                                \
    __attribute__((noinline)) static void name(unsigned long n) {       \
        for (unsigned long i = 0; i < n; i++) {                         \
            unsigned long k = i % SLOTS;                                \
            body;                                                       \
        }                                                               \
    }

#define PAIR(size) LOOP(pair_##size, free(slots[k]); slots[k] = malloc(size))

PAIR(16)
PAIR(32)
PAIR(100)
PAIR(1000)
PAIR(4096)
PAIR(20000)
LOOP(calloc_32, free(slots[k]); slots[k] = calloc(1, 32))
/* Four sizes that share a class in every allocator: their classes lie 8 bytes apart or more. */
LOOP(realloc_in_place, slots[k] = realloc(slots[k], 1001 + (i & 3)))
LOOP(memalign_64, free(slots[k]); if (posix_memalign(&slots[k], 64, 64)) abort())
LOOP(sized_32, free_sized(slots[k], 32); slots[k] = malloc(32))
LOOP(new_32, _ZdlPv(slots[k]); slots[k] = _Znwm(32))
LOOP(new_sized_32, _ZdlPvm(slots[k], 32); slots[k] = _Znwm(32))

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
        {"calloc-32", calloc_32, 1},
        {"realloc", realloc_in_place, 1},
        {"memalign", memalign_64, 1},
        {"sized-32", sized_32, free_sized != NULL},
        {"new-32", new_32, _Znwm != NULL && _ZdlPv != NULL},
        {"new-sized-32", new_sized_32, _Znwm != NULL && _ZdlPvm != NULL},
    };
    if (argc != 3)
        return 2;
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
