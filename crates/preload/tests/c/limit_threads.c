/* Threads reach the limit at the same time: each gets null sooner or later, none loses a byte, and what one frees the
 * others can have. 200 MiB of address space. */
#include "limit.h"

enum { THREADS = 4, ROUNDS = 3 };

static pthread_barrier_t together;
static size_t got[THREADS];

static void *body(void *argument)
{
    size_t me = (size_t)argument;
    uint64_t random = me + 1;
    for (int round = 0; round < ROUNDS; round++) {
        struct list list = {NULL, 0, 0};
        pthread_barrier_wait(&together);
        for (int refused = 0; refused < 20;)
            refused += !add(&list, round == 1 ? 100 + me : program_size(&random));
        verify(&list);
        got[me] = list.bytes;
        /* All are at the limit. Some let go while others still ask. */
        pthread_barrier_wait(&together);
        if (me % 2) {
            thin(&list, 2);
            verify(&list);
        } else {
            for (int i = 0; i < 2000; i++)
                add(&list, 1 + next_random(&random) % 3000);
        }
        pthread_barrier_wait(&together);
        verify(&list);
        thin(&list, 1);
        pthread_barrier_wait(&together);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    (void)count;
    begin_again_limited(200 * MIB, arguments);
    pthread_barrier_init(&together, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        threads[i] = start(body, (void *)i);
    /* glibc gives each thread an arena of 64 MiB and keeps it; after the threads it has less left in one piece. */
    size_t after = on_system() ? 20 * MIB : 100 * MIB;
    size_t all = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&together);
        pthread_barrier_wait(&together);
        all = 0;
        for (int i = 0; i < THREADS; i++)
            all += got[i];
        pthread_barrier_wait(&together);
        CHECK(all >= 80 * MIB, "four threads got %zu MiB of 200", all / MIB);
        pthread_barrier_wait(&together);
    }
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
    void *big = malloc(after);
    CHECK(big != NULL, "%zu MiB after all threads freed all", after / MIB);
    memset(big, 1, after);
    free(big);
    printf("four threads at the limit: %zu MiB between them, all whole, %zu MiB at once after that\n", all / MIB, after / MIB);
    return 0;
}
