/* The library, opened and closed again while its own thread gives memory back: the thread is gone before the code is,
 * and the library can be opened anew. Argument: the library. */
#include "check.h"
#include <dlfcn.h>

enum { BLOCKS = 500 };

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: idle_closed LIBRARY");
    for (int round = 0; round < 6; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL, "%s", dlerror());
        void *(*its_malloc)(size_t) = (void *(*)(size_t))dlsym(library, "malloc");
        void (*its_free)(void *) = (void (*)(void *))dlsym(library, "free");
        CHECK(its_malloc && its_free, "%s", dlerror());
        static void *blocks[BLOCKS];
        for (int i = 0; i < BLOCKS; i++) {
            blocks[i] = its_malloc(100 * KIB);
            CHECK(blocks[i] != NULL, "100 KiB of its heap");
            memset(blocks[i], 1, 100 * KIB);
        }
        for (int i = 0; i < BLOCKS; i++)
            its_free(blocks[i]);
        /* Its looks are half a second apart: from before the first one to the middle of one. */
        usleep((useconds_t)(round * 110) * 1000);
        CHECK(dlclose(library) == 0, "%s", dlerror());
    }
    usleep(700 * 1000);
    puts("closed: no thread runs code that is gone");
    return 0;
}
