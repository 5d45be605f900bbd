/* Memory before main: constructors of the highest priority and later ones, and an environment that changes. What was
 * got then is valid for the whole run. */
#include "check.h"

static char *from_constructor;

__attribute__((constructor(101))) static void first(void)
{
    from_constructor = malloc(500 * KIB);
    fill(from_constructor, 500 * KIB, 1);
    errno = 5;
    void *block = calloc(100, 100);
    CHECK(errno == 5 && is_zero(block, 10000), "calloc in a constructor");
    free(block);
}

__attribute__((constructor)) static void later(void)
{
    CHECK(holds(from_constructor, 500 * KIB, 1), "a block of an earlier constructor");
    from_constructor = realloc(from_constructor, 900 * KIB);
    CHECK(holds(from_constructor, 500 * KIB, 1), "a block that grew in a constructor");
    setenv("TIERMALLOC_TEST_EARLY", "set", 1);
}

int main(void)
{
    CHECK(holds(from_constructor, 500 * KIB, 1), "a constructor's block");
    free(from_constructor);
    CHECK(getenv("TIERMALLOC_TEST_EARLY") != NULL, "the environment");
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "TIERMALLOC_TEST_%d", i);
        setenv(name, "a value", 1);
    }
    clearenv();
    puts("early: constructors have memory, and it lasts");
    return 0;
}
