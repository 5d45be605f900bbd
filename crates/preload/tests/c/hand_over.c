/* Producers allocate, consumers check and free: every object dies in another thread than the one that made it, through
 * queues, in all sizes, both ways at once. */
#include "check.h"

enum { QUEUE = 512, PAIRS = 3, OBJECTS = 60000 };

struct item {
    void *block;
    size_t size;
    uint64_t seed;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct item items[QUEUE];
    size_t head, tail;
};

static struct queue queues[PAIRS];

static void put(struct queue *queue, struct item item)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->tail - queue->head == QUEUE)
        pthread_cond_wait(&queue->changed, &queue->lock);
    queue->items[queue->tail++ % QUEUE] = item;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

static struct item take(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->tail == queue->head)
        pthread_cond_wait(&queue->changed, &queue->lock);
    struct item item = queue->items[queue->head++ % QUEUE];
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    return item;
}

static void *produce(void *argument)
{
    size_t pair = (size_t)argument;
    uint64_t random = pair + 1;
    for (int i = 0; i < OBJECTS; i++) {
        struct item item;
        item.size = program_size(&random);
        item.seed = next_random(&random);
        if (i % 16 == 0)
            item.block = memalign(64, item.size);
        else if (i % 16 == 1)
            item.block = realloc(malloc(10), item.size);
        else
            item.block = malloc(item.size);
        CHECK(item.block != NULL, "%zu bytes", item.size);
        fill(item.block, item.size < 4096 ? item.size : 4096, item.seed);
        put(&queues[pair], item);
    }
    put(&queues[pair], (struct item){NULL, 0, 0});
    return NULL;
}

static void *consume(void *argument)
{
    size_t pair = (size_t)argument;
    for (size_t count = 0;; count++) {
        struct item item = take(&queues[pair]);
        if (!item.block) {
            CHECK(count == OBJECTS, "%zu objects of %d arrived", count, OBJECTS);
            return NULL;
        }
        CHECK(holds(item.block, item.size < 4096 ? item.size : 4096, item.seed), "%zu bytes from another thread", item.size);
        if (count % 32 == 0) {
            item.block = realloc(item.block, item.size + 200);
            CHECK(item.block != NULL, "growing another thread's %zu bytes", item.size);
            CHECK(holds(item.block, item.size < 4096 ? item.size : 4096, item.seed), "%zu bytes that grew", item.size);
        }
        free(item.block);
    }
}

int main(void)
{
    long warm = 0;
    for (int round = 0; round < 4; round++) {
        pthread_t threads[2 * PAIRS];
        for (size_t i = 0; i < PAIRS; i++) {
            pthread_mutex_init(&queues[i].lock, NULL);
            pthread_cond_init(&queues[i].changed, NULL);
            queues[i].head = queues[i].tail = 0;
            threads[2 * i] = start(produce, (void *)i);
            threads[2 * i + 1] = start(consume, (void *)i);
        }
        for (int i = 0; i < 2 * PAIRS; i++)
            finish(threads[i]);
        if (round == 0)
            warm = status_kib("VmRSS:");
    }
    long bound = warm * 3 / 2 + 16 * 1024, after = resident_within(bound);
    /* Another three rounds need no more memory than the first, give or take how the threads interleave. */
    CHECK(after <= bound, "resident memory grows by rounds: %ld KiB after one, %ld after four", warm, after);
    printf("hand-over: every object arrived whole; %ld KiB resident after one round, %ld after four\n", warm, after);
    return 0;
}
