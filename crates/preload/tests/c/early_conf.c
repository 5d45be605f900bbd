/* The program has a configuration of its own that a library's early allocation may find before it is in place. */
#include "check.h"

const char *tiermalloc_conf = "pool=hardened,nonsense=1";

int resolved_early(void);

int main(void)
{
    CHECK(resolved_early() == 1, "the library's function");
    free(malloc(100));
    return 0;
}
