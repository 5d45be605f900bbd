/* A program that would rather end than be told that there is no memory. What can be had without more of it is no
 * reason to end: an allocation within the limit, a block that becomes shorter. */
#include "hard_limit.h"

int main(int count, char **arguments)
{
    (void)count;
    begin_under(arguments[1]);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    struct blocks list = {NULL, 0, 0};
    while (list.bytes < limit / 2)
        CHECK(want(&list, 'm', 100 * KIB), "half of it");
    let_go(&list, 1);
    char *most = malloc(limit - 8 * MIB);
    CHECK(most != NULL, "nearly all of it");
    memset(most, 1, limit - 8 * MIB);
    most = realloc(most, limit - 9 * MIB);
    CHECK(most != NULL, "a little less");
    puts("so far");
    fflush(stdout);
    char *volatile beyond = malloc(strcmp(arguments[2], "small") == 0 ? 0 : 20 * MIB);
    while (strcmp(arguments[2], "small") == 0)
        beyond = malloc(1000);
    printf("%p: the limit did not end it\n", beyond);
    return 0;
}
