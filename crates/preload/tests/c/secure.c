/* A program that somebody runs with the rights of another: exits 3 when the kernel says so, 0 when it does not. */
#include "check.h"
#include <sys/auxv.h>

int main(void)
{
    free(malloc(100));
    return getauxval(AT_SECURE) ? 3 : 0;
}
