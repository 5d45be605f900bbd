/* More large blocks than the kernel allows mappings: none fails, whatever stands around them. */
#include "check.h"

enum { COUNT = 60000 };
static char *blocks[COUNT];

static void take(int i, size_t size)
{
    blocks[i] = malloc(size);
    CHECK(blocks[i] != NULL, "block %d of %zu bytes", i, size);
    blocks[i][0] = blocks[i][size - 1] = (char)i;
}

int main(void)
{
    for (int i = 0; i < COUNT; i++)
        take(i, 300000);
    for (int i = 0; i < COUNT; i += 2)
        free(blocks[i]);
    for (int i = 0; i < COUNT; i += 2)
        take(i, 270000 + i);
    for (int i = 0; i < COUNT; i++) {
        CHECK(blocks[i][0] == (char)i, "block %d", i);
        free(blocks[i]);
    }
    puts("many_large: 60,000 large blocks at a time");
    return 0;
}
