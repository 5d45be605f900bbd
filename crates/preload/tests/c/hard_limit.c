/* A program that wants 1 GiB under a hard limit: it never has more than that resident, is told when there is no more,
 * frees some and goes on, in each way of asking and at each size, and in the child of a fork. */
#include "hard_limit.h"
#include <string.h>

static size_t size_of(char what, uint64_t *random)
{
    switch (what) {
    case 's':
        return 16 + next_random(random) % 1000;
    case 'm':
        return 1 + next_random(random) % (200 * KIB);
    case 'l':
        return 300 * KIB + next_random(random) % (3 * MIB);
    case 'h':
        return 65 * MIB;
    case 'e':
        return 8000;
    default:
        return program_size(random);
    }
}

/* Takes until there is no more; how much that was. */
static size_t fill_up(struct blocks *list, char kind, char what, uint64_t *random, const char *name)
{
    size_t looked = 0;
    while (want(list, kind, size_of(what, random))) {
        CHECK(list->bytes < GIB, "%s: the limit does not limit", name);
        if (list->bytes / (8 * MIB) != looked) {
            looked = list->bytes / (8 * MIB);
            within_limit(name);
        }
    }
    within_limit(name);
    return list->bytes;
}

int main(int count, char **arguments)
{
    begin_under(arguments[1]);
    CHECK(count > 3, "the kinds of blocks and their sizes");
    size_t least = (size_t)(limit / 100) * (size_t)atol(arguments[4]);
    for (const char *kind = arguments[2]; *kind; kind++)
        for (const char *what = arguments[3]; *what; what++) {
            char name[3] = {*kind, *what, 0};
            uint64_t random = 7;
            struct blocks list = {NULL, 0, 0};
            size_t got = fill_up(&list, *kind, *what, &random, name);
            CHECK(got >= least, "%s: only %zu MiB", name, got / MIB);
            /* It works again with some of it free, as often as one likes. */
            for (int round = 0; round < 3; round++) {
                let_go(&list, 2);
                size_t half = list.bytes;
                fill_up(&list, *kind, *what, &random, name);
                CHECK(list.bytes >= half, "%s: %zu of %zu", name, list.bytes, half);
            }
            /* A child has as much for itself: what it shares with its parent counts with it. */
            pid_t child = fork();
            if (child == 0) {
                alarm(50);
                let_go(&list, 3);
                size_t left = list.bytes;
                fill_up(&list, *kind, *what, &random, name);
                CHECK(list.bytes > left, "%s: a child gets nothing", name);
                let_go(&list, 1);
                _exit(0);
            }
            reap(child, name);
            let_go(&list, 1);
            void *most = malloc(limit / 2);
            CHECK(most != NULL, "%s: half of the limit, after all was freed", name);
            memset(most, 1, limit / 2);
            within_limit(name);
            free(most);
        }
    printf("a limit of %zu MiB: %ld KiB at most were resident\n", limit / MIB, peak_kib);
    return 0;
}
