/* Threads end while others free what they made: the objects outlive their makers, and makers end in the middle of
 * others' frees. A table that all share; every slot's owner changes hands through an exchange. */
#include "check.h"
#include <stdatomic.h>

enum { SLOTS = 2048, LIVES = 400, STEPS = 1500, LINES = 4 };

struct object {
    size_t size;
    uint64_t seed;
    unsigned char bytes[];
};

static _Atomic(struct object *) table[SLOTS];

static void let_go(struct object *object)
{
    if (!object)
        return;
    CHECK(holds(object->bytes, object->size, object->seed), "an object of %zu bytes", object->size);
    free(object);
}

static void *one_life(void *argument)
{
    uint64_t random = (uintptr_t)argument * 7919 + 1;
    for (int i = 0; i < STEPS; i++) {
        size_t size = program_size(&random) % (8 * KIB);
        struct object *object = malloc(sizeof *object + size);
        CHECK(object != NULL, "%zu bytes", size);
        object->size = size;
        object->seed = next_random(&random);
        fill(object->bytes, size, object->seed);
        let_go(atomic_exchange(&table[next_random(&random) % SLOTS], object));
    }
    return NULL;
}

/* A line of threads, each begun when the one before has ended, so that some thread is always just ending. */
static void *line_of_lives(void *argument)
{
    size_t line = (size_t)argument;
    for (size_t life = 0; life < LIVES / LINES; life++)
        finish(start(one_life, (void *)(line * LIVES + life)));
    return NULL;
}

int main(void)
{
    pthread_t lines[LINES];
    for (size_t i = 0; i < LINES; i++)
        lines[i] = start(line_of_lives, (void *)i);
    for (int i = 0; i < LINES; i++)
        finish(lines[i]);
    for (int i = 0; i < SLOTS; i++)
        let_go(table[i]);
    printf("threads ended while others freed: %d lives, every object whole\n", LIVES);
    return 0;
}
