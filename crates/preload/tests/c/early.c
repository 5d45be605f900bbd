/* Memory before main: a library's constructor, an IFUNC resolver that runs while relocations are still being processed,
 * constructors of the highest priority, and an environment that changes later. All of it is valid for the whole run. */
#include "check.h"

static char *from_resolver, *from_constructor;

static int answer(void)
{
    return 42;
}

/* Runs inside the dynamic loader. */
__attribute__((used)) static int (*resolve(void))(void)
{
    from_resolver = malloc(3000);
    for (int i = 0; from_resolver && i < 3000; i++)
        from_resolver[i] = (char)(i % 101);
    free(malloc(700 * KIB));
    return answer;
}

int resolved(void) __attribute__((ifunc("resolve")));

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
    CHECK(resolved() == 42, "the resolver's choice");
    CHECK(from_resolver != NULL, "malloc in a resolver");
    for (int i = 0; i < 3000; i++)
        CHECK(from_resolver[i] == i % 101, "byte %d of a resolver's block", i);
    free(from_resolver);
    CHECK(holds(from_constructor, 500 * KIB, 1), "a constructor's block");
    free(from_constructor);
    CHECK(getenv("TIERMALLOC_TEST_EARLY") != NULL, "the environment");
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "TIERMALLOC_TEST_%d", i);
        setenv(name, "a value", 1);
    }
    clearenv();
    puts("early: resolvers and constructors have memory, and it lasts");
    return 0;
}
