/* A library that allocates while it is being relocated, which is before the program is. */
#include <stdlib.h>

static int one(void)
{
    return 1;
}

static int (*resolve(void))(void)
{
    free(malloc(100));
    return one;
}

int resolved_early(void) __attribute__((ifunc("resolve")));
