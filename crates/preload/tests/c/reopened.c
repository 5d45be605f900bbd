/* Opens and closes the library named by the argument again and again, with blocks alive across it. */
#include "check.h"
#include <dlfcn.h>

static void *library_of_a_thread(void *path)
{
    void *library = dlopen((const char *)path, RTLD_NOW);
    CHECK(library != NULL, "%s", dlerror());
    void *block = malloc(2000);
    CHECK(dlclose(library) == 0, "%s", dlerror());
    return block;
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: reopened LIBRARY");
    enum { BLOCKS = 300 };
    static void *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++)
        fill(blocks[i] = malloc(i * 10), i * 10, i);
    for (int round = 0; round < 10; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW);
        CHECK(library != NULL, "%s", dlerror());
        void *block = malloc(5000);
        fill(block, 5000, round);
        CHECK(dlclose(library) == 0, "%s", dlerror());
        CHECK(holds(block, 5000, round), "a block across dlclose");
        free(block);
        free(finish(start(library_of_a_thread, arguments[1])));
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        CHECK(holds(blocks[i], i * 10, i), "block %zu across dlopen and dlclose", i);
        free(blocks[i]);
    }
    puts("reopened: blocks last across dlopen and dlclose");
    return 0;
}
