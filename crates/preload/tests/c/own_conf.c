/* A program that brings its own configuration: CONF, or none. */
#include "check.h"

#ifdef ARRAY
const char tiermalloc_conf[] = CONF;
#elif defined CONF
const char *tiermalloc_conf = CONF;
#endif

int main(void)
{
    free(malloc(100));
    puts("done");
    return 0;
}
