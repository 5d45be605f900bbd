/* Eight threads at a hard limit: together they never have more than that, each is told cleanly, none hangs, and what
 * one frees the others can have. */
#include "hard_limit.h"

enum { THREADS = 8, ROUNDS = 4 };

static pthread_barrier_t together;
static size_t got[THREADS], again[THREADS];
static int done;

static void *watch(void *argument)
{
    (void)argument;
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        within_limit("eight threads");
        usleep(2000);
    }
    return NULL;
}

/* What the blocks have of the limit: a small one with the alignment of 64 KiB has a page, one that grew has room. */
static size_t held(const struct blocks *list)
{
    size_t bytes = 0;
    for (struct block *block = list->first; block; block = block->next)
        bytes += malloc_usable_size(block);
    return bytes;
}

static void *body(void *argument)
{
    size_t me = (size_t)argument;
    uint64_t random = me + 1;
    const char *kinds = "mcar";
    for (int round = 0; round < ROUNDS; round++) {
        struct blocks list = {NULL, 0, 0};
        pthread_barrier_wait(&together);
        for (int refused = 0; refused < 40;)
            refused += !want(&list, kinds[me % 4], round % 2 ? program_size(&random) : 1 + next_random(&random) % MIB);
        got[me] = held(&list);
        pthread_barrier_wait(&together);
        /* Half of them let go while the others still ask. */
        if (me % 2)
            let_go(&list, 1);
        else
            for (int i = 0; i < 30; i++)
                want(&list, 'm', 1 + next_random(&random) % (200 * KIB));
        pthread_barrier_wait(&together);
        /* What half of them have freed is there for the same requests once more. */
        for (int refused = 0; me % 2 && refused < 40 && held(&list) < got[me] / 2;)
            refused += !want(&list, kinds[me % 4], round % 2 ? program_size(&random) : 1 + next_random(&random) % MIB);
        again[me] = held(&list);
        pthread_barrier_wait(&together);
        let_go(&list, 1);
        pthread_barrier_wait(&together);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    (void)count;
    pthread_barrier_init(&together, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    begin_under(arguments[1]);
    pthread_t watcher = start(watch, NULL);
    for (size_t i = 0; i < THREADS; i++)
        threads[i] = start(body, (void *)i);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&together);
        pthread_barrier_wait(&together);
        size_t all = 0;
        for (int i = 0; i < THREADS; i++)
            all += got[i];
        CHECK(all >= limit / 4 * 3, "eight threads got %zu MiB of %zu", all / MIB, limit / MIB);
        pthread_barrier_wait(&together);
        pthread_barrier_wait(&together);
        size_t freed = 0, had = 0;
        for (int i = 1; i < THREADS; i += 2) {
            freed += got[i];
            /* The others may have taken a part of it meanwhile. */
            had += again[i] + again[i - 1] - got[i - 1];
        }
        CHECK(had >= freed / 4, "of %zu MiB that four threads freed %zu are had again", freed / MIB, had / MIB);
        pthread_barrier_wait(&together);
    }
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    finish(watcher);
    printf("eight threads at a limit of %zu MiB: %ld KiB at most\n", limit / MIB, peak_kib);
    return 0;
}
