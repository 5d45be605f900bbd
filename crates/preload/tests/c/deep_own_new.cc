// A program whose operator new and delete keep something of their own in front of each block, and a library that it opens
// with RTLD_DEEPBIND, whose blocks are none of these: glibc's names must not come to stand for the program's operators.
#include "check.h"
#include <dlfcn.h>
#include <new>

static long live;

void *operator new(std::size_t size)
{
    std::size_t *block = static_cast<std::size_t *>(std::malloc(size + 32));
    if (!block)
        throw std::bad_alloc();
    block[0] = size;
    live++;
    return block + 4;
}

void operator delete(void *block) noexcept
{
    if (!block)
        return;
    live--;
    std::free(static_cast<std::size_t *>(block) - 4);
}

void operator delete(void *block, std::size_t) noexcept
{
    operator delete(block);
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: deep_own_new LIBRARY");
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_DEEPBIND);
    CHECK(library != NULL, "%s", dlerror());
    auto take = reinterpret_cast<void *(*)(int, std::size_t)>(dlsym(library, "deep_take"));
    auto give = reinterpret_cast<void (*)(void *)>(dlsym(library, "deep_give"));
    CHECK(take != NULL && give != NULL, "%s", dlerror());
    int *own = new int(7);
    long before = live;
    for (int i = 0; i < 2000; i++) {
        void *block = take(i % 8, 100 + i);
        CHECK(block != NULL, "a block, way %d", i % 8);
        give(block);
    }
    CHECK(live == before && *own == 7, "%ld blocks of the program's, %ld before", live, before);
    delete own;
    puts("deep_own_new: each has its own");
    return 0;
}
