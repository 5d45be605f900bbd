/* A burst of small objects that is freed, in a thread that ends or in the main one, and then nothing but sleep: the
 * memory is back with the system within seconds, for next to no processor time, and so it is with a thousandth
 * of the objects still alive. Afterwards the process is one of a single thread again. */
#include "check.h"

enum { OBJECTS = 200000 };

static void *objects[OBJECTS];

static void *burst(void *argument)
{
    size_t keep = (size_t)argument;
    uint64_t random = 1;
    for (int i = 0; i < OBJECTS; i++) {
        size_t size = 16 + next_random(&random) % 1001;
        objects[i] = malloc(size);
        CHECK(objects[i] != NULL, "%zu bytes", size);
        memset(objects[i], 1, size);
    }
    for (size_t i = 0; i < OBJECTS; i++)
        if (keep == 0 || i % keep != 0) {
            free(objects[i]);
            objects[i] = NULL;
        }
    return NULL;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Sleeps until `share` of what came is gone, ten seconds at most. */
static void wait_for(long before, long peak, double share, const char *what)
{
    double began = seconds(), cpu = cpu_seconds();
    long wanted = before + (long)((1.0 - share) * (double)(peak - before));
    long now;
    while ((now = status_kib("VmRSS:")) > wanted) {
        CHECK(seconds() - began < 10, "%s: %ld KiB before, %ld at the peak, %ld after ten seconds", what, before, peak, now);
        usleep(100 * 1000);
    }
    /* A quarter of what there was to give back is work for some milliseconds; the rest is looking. */
    cpu = cpu_seconds() - cpu;
    CHECK(cpu < 0.5, "%s: %.3f s of processor time", what, cpu);
    printf("%s: %ld of %ld KiB left\n", what, now - before, peak - before);
}

int main(void)
{
    /* The hardened pool keeps some MiB in its quarantine, and books about them. */
    const char *conf = getenv("TIERMALLOC_CONF");
    double kept = conf && strstr(conf, "hardened") ? 0.05 : 0;
    memset(objects, 1, sizeof objects);
    long before = status_kib("VmRSS:");
    finish(start(burst, NULL));
    wait_for(before, status_kib("VmHWM:"), 0.97 - kept, "a thread's burst");
    burst(NULL);
    wait_for(before, status_kib("VmHWM:"), 0.95 - kept, "the main thread's burst");
    finish(start(burst, (void *)1000));
    wait_for(before, status_kib("VmHWM:"), 0.93 - kept, "a burst of which a thousandth stays");
    for (int i = 0; i < OBJECTS; i++)
        free(objects[i]);
    /* Nothing is allocated meanwhile: what comes and goes in a pool with a quarantine is something to look after. */
    double began = seconds();
    while (status_kib("Threads:") > 1) {
        CHECK(seconds() - began < 20, "the thread that gives memory back stays for ever");
        usleep(200 * 1000);
    }
    printf("and gone after %.1f s\n", seconds() - began);
    return 0;
}
