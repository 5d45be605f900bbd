/* What the programs about limits share: a run from the first instruction on under RLIMIT_AS, and lists of blocks that
 * need no memory beside the blocks: each block begins with its own link, size and seed. */
#ifndef TIERMALLOC_TESTS_LIMIT_H
#define TIERMALLOC_TESTS_LIMIT_H

#include "check.h"

/* Sets the limit and begins the program anew, so that the allocator starts under it, as in a shell with `ulimit -v`. */
static inline void begin_again_limited(size_t bytes, char **arguments)
{
    if (getenv("TIERMALLOC_TEST_LIMITED"))
        return;
    struct rlimit limit = {bytes, bytes};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "RLIMIT_AS");
    setenv("TIERMALLOC_TEST_LIMITED", "1", 1);
    execv("/proc/self/exe", arguments);
    CHECK(0, "the program does not start with %zu MiB of address space", bytes / MIB);
}

struct link {
    struct link *next;
    size_t size;
    uint64_t seed;
    unsigned char bytes[];
};

enum { SMALLEST = sizeof(struct link) };

struct list {
    struct link *first;
    size_t bytes, count;
};

/* Adds a block, or returns 0 when there is no memory; then errno must say so. */
static inline int add(struct list *list, size_t size)
{
    if (size < SMALLEST)
        size = SMALLEST;
    errno = 0;
    struct link *link = (struct link *)malloc(size);
    if (!link) {
        CHECK(errno == ENOMEM, "malloc of %zu bytes failed and set errno to %d", size, errno);
        return 0;
    }
    CHECK(is_aligned(link, 16), "%zu bytes at %p", size, (void *)link);
    link->next = list->first;
    link->size = size;
    link->seed = list->count * 31 + size;
    fill(link->bytes, size - SMALLEST, link->seed);
    list->first = link;
    list->bytes += size;
    list->count++;
    return 1;
}

static inline void add_until_null(struct list *list, size_t size)
{
    while (add(list, size))
        ;
}

static inline void verify(const struct list *list)
{
    size_t bytes = 0, count = 0;
    for (struct link *link = list->first; link; link = link->next) {
        CHECK(holds(link->bytes, link->size - SMALLEST, link->seed), "block of %zu bytes near the limit", link->size);
        bytes += link->size;
        count++;
    }
    CHECK(bytes == list->bytes && count == list->count, "%zu blocks of %zu", count, list->count);
}

/* Frees every n-th block and asks for another of the same size at once: there must be one, also where nothing is left.
 * (Not so on glibc: freeing a big block moves the threshold that says where the next one comes from, and a small one goes
 * back to its arena, which need not be the one that is asked next.) */
static inline void replace(struct list *list, size_t n)
{
    if (on_system())
        return;
    struct link **at = &list->first;
    for (size_t i = 0; *at; i++, at = &(*at)->next) {
        if (i % n)
            continue;
        struct link *link = *at, *next = link->next;
        size_t size = link->size;
        uint64_t seed = link->seed;
        free(link);
        link = (struct link *)malloc(size);
        CHECK(link != NULL, "a block of %zu bytes, just after one of that size was freed", size);
        link->next = next;
        link->size = size;
        link->seed = seed;
        fill(link->bytes, size - SMALLEST, seed);
        *at = link;
    }
}

/* Frees every n-th block of what is left, or all with n = 1. */
static inline void thin(struct list *list, size_t n)
{
    struct link **at = &list->first;
    for (size_t i = 0; *at; i++) {
        struct link *link = *at;
        if (i % n) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        list->bytes -= link->size;
        list->count--;
        free(link);
    }
}

#endif
