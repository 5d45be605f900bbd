/* xmalloc-test: one side allocates, the other frees (after Lever and Boreham, "malloc() performance in a
 * multithreaded Linux environment", USENIX 2000).
 *
 * Half of THREADS threads allocate objects of 8 to 512 bytes in batches of 4,096 and hand the batches over
 * through a bounded queue; the other half frees them. No thread ever frees what it has allocated itself.
 *
 * Stresses: the road that memory takes from a thread that only frees to one that only allocates. */

#include "common.h"

enum { BATCH = 4096, QUEUE = 8 };

struct batch {
    uint8_t *objects[BATCH];
    uint32_t count;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t not_full, not_empty;
    struct batch *batches[QUEUE];
    int first, count, producers;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER,
           .not_full = PTHREAD_COND_INITIALIZER,
           .not_empty = PTHREAD_COND_INITIALIZER};

static void put(struct batch *batch) {
    pthread_mutex_lock(&queue.lock);
    while (queue.count == QUEUE) pthread_cond_wait(&queue.not_full, &queue.lock);
    queue.batches[(queue.first + queue.count++) % QUEUE] = batch;
    pthread_cond_signal(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
}

/* The oldest batch, or NULL when no producer is left. */
static struct batch *get(void) {
    struct batch *batch = NULL;
    pthread_mutex_lock(&queue.lock);
    while (queue.count == 0 && queue.producers > 0) pthread_cond_wait(&queue.not_empty, &queue.lock);
    if (queue.count > 0) {
        batch = queue.batches[queue.first];
        queue.first = (queue.first + 1) % QUEUE;
        queue.count--;
        pthread_cond_signal(&queue.not_full);
    }
    pthread_mutex_unlock(&queue.lock);
    return batch;
}

struct side {
    int produces;
    struct rng rng;
    uint64_t objects;
    uint64_t checksum;
    APART;
};

static void produce(struct side *side) {
    while (side->objects > 0) {
        struct batch *batch = take(sizeof *batch);
        batch->count = side->objects < BATCH ? (uint32_t)side->objects : BATCH;
        for (uint32_t i = 0; i < batch->count; i++) {
            size_t size = rng_skewed(&side->rng, 8, 512);
            batch->objects[i] = take(size);
            batch->objects[i][0] = (uint8_t)size;
        }
        side->objects -= batch->count;
        put(batch);
    }
    pthread_mutex_lock(&queue.lock);
    queue.producers--;
    pthread_cond_broadcast(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
}

static void consume(struct side *side) {
    for (struct batch *batch; (batch = get()) != NULL;) {
        for (uint32_t i = 0; i < batch->count; i++) {
            side->checksum += batch->objects[i][0];
            free(batch->objects[i]);
        }
        free(batch);
    }
}

static void *run(void *argument) {
    struct side *side = argument;
    if (side->produces)
        produce(side);
    else
        consume(side);
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    int pairs = work.threads < 2 ? 1 : work.threads / 2;
    struct side *sides = must(calloc((size_t)pairs * 2, sizeof *sides));
    queue.producers = pairs;
    for (int i = 0; i < pairs * 2; i++) {
        sides[i].produces = i % 2 == 0;
        sides[i].rng.state = (uint64_t)i + 5;
        sides[i].objects = scaled(work, 12e6 / pairs);
    }
    run_threads(pairs * 2, run, sides, sizeof *sides);
    uint64_t checksum = 0;
    for (int i = 0; i < pairs * 2; i++) checksum += sides[i].checksum;
    free(sides);
    return finish(checksum);
}
