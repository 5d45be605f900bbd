/* A static program that opens libraries: that is glibc's own business, with its own answers and its own texts. */
#include "check.h"
#include <dlfcn.h>

int main(void)
{
    free(malloc(100));
    CHECK(dlopen(NULL, RTLD_NOW) != NULL, "the program itself");
    CHECK(dlopen("no such library", RTLD_NOW) == NULL, "a library that is none");
    const char *text = dlerror();
    CHECK(text != NULL && strstr(text, "no such library") != NULL, "it says %s", text);
    CHECK(dlopen("libc.so.6", 1 << 20) == NULL && dlerror() != NULL, "a mode that is none");
    puts("static_dlopen: as glibc does it");
    return 0;
}
