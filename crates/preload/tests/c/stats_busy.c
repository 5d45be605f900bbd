/* Eight threads allocate and free while another looks and writes without end: nothing breaks, no sum is absurd. */
#include "figures.h"
#include <stdatomic.h>

enum { THREADS = 8, SLOTS = 400 };
static atomic_int stop;
static _Atomic(void *) shared[SLOTS];

static void *work(void *argument)
{
    uint64_t state = (uint64_t)(uintptr_t)argument;
    while (!stop) {
        size_t size = program_size(&state);
        void *block = malloc(size);
        CHECK(block != NULL, "%zu bytes", size);
        memset(block, 2, size < 64 ? size : 64);
        free(atomic_exchange(&shared[next_random(&state) % SLOTS], block));
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    static struct picture picture;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = start(work, (void *)(i + 1));
    double began = seconds();
    int looks = 0;
    while (seconds() - began < 1.5) {
        look(&picture);
        const struct tiermalloc_stats *s = &picture.stats;
        CHECK(s->live <= s->mapped && s->committed <= s->mapped && s->mapped < 4 * GIB, "%llu live, %llu committed, %llu mapped",
              (unsigned long long)s->live, (unsigned long long)s->committed, (unsigned long long)s->mapped);
        CHECK(s->threads <= THREADS + 1, "%llu threads", (unsigned long long)s->threads);
        CHECK(tiermalloc_stats_write(null, looks % 3) == 0, "written");
        looks++;
        if (looks % 5 == 0) {
            pid_t child = fork();
            CHECK(child >= 0, "fork");
            if (child == 0) {
                alarm(20);
                look(&picture);
                sums_hold_but(&picture, 1);
                _exit(0);
            }
            reap(child, "a child");
        }
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
    for (int i = 0; i < SLOTS; i++)
        free(shared[i]);
    look(&picture);
    sums_hold(&picture);
    CHECK(looks > 10, "%d looks", looks);
    CHECK(picture.stats.refills > 0 || is_guarded(), "refills");
    puts("stats_busy: no sum was absurd");
    return 0;
}
