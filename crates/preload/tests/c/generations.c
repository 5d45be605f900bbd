/* Larson's server: a thread replaces random objects of an array for a while, hands the array to a new thread, and ends.
 * So every object is freed by a later generation than the one that made it. */
#include "check.h"

enum { LINES = 3, GENERATIONS = 60, OBJECTS = 1000, STEPS = 6000 };

struct line {
    int generation;
    uint64_t random;
    void *blocks[OBJECTS];
    size_t sizes[OBJECTS];
    pthread_t next;
    pthread_barrier_t done;
};

static struct line lines[LINES];

static void *generation(void *argument)
{
    struct line *line = argument;
    for (int i = 0; i < STEPS; i++) {
        uint64_t r = next_random(&line->random);
        size_t which = r % OBJECTS;
        if (line->blocks[which]) {
            CHECK(holds(line->blocks[which], line->sizes[which], which), "object %zu of generation %d", which,
                  line->generation);
            free(line->blocks[which]);
        }
        line->sizes[which] = 8 + (r >> 20) % 1000;
        line->blocks[which] = malloc(line->sizes[which]);
        CHECK(line->blocks[which] != NULL, "%zu bytes", line->sizes[which]);
        fill(line->blocks[which], line->sizes[which], which);
    }
    if (++line->generation < GENERATIONS) {
        /* The heir starts while this one ends. */
        pthread_t heir = start(generation, line);
        pthread_detach(heir);
    } else {
        pthread_barrier_wait(&line->done);
    }
    return NULL;
}

int main(void)
{
    for (int i = 0; i < LINES; i++) {
        lines[i].random = i + 1;
        pthread_barrier_init(&lines[i].done, NULL, 2);
        pthread_detach(start(generation, &lines[i]));
    }
    for (int i = 0; i < LINES; i++)
        pthread_barrier_wait(&lines[i].done);
    for (int i = 0; i < LINES; i++)
        for (size_t which = 0; which < OBJECTS; which++)
            if (lines[i].blocks[which]) {
                CHECK(holds(lines[i].blocks[which], lines[i].sizes[which], which), "object %zu of line %d", which, i);
                free(lines[i].blocks[which]);
            }
    long peak = status_kib("VmHWM:");
    /* 3000 objects of 500 bytes on average are alive: 1.5 MB. */
    CHECK(peak < 64 * 1024, "generations pile up: a peak of %ld KiB", peak);
    printf("generations: %d hand-overs, every object whole; a peak of %ld KiB\n", LINES * GENERATIONS, peak);
    return 0;
}
