/* Prints the file that each allocation function of this process comes from, one line a function. The driver
 * runs it once for each allocator: a library that the dynamic linker did not load, or that does not replace
 * them all, would otherwise be measured under a name that is not its own. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void show(const char *name) {
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, name);
    if (address == NULL || dladdr(address, &info) == 0 || info.dli_fname == NULL) {
        printf("%s\t-\n", name);
        return;
    }
    char *path = realpath(info.dli_fname, NULL);
    printf("%s\t%s\n", name, path != NULL ? path : info.dli_fname);
    free(path);
}

int main(void) {
    static const char *const names[] = {"malloc", "free", "calloc", "realloc", "posix_memalign",
                                        "aligned_alloc", "malloc_usable_size"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) show(names[i]);
    return 0;
}
