/* Mistakes with objects and blocks of the program's own, nothing done to make them show. */
#include "misuse.h"

/* Frees others of the size, as a program does that goes on. */
static void others(int count, size_t size)
{
    enum { MOST = 4000 };
    static void *blocks[MOST];
    CHECK(count <= MOST, "too many");
    for (int i = 0; i < count; i++)
        blocks[i] = malloc(size);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
}

static void double_free(size_t size, int between)
{
    char *block = malloc(size);
    free(block);
    others(between, size);
    announced(block);
    free(block);
    past();
}

static void twice_at_once(void) { double_free(100, 0); }
static void twice_after_few(void) { double_free(100, 20); }
static void twice_after_many(void) { double_free(100, 3000); }
static void twice_medium(void) { double_free(40000, 0); }
static void twice_large(void) { double_free(1 * MIB, 0); }

/* The first owner frees what by now belongs to somebody else, who then does so too. */
static void twice_with_a_new_owner(void)
{
    char *first = malloc(100);
    free(first);
    char *second = malloc(100);
    announced(first);
    free(first);
    past();
    free(second);
}

static void *frees(void *block)
{
    free(block);
    return NULL;
}

static void twice_in_two_threads(void)
{
    char *block = malloc(100);
    finish(start(frees, block));
    announced(block);
    free(block);
    past();
}

static void of_the_old_address_after_realloc(void)
{
    char *old = malloc(100);
    char *new = realloc(old, 5000);
    CHECK(new != old, "it moves");
    announced(old);
    free(old);
    past();
    free(new);
}

static void of_the_middle(void)
{
    char *block = malloc(100);
    announced(block + 16);
    free(block + 16);
    past();
}

static void of_an_odd_address(void)
{
    char *block = malloc(100);
    announced(block + 1);
    free(block + 1);
    past();
}

static void write_after_free(size_t at, int then)
{
    volatile char *block = malloc(100);
    free((void *)block);
    announced(block);
    block[at] = 1;
    past();
    others(then, 100);
}

static void write_to_a_freed_object(void) { write_after_free(50, 0); }
static void write_to_a_freed_object_then_go_on(void) { write_after_free(50, 4000); }
static void write_to_the_start_of_a_freed_object(void)
{
    void *volatile *block = malloc(100);
    free((void *)block);
    announced(block);
    block[0] = (void *)past;
    past();
    others(2, 100);
}

static void read_of_a_freed_object(void)
{
    volatile char *block = malloc(100);
    free((void *)block);
    announced(block);
    char seen = block[50];
    (void)seen;
    past();
}

static void write_to_a_freed_large_block(void)
{
    volatile char *block = malloc(1 * MIB);
    free((void *)block);
    announced(block);
    block[100] = 1;
    past();
}

/* Two blocks that lie as close to each other as two of 64 do. */
static void neighbours(size_t size, volatile char **low, volatile char **high)
{
    enum { COUNT = 64 };
    static volatile char *blocks[COUNT];
    size_t distance = SIZE_MAX;
    for (int i = 0; i < COUNT; i++)
        blocks[i] = malloc(size);
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++)
            if (blocks[i] < blocks[j] && (size_t)(blocks[j] - blocks[i]) < distance) {
                *low = blocks[i];
                *high = blocks[j];
                distance = *high - *low;
            }
}

/* A block's own bytes and eight more. */
static void write_past(volatile char *block)
{
    size_t usable = malloc_usable_size((void *)block);
    for (size_t i = 0; i < usable + 8; i++)
        block[i] = 1;
    past();
}

static void write_past_an_object_into_a_live_one(void)
{
    volatile char *low, *high;
    neighbours(100, &low, &high);
    announced(high);
    write_past(low);
}

static void write_past_an_object_into_a_free_one(void)
{
    volatile char *low, *high;
    neighbours(100, &low, &high);
    free((void *)high);
    announced(high);
    write_past(low);
}

static void write_past_an_object_and_free_it(void)
{
    volatile char *low, *high;
    neighbours(100, &low, &high);
    announced(low);
    write_past(low);
    free((void *)low);
}

/* One byte behind a size that is a multiple of every alignment that C asks for. */
static void write_one_byte_past_96(void)
{
    volatile char *low, *high;
    neighbours(96, &low, &high);
    announced(low);
    low[96] = 1;
    past();
}

static void write_past_a_large_block(void)
{
    volatile char *low, *high;
    neighbours(1 * MIB, &low, &high);
    announced(low);
    write_past(low);
}

static void write_before_a_large_block(void)
{
    volatile char *low, *high;
    neighbours(1 * MIB, &low, &high);
    announced(high);
    high[-1] = 1;
    past();
}

static const struct bug bugs[] = {
    {"twice-at-once", twice_at_once},
    {"twice-after-few", twice_after_few},
    {"twice-after-many", twice_after_many},
    {"twice-medium", twice_medium},
    {"twice-large", twice_large},
    {"twice-with-a-new-owner", twice_with_a_new_owner},
    {"twice-in-two-threads", twice_in_two_threads},
    {"old-address-after-realloc", of_the_old_address_after_realloc},
    {"middle", of_the_middle},
    {"odd-address", of_an_odd_address},
    {"write-after-free", write_to_a_freed_object},
    {"write-after-free-going-on", write_to_a_freed_object_then_go_on},
    {"write-after-free-to-the-start", write_to_the_start_of_a_freed_object},
    {"write-after-free-large", write_to_a_freed_large_block},
    {"read-after-free", read_of_a_freed_object},
    {"overflow-into-live", write_past_an_object_into_a_live_one},
    {"overflow-into-free", write_past_an_object_into_a_free_one},
    {"overflow-then-free", write_past_an_object_and_free_it},
    {"overflow-by-one", write_one_byte_past_96},
    {"overflow-large", write_past_a_large_block},
    {"underflow-large", write_before_a_large_block},
};

int main(int count, char **arguments)
{
    return run_bug(bugs, sizeof bugs / sizeof *bugs, count, arguments);
}
