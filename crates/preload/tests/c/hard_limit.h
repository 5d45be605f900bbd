/* What the programs about hard_limit share: what is resident, and lists of blocks that need no memory beside
 * the blocks. The limit is the one that TIERMALLOC_CONF names, and told as the first argument, in MiB. */
#ifndef TIERMALLOC_TESTS_HARD_LIMIT_H
#define TIERMALLOC_TESTS_HARD_LIMIT_H

#include "check.h"

/* Before the program has allocated anything to speak of. */
static long before_kib;
static size_t limit;
static long peak_kib;

static inline void begin_under(const char *mib)
{
    limit = (size_t)atol(mib) * MIB;
    before_kib = status_kib("RssAnon:");
}

static inline void within_limit(const char *what)
{
    long heap = status_kib("RssAnon:") - before_kib;
    if (heap > peak_kib)
        peak_kib = heap;
    CHECK(heap <= (long)((limit + 2 * MIB) / KIB), "%s: %ld KiB of %zu", what, heap, limit / KIB);
}

struct block {
    struct block *next;
    size_t size;
};

struct blocks {
    struct block *first;
    size_t bytes, count;
};

/* A block of the kind, or null with errno. */
static inline void *block_of(char kind, size_t size)
{
    void *block = NULL;
    switch (kind) {
    case 'c':
        block = calloc(1, size);
        CHECK(!block || is_zero(block, size), "calloc of %zu bytes", size);
        return block;
    case 'a':
        errno = posix_memalign(&block, 64 * KIB, size);
        return errno ? NULL : block;
    case 'r': {
        /* In steps, of which each may move or fail. */
        size_t got = 64;
        block = malloc(got);
        while (block && got < size) {
            size_t more = got + got / 2 + 1 < size ? got + got / 2 + 1 : size;
            memset(block, 0x5a, got);
            char *grown = realloc(block, more);
            if (!grown) {
                int error = errno;
                for (size_t i = 0; i < got; i++)
                    CHECK(((char *)block)[i] == 0x5a, "the old block of %zu bytes, when realloc fails", got);
                free(block);
                errno = error;
                return NULL;
            }
            block = grown;
            got = more;
        }
        return block;
    }
    default:
        return malloc(size);
    }
}

static inline int want(struct blocks *list, char kind, size_t size)
{
    if (size < sizeof(struct block))
        size = sizeof(struct block);
    errno = 0;
    struct block *block = (struct block *)block_of(kind, size);
    if (!block) {
        CHECK(errno == ENOMEM, "%zu bytes failed with errno %d", size, errno);
        return 0;
    }
    block->next = list->first;
    block->size = size;
    fill(block + 1, size - sizeof *block, size + 1);
    list->first = block;
    list->bytes += size;
    list->count++;
    return 1;
}

/* Frees every n-th block; 1 for all. What is freed must be as it was left. */
static inline void let_go(struct blocks *list, size_t n)
{
    struct block **at = &list->first;
    for (size_t i = 0; *at; i++) {
        struct block *block = *at;
        if (i % n) {
            at = &block->next;
            continue;
        }
        CHECK(holds(block + 1, block->size - sizeof *block, block->size + 1), "a block of %zu bytes", block->size);
        *at = block->next;
        list->bytes -= block->size;
        list->count--;
        free(block);
    }
}

#endif
