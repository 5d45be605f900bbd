/* A pure C program loads a C++ library with RTLD_LOCAL, as interpreters load their modules: exceptions of operator new
 * are thrown and caught inside it although libstdc++ is not in the global scope. Argument: the library's path. */
#include "check.h"
#include <dlfcn.h>

typedef int (*step)(void);

static void all_is_well(void *library, const char *name)
{
    step function = (step)dlsym(library, name);
    CHECK(function != NULL, "no %s: %s", name, dlerror());
    for (int time = 0; time < 50; time++) {
        int result = function();
        CHECK(result == 0, "%s, time %d: step %d went wrong", name, time, result);
    }
}

static void *in_a_thread(void *library)
{
    all_is_well(library, "plugin_catches");
    all_is_well(library, "plugin_handler");
    all_is_well(library, "plugin_containers");
    return NULL;
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: local_scope PLUGIN");
    CHECK(dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL, "libstdc++ is in the global scope of a C program");
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        CHECK(library != NULL, "%s", dlerror());
        CHECK(dlsym(RTLD_DEFAULT, "__cxa_throw") == NULL, "RTLD_LOCAL keeps libstdc++ out of the global scope");
        in_a_thread(library);
        finish(start(in_a_thread, library));
        void *(*gives)(void) = (void *(*)(void))dlsym(library, "plugin_gives");
        void (*takes)(void *) = (void (*)(void *))dlsym(library, "plugin_takes");
        for (int i = 0; i < 1000; i++) {
            free(gives());
            takes(malloc(50));
        }
        CHECK(dlclose(library) == 0, "%s", dlerror());
    }
    puts("local scope: exceptions thrown and caught in a C++ library of a C program");
    return 0;
}
