/* scaling: the cost of an operation when there is more of something: `scaling CURVE X`.
 *
 *   heap X      X bytes alive in objects of 16 to 1,024 bytes; random ones are replaced
 *   threads X   X threads, each replacing random ones of 1,000 objects of its own
 *   created X   X threads, one after the other in groups of 8, each with 200 objects
 *   spans X     X blocks of 264 to 520 KiB alive, of which the program writes one page; random ones are replaced
 *
 * Prints one figure, the cost: ns of time for `heap` and `spans`, ns of processor time for `threads`, us of
 * time for each thread of `created`. What it takes to get there is not counted. */

#include "resident.h"

struct slot {
    uint8_t *object;
    uint32_t size;
};

static void fill(struct slot *slot, size_t size) {
    slot->object = take(size);
    slot->size = (uint32_t)size;
    slot->object[0] = (uint8_t)size;
    slot->object[size - 1 < 64 ? size - 1 : 64] = 1;
}

/* Replaces random ones of `count` slots. */
static void replace(struct slot *slots, uint32_t count, uint64_t steps, struct rng *rng, size_t low, size_t high) {
    for (uint64_t i = 0; i < steps; i++) {
        struct slot *slot = &slots[rng_below(rng, count)];
        free(slot->object);
        fill(slot, low == high ? low : rng_skewed(rng, low, high));
    }
}

static double heap(double bytes) {
    struct rng rng = {15};
    /* Sizes are as likely in each of six doublings: 16 * 1.5 to 512 * 1.5 bytes on the average of each. */
    uint64_t count = (uint64_t)(bytes / 252);
    uint64_t steps = 2000000;
    struct slot *slots = aside(count * sizeof *slots);
    for (uint64_t i = 0; i < count; i++) fill(&slots[i], rng_skewed(&rng, 16, 1023));
    replace(slots, (uint32_t)count, steps / 4, &rng, 16, 1023);
    double began = seconds_of(CLOCK_MONOTONIC);
    replace(slots, (uint32_t)count, steps, &rng, 16, 1023);
    return (seconds_of(CLOCK_MONOTONIC) - began) * 1e9 / (double)steps;
}

static double spans(double blocks) {
    struct rng rng = {16};
    uint64_t count = (uint64_t)blocks, steps = 100000;
    struct slot *slots = aside(count * sizeof *slots);
    for (uint64_t i = 0; i < count; i++) fill(&slots[i], rng_between(&rng, 264 << 10, 520 << 10));
    double began = seconds_of(CLOCK_MONOTONIC);
    for (uint64_t i = 0; i < steps; i++) {
        struct slot *slot = &slots[rng_below(&rng, (uint32_t)count)];
        free(slot->object);
        fill(slot, rng_between(&rng, 264 << 10, 520 << 10));
    }
    return (seconds_of(CLOCK_MONOTONIC) - began) * 1e9 / (double)steps;
}

enum { OWN = 1000, OF_SHORT = 200, GROUP = 8 };

struct task {
    struct slot slots[OWN];
    struct rng rng;
    uint64_t steps;
    APART;
};

/* Threads and clock meet twice at the beginning and twice at the end: between the two of a pair everybody but
 * the clock waits. */
static pthread_barrier_t ready, started, done, stopped;

static void *work_on(void *argument) {
    struct task *task = argument;
    for (int i = 0; i < OWN; i++) fill(&task->slots[i], rng_skewed(&task->rng, 16, 1023));
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&started);
    replace(task->slots, OWN, task->steps, &task->rng, 16, 1023);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&stopped);
    for (int i = 0; i < OWN; i++) free(task->slots[i].object);
    return NULL;
}

static double threads(double number) {
    int count = (int)number;
    uint64_t steps = 8000000 / (uint64_t)count;
    struct task *tasks = aside((size_t)count * sizeof *tasks);
    pthread_t ids[1024];
    if (count > 1024) return 0;
    pthread_barrier_t *barriers[] = {&ready, &started, &done, &stopped};
    for (int i = 0; i < 4; i++) pthread_barrier_init(barriers[i], NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++) {
        tasks[i].rng.state = (uint64_t)i;
        tasks[i].steps = steps;
        if (pthread_create(&ids[i], NULL, work_on, &tasks[i]) != 0) exit(3);
    }
    pthread_barrier_wait(&ready);
    double began = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&started);
    pthread_barrier_wait(&done);
    double ended = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&stopped);
    for (int i = 0; i < count; i++) pthread_join(ids[i], NULL);
    return (ended - began) * 1e9 / (double)(steps * (uint64_t)count);
}

static void *serve(void *argument) {
    struct rng rng = {*(uint64_t *)argument};
    uint8_t *objects[OF_SHORT];
    for (int i = 0; i < OF_SHORT; i++) {
        objects[i] = take(rng_skewed(&rng, 16, 255));
        objects[i][0] = 1;
    }
    for (int i = 0; i < OF_SHORT; i++) free(objects[i]);
    return NULL;
}

/* The cost of the last ones: eighty threads after X have come and gone. */
static double created(double number) {
    uint64_t before = (uint64_t)number / GROUP, last = 10, seeds[GROUP];
    double began = 0;
    for (uint64_t group = 0; group < before + last; group++) {
        if (group == before) began = seconds_of(CLOCK_MONOTONIC);
        for (int i = 0; i < GROUP; i++) seeds[i] = group * GROUP + (uint64_t)i;
        run_threads(GROUP, serve, seeds, sizeof seeds[0]);
    }
    return (seconds_of(CLOCK_MONOTONIC) - began) * 1e6 / (double)(last * GROUP);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        double (*run)(double);
    } curves[] = {{"heap", heap}, {"threads", threads}, {"created", created}, {"spans", spans}};
    for (size_t i = 0; argc == 3 && i < sizeof curves / sizeof curves[0]; i++)
        if (strcmp(argv[1], curves[i].name) == 0) {
            double x = atof(argv[2]);
            if (x < 1) break;
            figure("cost", curves[i].run(x), strcmp(argv[1], "created") == 0 ? "us" : "ns");
            return 0;
        }
    fprintf(stderr, "usage: scaling heap|threads|created|spans X\n");
    return 2;
}
