/* What a freed object looks like, and when its address comes back, in the hardened pool. It reads freed memory on purpose.
 * Arguments: the byte that is expected there, and how many others of its size may be freed before it is used again.
 */
#include "check.h"

int main(int count, char **arguments)
{
    CHECK(count == 3, "usage: freed_memory BYTE OTHERS");
    int byte = strtol(arguments[1], NULL, 0), others = atoi(arguments[2]);
    for (size_t size = 16; size <= 256 * KIB; size = size * 3 / 2) {
        unsigned char *block = malloc(size);
        memset(block, 0x5a, size);
        free(block);
        for (size_t i = 0; i < size; i++)
            CHECK(((volatile unsigned char *)block)[i] == byte, "byte %zu of %zu is 0x%02x", i, size, block[i]);
        unsigned char *zeroed = calloc(1, size);
        CHECK(zeroed != NULL && is_zero(zeroed, size), "calloc of %zu bytes", size);
        free(zeroed);
    }
    unsigned char *block = malloc(40);
    free(block);
    int seen = 0;
    void *last = NULL;
    for (; seen <= others + 1 && last != block; seen++)
        free(last = malloc(40));
    /* In a class that nobody else uses the address is the next one as soon as it may be. */
    CHECK(last != block || seen > others, "it came back after %d others, not %d", seen - 1, others);
    CHECK(others > 0 || last == block, "it did not come back at once");
    puts("freed_memory: it looks as it should");
    return 0;
}
