/* 200 MiB of address space, filled until malloc says null: in every order of sizes. Everything that was got stays whole,
 * much of the space is really got, and when all is freed a block of 100 MiB fits again. Argument: the order. */
#include "limit.h"

static const size_t space = 200 * MIB;

static void small_first(struct list *list)
{
    /* Small blocks take everything; then holes among them, and the bigger sizes that do not fit into holes. */
    add_until_null(list, 100);
    thin(list, 2);
    for (size_t size = 200; size <= 8 * MIB; size *= 2)
        add_until_null(list, size);
    add_until_null(list, 64);
    /* What the holes are made for. */
    add_until_null(list, 100);
}

static void big_first(struct list *list)
{
    for (size_t size = 64 * MIB; size >= SMALLEST; size /= 2)
        add_until_null(list, size);
}

static void rising(struct list *list)
{
    /* A little of everything, from small to big, then what is left. */
    for (size_t size = SMALLEST; size <= 32 * MIB; size += size / 2) {
        size_t limit = list->bytes + 6 * MIB;
        while (list->bytes < limit && add(list, size))
            ;
    }
    for (size_t size = 4 * MIB; size >= SMALLEST; size /= 2)
        add_until_null(list, size);
}

static void mixed(struct list *list)
{
    uint64_t random = 77;
    for (int refused = 0; refused < 200;) {
        uint64_t r = next_random(&random) >> 8;
        size_t size = r % 400 == 0 ? (r >> 20) % (6 * MIB) : program_size(&random);
        refused += !add(list, size);
        /* Blocks that come and go leave holes of all sizes. */
        if (r % 50000 == 7)
            thin(list, 3);
    }
    add_until_null(list, SMALLEST);
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: limit_fill small-first|big-first|rising|mixed");
    begin_again_limited(space, arguments);
    const char *order = arguments[1];
    void (*take)(struct list *) = strcmp(order, "small-first") == 0 ? small_first
                                : strcmp(order, "big-first") == 0   ? big_first
                                : strcmp(order, "rising") == 0      ? rising
                                                                    : mixed;
    /* glibc takes further arenas when the first is full, and keeps their address space. */
    const size_t after = on_system() ? 8 * MIB : 100 * MIB;
    size_t first_got = 0;
    for (int round = 0; round < 2; round++) {
        struct list list = {NULL, 0, 0};
        take(&list);
        verify(&list);
        size_t got = list.bytes;
        CHECK(got >= space / 2, "only %zu MiB of %zu could be had", got / MIB, space / MIB);
        if (round == 0)
            first_got = got;
        CHECK(got >= first_got / 10 * 9, "%zu MiB the first time, %zu in round %d", first_got / MIB, got / MIB, round);

        /* At the very limit: nothing works, nothing breaks, and what was there stays. */
        errno = 0;
        CHECK(malloc(100 * MIB) == NULL && errno == ENOMEM, "100 MiB where nothing is left");
        CHECK(calloc(1, 100 * MIB) == NULL && errno == ENOMEM, "100 MiB of zeros where nothing is left");
        struct link *one = list.first;
        CHECK(realloc(one, 150 * MIB) == NULL && errno == ENOMEM, "growing where nothing is left");
        CHECK(memalign(1 * MIB, 100 * MIB) == NULL && errno == ENOMEM, "an aligned block where nothing is left");
        verify(&list);

        replace(&list, 5);
        verify(&list);
        thin(&list, 4);
        verify(&list);
        thin(&list, 1);
        CHECK(list.count == 0 && list.bytes == 0, "all is freed");

        char *big = malloc(after);
        CHECK(big != NULL, "%zu MiB after %s was freed, round %d", after / MIB, order, round);
        fill(big, after, 1);
        CHECK(holds(big, after, 1), "%zu MiB", after / MIB);
        free(big);
        /* Zeros where other things were. */
        big = calloc(3, after / 5);
        CHECK(big != NULL && is_zero(big, after / 5 * 3), "%zu MiB of zeros after %s was freed", after * 3 / 5 / MIB, order);
        free(big);
    }
    printf("200 MiB, %s: %zu MiB could be had, all whole, and %zu MiB at once after that\n", order, first_got / MIB,
           after / MIB);
    return 0;
}
