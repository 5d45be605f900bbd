/* malloc in an IFUNC resolver: the dynamic loader calls it in the middle of relocation, before it has filled the main
 * thread's static TLS block. A thread-local variable reads as zero then, whatever its initial value is, and may be
 * overwritten with that value afterwards. What the resolver got is valid for the whole run all the same. */
#include "check.h"

enum { SMALL = 300 };

static char *kept, *grown;
static char *small[SMALL];
static int went_wrong;

static int answer(void)
{
    return 42;
}

/* Nothing of libc but malloc here: the program's other symbols need not be bound yet. */
__attribute__((used)) static int (*resolve(void))(void)
{
    kept = malloc(3000);
    for (int i = 0; kept && i < 3000; i++)
        kept[i] = (char)(i % 101);
    for (int i = 0; i < SMALL; i++) {
        small[i] = malloc(64);
        if (!small[i] || ((uintptr_t)small[i] & 15))
            went_wrong = 1;
        else
            small[i][0] = small[i][63] = (char)i;
    }
    for (int i = 0; i < SMALL; i += 2)
        free(small[i]);
    grown = realloc(calloc(10, 10), 5000);
    for (int i = 0; grown && i < 100; i++)
        if (grown[i])
            went_wrong = 2;
    free(malloc(700 * KIB));
    return answer;
}

int resolved(void) __attribute__((ifunc("resolve")));

int main(void)
{
    CHECK(resolved() == 42, "the resolver's choice");
    CHECK(kept != NULL && grown != NULL && went_wrong == 0, "malloc in a resolver, %d", went_wrong);
    char *later[SMALL];
    for (int i = 0; i < SMALL; i++)
        memset(later[i] = malloc(64), 0xee, 64);
    for (int i = 0; i < 3000; i++)
        CHECK(kept[i] == i % 101, "byte %d of a resolver's block", i);
    for (int i = 1; i < SMALL; i += 2) {
        CHECK(small[i][0] == (char)i && small[i][63] == (char)i, "small block %d of a resolver", i);
        free(small[i]);
    }
    for (int i = 0; i < SMALL; i++)
        free(later[i]);
    free(kept);
    free(grown);
    puts("resolver: malloc works in the middle of relocation, and what it gave lasts");
    return 0;
}
