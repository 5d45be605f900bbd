/* A program that brings its own configuration: CONF, or none. */
#include "check.h"

#ifdef CONF
const char *tiermalloc_conf = CONF;
#endif

int main(void)
{
    free(malloc(100));
    puts("done");
    return 0;
}
