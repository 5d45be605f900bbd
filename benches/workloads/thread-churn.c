/* thread-churn: very many short threads, as in a server with a thread for each connection.
 *
 * In groups of four times THREADS, threads start, allocate 200 objects of 16 to 400 bytes, free all but
 * every tenth, and end; the main thread frees what they left.
 *
 * Stresses: what the first malloc of a thread and the end of a thread cost, and what they leave behind. */

#include "common.h"

enum { OBJECTS = 200, LEFT = OBJECTS / 10 };

struct task {
    struct rng rng;
    uint8_t *left[LEFT];
    uint64_t checksum;
    APART;
};

static void *serve(void *argument) {
    struct task *task = argument;
    uint8_t *objects[OBJECTS];
    for (int i = 0; i < OBJECTS; i++) {
        size_t size = rng_skewed(&task->rng, 16, 400);
        objects[i] = take(size);
        objects[i][0] = (uint8_t)size;
    }
    task->checksum = 0;
    for (int i = 0; i < OBJECTS; i++) {
        task->checksum += objects[i][0];
        if (i % 10 == 0)
            task->left[i / 10] = objects[i];
        else
            free(objects[i]);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    int group = work.threads * 4;
    struct task *tasks = must(calloc((size_t)group, sizeof *tasks));
    uint64_t checksum = 0, groups = scaled(work, 12000.0 / group);
    for (uint64_t round = 0; round < groups; round++) {
        for (int i = 0; i < group; i++) tasks[i].rng.state = round * (uint64_t)group + (uint64_t)i;
        run_threads(group, serve, tasks, sizeof *tasks);
        for (int i = 0; i < group; i++) {
            checksum += tasks[i].checksum;
            for (int left = 0; left < LEFT; left++) {
                checksum += tasks[i].left[left][0];
                free(tasks[i].left[left]);
            }
        }
    }
    free(tasks);
    return finish(checksum);
}
