/* Above the soft limit what is freed goes back at once, caches included, and below it all stays as it was; with no
 * background at work. */
#include "hard_limit.h"

extern size_t tiermalloc_set_soft_limit(size_t bytes) __attribute__((weak));

/* A third of it in blocks of whole pages, two thirds in small ones: `mib` in all. */
static void take(struct blocks *list, size_t mib)
{
    uint64_t random = 3;
    while (list->bytes < mib * MIB / 3)
        CHECK(want(list, 'm', 300 * KIB + next_random(&random) % MIB), "whole pages");
    while (list->bytes < mib * MIB)
        CHECK(want(list, 'm', 16 + next_random(&random) % 2000), "small ones");
}

static long heap_kib(void)
{
    return status_kib("RssAnon:") - before_kib;
}

static void *busy(void *argument)
{
    struct blocks *list = (struct blocks *)argument;
    take(list, 40);
    let_go(list, 1);
    return NULL;
}

int main(int count, char **arguments)
{
    (void)count;
    begin_under(arguments[1]);
    struct blocks kept = {NULL, 0, 0}, more = {NULL, 0, 0};
    take(&kept, limit / MIB + 20);
    CHECK(heap_kib() > (long)(limit / KIB), "nothing fails");
    /* Above it: all that is freed is gone. */
    for (int round = 0; round < 3; round++) {
        take(&more, 60);
        CHECK(heap_kib() > (long)((limit + 78 * MIB) / KIB), "%ld KiB", heap_kib());
        let_go(&more, 1);
        CHECK(heap_kib() < (long)((limit + 24 * MIB) / KIB), "%ld KiB are still there", heap_kib());
    }
    /* Other threads' caches do not hold anything either, while these live and when they are gone. */
    struct blocks its = {NULL, 0, 0};
    finish(start(busy, &its));
    CHECK(heap_kib() < (long)((limit + 24 * MIB) / KIB), "%ld KiB after a thread", heap_kib());
    /* Below it: what was freed stays for the next. */
    let_go(&kept, 1);
    take(&kept, limit / MIB / 2);
    let_go(&kept, 1);
    long before = heap_kib();
    CHECK(before > (long)(limit / KIB / 4), "%ld KiB: not kept below the limit", before);
    /* A lower one, set now, acts now. */
    if (tiermalloc_set_soft_limit) {
        CHECK(tiermalloc_set_soft_limit(4 * MIB) == limit, "the one before");
        CHECK(heap_kib() < (long)(6 * MIB / KIB + 2048), "%ld KiB", heap_kib());
        CHECK(tiermalloc_set_soft_limit(0) == 4 * MIB, "the one before");
    }
    printf("a soft limit of %zu MiB: %ld KiB below it are kept\n", limit / MIB, before);
    return 0;
}
