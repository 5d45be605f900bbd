/* What the programs with one bug each share. Such a program writes to stdout the pointer that it is about to misuse, `past`
 * once the faulty statement is behind it, and `survived` as its last act; `--list` names its bugs. What each must end in
 * is said in docs/misuse.md.
 */
#ifndef TIERMALLOC_TESTS_MISUSE_H
#define TIERMALLOC_TESTS_MISUSE_H

#include "check.h"

struct bug {
    const char *name;
    void (*run)(void);
};

/* The pointer, before anything happens to it. No stdio: that would allocate in between. */
static inline void *announced(const volatile void *pointer)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%p\n", (void *)pointer);
    CHECK(write(1, text, length) == length, "stdout");
    return (void *)pointer;
}

static inline void past(void)
{
    CHECK(write(1, "past\n", 5) == 5, "stdout");
}

static inline int run_bug(const struct bug *bugs, size_t length, int count, char **arguments)
{
    CHECK(count == 2, "usage: %s BUG", arguments[0]);
    int found = 0;
    if (strcmp(arguments[1], "--list") == 0) {
        for (size_t i = 0; i < length; i++)
            puts(bugs[i].name);
        return 0;
    }
    /* What libc and the loader keep for later is made before the bug, not by it. */
    free(malloc(100));
    for (size_t i = 0; i < length; i++)
        if (strcmp(arguments[1], bugs[i].name) == 0) {
            found = 1;
            bugs[i].run();
        }
    CHECK(found, "no bug is called %s", arguments[1]);
    CHECK(write(1, "survived\n", 9) == 9, "stdout");
    return 0;
}

#endif
