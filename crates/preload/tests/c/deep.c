/* Blocks go both ways between a program and libraries that it opens with RTLD_DEEPBIND, which look into glibc before they
 * look anywhere else. Arguments: how to bind (now, lazy), one in C (deep_plugin.c) and one in C++ (plugin.cc). */
#include "check.h"
#include <dlfcn.h>

static void *(*take)(int, size_t);
static void (*give)(void *);
static void *(*grow)(void *, size_t);
static size_t (*usable)(void *);
static char *(*text)(int);

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    CHECK(address != NULL, "%s", dlerror());
    return address;
}

static void *exchange(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    for (int i = 0; i < 3000; i++) {
        size_t size = 1 + program_size(&random) % (300 * KIB);
        unsigned char *block = take(i % 8, size);
        CHECK(block != NULL && usable(block) >= size && malloc_usable_size(block) >= size, "%zu bytes, way %d", size, i % 8);
        fill(block, size, i);
        /* Ours from theirs, and back. */
        block = i & 1 ? realloc(block, size + 100) : grow(block, size + 100);
        CHECK(block != NULL && holds(block, size, i), "%zu bytes and 100", size);
        if (i & 2)
            free(block);
        else
            give(block);
        block = malloc(size);
        CHECK(block != NULL && usable(block) >= size, "%zu bytes of the program's", size);
        give(block);
        char *word = text(i);
        CHECK(word != NULL && atoi(word + 7) == i, "a text of glibc's");
        free(word);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    CHECK(count == 4, "usage: deep now|lazy LIBRARY LIBRARY");
    /* A value, which in a program at a fixed place is an address of its own. */
    void *(*volatile value)(size_t) = malloc;
    int flags = (strcmp(arguments[1], "now") == 0 ? RTLD_NOW : RTLD_LAZY) | RTLD_DEEPBIND;
    void *early = value(1000);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(arguments[2], flags);
        CHECK(library != NULL, "%s", dlerror());
        take = (void *(*)(int, size_t))symbol(library, "deep_take");
        give = (void (*)(void *))symbol(library, "deep_give");
        grow = (void *(*)(void *, size_t))symbol(library, "deep_grow");
        usable = (size_t(*)(void *))symbol(library, "deep_usable");
        text = (char *(*)(int))symbol(library, "deep_text");
        give(early);
        pthread_t threads[4];
        for (size_t i = 0; i < 4; i++)
            threads[i] = start(exchange, (void *)i);
        for (size_t i = 0; i < 4; i++)
            finish(threads[i]);
        early = take(0, 5000);
        CHECK(dlclose(library) == 0, "%s", dlerror());

        library = dlopen(arguments[3], flags);
        CHECK(library != NULL, "%s", dlerror());
        static const char *const names[] = { "plugin_catches", "plugin_handler", "plugin_containers" };
        for (int i = 0; i < 3; i++) {
            int result = ((int (*)(void))symbol(library, names[i]))();
            CHECK(result == 0, "%s: step %d", names[i], result);
        }
        free(((void *(*)(void))symbol(library, "plugin_gives"))());
        ((void (*)(void *))symbol(library, "plugin_takes"))(malloc(300));
        CHECK(dlclose(library) == 0, "%s", dlerror());
    }
    free(early);
    /* A child has what was done before. */
    pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0) {
        void *library = dlopen(arguments[2], flags);
        CHECK(library != NULL, "%s", dlerror());
        ((void (*)(void *))symbol(library, "deep_give"))(malloc(10));
        exit(0);
    }
    reap(pid, "a child");
    printf("deep, %s: blocks go both ways\n", arguments[1]);
    return 0;
}
