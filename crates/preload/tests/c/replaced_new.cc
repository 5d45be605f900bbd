/* A program that replaces operator new and delete in their plain forms only. The language sends the other forms to
 * these; each block here carries a header, so a delete that went elsewhere would be found out at once. */
#include "check.h"
#include <new>
#include <string>
#include <vector>

static long live, calls;

void *operator new(std::size_t size)
{
    if (size > GIB)
        throw std::bad_alloc();
    char *block = static_cast<char *>(std::malloc(size + 16));
    if (!block)
        throw std::bad_alloc();
    *reinterpret_cast<std::size_t *>(block) = size;
    live += size;
    calls++;
    return block + 16;
}

void operator delete(void *pointer) noexcept
{
    if (!pointer)
        return;
    char *block = static_cast<char *>(pointer) - 16;
    live -= *reinterpret_cast<std::size_t *>(block);
    std::free(block);
}

struct Nine {
    long words[9];
};

template <typename T> static T *kept(T *pointer)
{
    asm volatile("" : : "r"(pointer) : "memory");
    return pointer;
}

int main()
{
    delete kept(new Nine);
    CHECK(calls == 1 && live == 0, "new and sized delete: %ld calls, %ld bytes live", calls, live);
    delete[] kept(new int[100]);
    CHECK(calls == 2 && live == 0, "new[] and delete[]: %ld calls, %ld bytes live", calls, live);
    operator delete(kept(new (std::nothrow) Nine), std::nothrow);
    CHECK(calls == 3 && live == 0, "nothrow: %ld calls, %ld bytes live", calls, live);
    operator delete[](kept(new (std::nothrow) char[77]), std::nothrow);
    CHECK(calls == 4 && live == 0, "nothrow array: %ld calls, %ld bytes live", calls, live);
    void *volatile none = operator new(2 * GIB, std::nothrow);
    CHECK(none == nullptr, "a nothrow new whose plain form throws");
    none = operator new[](2 * GIB, std::nothrow);
    CHECK(none == nullptr, "a nothrow new[] whose plain form throws");
    {
        std::vector<std::string> strings(100, std::string(100, 'x'));
        CHECK(live > 10000, "containers use it: %ld bytes live", live);
    }
    CHECK(live == 0, "%ld bytes live at the end", live);
    puts("replaced_new: the other forms go to the program's own");
    return 0;
}
