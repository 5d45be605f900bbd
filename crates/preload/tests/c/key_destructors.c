/* Destructors of pthread keys allocate and free in every round that POSIX grants, so also after the allocator's own
 * destructor has run. More than 32 keys: from there on glibc callocs inside pthread_setspecific. */
#include "check.h"
#include <limits.h>
#include <stdatomic.h>

enum { KEYS = 48, THREADS = 60 };

static pthread_key_t keys[KEYS];
static _Atomic long destroyed[PTHREAD_DESTRUCTOR_ITERATIONS];
static _Atomic(void *) shared[64];

struct value {
    size_t key, round, size;
    unsigned char bytes[];
};

static struct value *made(size_t key, size_t round)
{
    size_t size = 1 + (key * 37 + round * 101) % 3000;
    struct value *value = malloc(sizeof *value + size);
    CHECK(value != NULL, "the value of key %zu in round %zu", key, round);
    *value = (struct value){key, round, size};
    fill(value->bytes, size, key);
    return value;
}

static void destroy(void *pointer)
{
    struct value *value = pointer;
    size_t key = value->key, round = value->round;
    CHECK(holds(value->bytes, value->size, key), "the value of key %zu in round %zu", key, round);
    free(value);
    destroyed[round]++;
    /* Work of every kind, also on objects of other threads. */
    void *blocks[40];
    for (size_t i = 0; i < 40; i++)
        blocks[i] = i % 2 ? malloc(i * 50) : calloc(1, i * 50 + 1);
    for (size_t i = 0; i < 40; i++)
        free(blocks[i]);
    free(atomic_exchange(&shared[key % 64], malloc(key + 100)));
    if (key % 16 == 0)
        free(realloc(malloc(300 * KIB), 600 * KIB));
    if (round + 1 < PTHREAD_DESTRUCTOR_ITERATIONS)
        pthread_setspecific(keys[key], made(key, round + 1));
}

static void *body(void *argument)
{
    /* Some threads never allocate before their end, but for the values. */
    if ((size_t)argument % 3) {
        uint64_t random = (size_t)argument;
        for (int i = 0; i < 500; i++)
            free(malloc(program_size(&random)));
    }
    for (size_t key = 0; key < KEYS; key++)
        pthread_setspecific(keys[key], made(key, 0));
    return NULL;
}

int main(void)
{
    for (int i = 0; i < KEYS; i++) {
        int error = pthread_key_create(&keys[i], destroy);
        CHECK(error == 0, "key %d: %d", i, error);
    }
    long warm = 0;
    for (int round = 0; round < 4; round++) {
        for (int first = 0; first < THREADS; first += 6) {
            pthread_t threads[6];
            for (size_t i = 0; i < 6; i++)
                threads[i] = start(body, (void *)(first + i));
            for (int i = 0; i < 6; i++)
                finish(threads[i]);
        }
        if (round == 0)
            warm = status_kib("VmRSS:");
    }
    long bound = warm * 11 / 10 + 2 * 1024;
    long after = resident_within(bound);
    for (int round = 0; round < PTHREAD_DESTRUCTOR_ITERATIONS; round++)
        CHECK(destroyed[round] == 4L * THREADS * KEYS, "round %d ran %ld destructors of %d", round, destroyed[round],
              4 * THREADS * KEYS);
    /* A cache made anew by a late destructor must not stay behind with every thread. */
    CHECK(after <= bound, "late destructors leak: %ld KiB, then %ld", warm, after);
    for (int i = 0; i < 64; i++)
        free(shared[i]);
    printf("key destructors: all %d rounds of %d threads; %ld KiB resident, then %ld\n", PTHREAD_DESTRUCTOR_ITERATIONS,
           4 * THREADS, warm, after);
    return 0;
}
