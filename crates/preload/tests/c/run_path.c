/* Opens a library that lies where only this program's own run path leads to: the loader looks there if it sees that it is
 * this program that asks. */
#include "check.h"
#include <dlfcn.h>

int main(void)
{
    void *library = dlopen("libdeep_sought.so", RTLD_NOW);
    CHECK(library != NULL, "%s", dlerror());
    void (*give)(void *) = (void (*)(void *))dlsym(library, "deep_give");
    CHECK(give != NULL, "%s", dlerror());
    give(malloc(100));
    CHECK(dlopen("no such library", RTLD_NOW) == NULL && dlerror() != NULL, "an error is told");
    puts("run_path: found");
    return 0;
}
