// A free or a delete that names a size or an alignment that is not the allocation's.
#include "misuse.h"
#include <new>

extern "C" void free_sized(void *, size_t) __attribute__((weak));
extern "C" void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

using std::align_val_t;

static const bug bugs[] = {
    {"free_sized-smaller", [] { free_sized(announced(malloc(100)), 40); past(); }},
    {"free_sized-bigger", [] { free_sized(announced(malloc(100)), 400); past(); }},
    {"free_sized-large-as-small", [] { free_sized(announced(malloc(1 * MIB)), 100); past(); }},
    {"free_sized-small-as-large", [] { free_sized(announced(malloc(100)), 1 * MIB); past(); }},
    {"free_aligned_sized-size", [] { free_aligned_sized(announced(aligned_alloc(64, 128)), 64, 1024); past(); }},
    {"free_aligned_sized-alignment",
     [] {
         // One of two neighbours is not aligned to twice the class.
         char *one = static_cast<char *>(malloc(1024)), *two = static_cast<char *>(malloc(1024));
         free_aligned_sized(announced(reinterpret_cast<uintptr_t>(one) % 2048 ? one : two), 2048, 1024);
         past();
     }},
    {"free_aligned_sized-large-alignment", [] { free_aligned_sized(announced(malloc(1 * MIB)), 1 * GIB, 1 * MIB); past(); }},
    {"delete-smaller", [] { ::operator delete(announced(::operator new(100)), size_t(40)); past(); }},
    {"delete-bigger", [] { ::operator delete(announced(::operator new(100)), size_t(400)); past(); }},
    {"delete[]-smaller", [] { ::operator delete[](announced(::operator new[](100)), size_t(40)); past(); }},
    {"delete-base-of-derived",
     [] {
         struct Base { long a[2]; };
         struct Derived : Base { long b[10]; };
         delete static_cast<Base *>(announced(new Derived));
         past();
     }},
    {"delete-other-alignment", [] { ::operator delete(announced(::operator new(100)), size_t(100), align_val_t{256}); past(); }},
    {"delete[]-other-alignment", [] { ::operator delete[](announced(::operator new[](100)), size_t(100), align_val_t{256}); past(); }},
};

int main(int count, char **arguments)
{
    CHECK(free_sized && free_aligned_sized, "the library has both");
    return run_bug(bugs, sizeof bugs / sizeof *bugs, count, arguments);
}
