// All twenty forms of operator new and delete, called by name, so that no compiler can choose another one for us: plain,
// array, nothrow, sized, aligned and their products. Each block is aligned, its own, and goes back through every delete
// that the standard pairs with it.
#include "check.h"
#include <new>
#include <vector>

using std::align_val_t;
using std::nothrow;
using std::size_t;

static const size_t sizes[] = {0,    1,    7,     8,     16,    24,        33,            100,     1000,
                               4096, 5000, 40000, 65537, 262144, 256 * KIB + 1, 3 * MIB};

static void *used(void *block, size_t size, size_t alignment)
{
    CHECK(block != nullptr, "new of %zu bytes on %zu", size, alignment);
    CHECK(is_aligned(block, alignment), "new of %zu bytes on %zu at %p", size, alignment, block);
    CHECK(malloc_usable_size(block) >= size, "new of %zu bytes holds %zu", size, malloc_usable_size(block));
    fill(block, size, size);
    CHECK(holds(block, size, size), "new of %zu bytes", size);
    return block;
}

static void *news(int form, size_t size)
{
    switch (form) {
    case 0: return ::operator new(size);
    case 1: return ::operator new(size, nothrow);
    case 2: return ::operator new[](size);
    default: return ::operator new[](size, nothrow);
    }
}

static void deletes(int form, void *block, size_t size)
{
    switch (form) {
    case 0: ::operator delete(block); break;
    case 1: ::operator delete(block, size); break;
    case 2: ::operator delete(block, nothrow); break;
    case 3: ::operator delete[](block); break;
    case 4: ::operator delete[](block, size); break;
    default: ::operator delete[](block, nothrow); break;
    }
}

static void *news(int form, size_t size, align_val_t alignment)
{
    switch (form) {
    case 0: return ::operator new(size, alignment);
    case 1: return ::operator new(size, alignment, nothrow);
    case 2: return ::operator new[](size, alignment);
    default: return ::operator new[](size, alignment, nothrow);
    }
}

static void deletes(int form, void *block, size_t size, align_val_t alignment)
{
    switch (form) {
    case 0: ::operator delete(block, alignment); break;
    case 1: ::operator delete(block, size, alignment); break;
    case 2: ::operator delete(block, alignment, nothrow); break;
    case 3: ::operator delete[](block, alignment); break;
    case 4: ::operator delete[](block, size, alignment); break;
    default: ::operator delete[](block, alignment, nothrow); break;
    }
}

// Array forms pair with array forms.
static bool pairs(int made, int gone)
{
    return (made < 2) == (gone < 3);
}

static void one_block_at_a_time()
{
    for (size_t size : sizes)
        for (int made = 0; made < 4; made++)
            for (int gone = 0; gone < 6; gone++) {
                if (!pairs(made, gone))
                    continue;
                deletes(gone, used(news(made, size), size, 16), size);
                for (size_t alignment = 1; alignment <= 64 * KIB; alignment *= 2) {
                    align_val_t value{alignment};
                    deletes(gone, used(news(made, size, value), size, alignment), size, value);
                }
            }
    for (int gone = 0; gone < 6; gone++) {
        deletes(gone, nullptr, 10);
        deletes(gone, nullptr, 10, align_val_t{64});
    }
}

struct Block {
    void *at;
    size_t size, alignment;
    int made;
    uint64_t seed;
};

static void let_go(const Block &block, uint64_t r)
{
    CHECK(holds(block.at, block.size, block.seed), "%zu bytes on %zu", block.size, block.alignment);
    int gone = (block.made < 2 ? 0 : 3) + static_cast<int>(r % 3);
    if (block.alignment == 0)
        deletes(gone, block.at, block.size);
    else
        deletes(gone, block.at, block.size, align_val_t{block.alignment});
}

// All forms mixed, many blocks alive: a sized delete that put a block into another class would show as an overlap.
static void many_alive()
{
    std::vector<Block> live(3000, Block{nullptr, 0, 0, 0, 0});
    uint64_t random = 11;
    for (int step = 0; step < 150000; step++) {
        uint64_t r = next_random(&random) >> 8;
        Block &block = live[r % live.size()];
        r >>= 12;
        if (block.at)
            let_go(block, r);
        size_t alignment = r & 16 ? size_t{1} << (r >> 5) % 13 : 0;
        size_t size = program_size(&random) % (16 * KIB);
        int made = static_cast<int>(r % 4);
        void *at = alignment ? news(made, size, align_val_t{alignment}) : news(made, size);
        CHECK(at != nullptr && is_aligned(at, alignment ? alignment : 16), "%zu bytes on %zu at %p", size, alignment, at);
        block = Block{at, size, alignment, made, r};
        fill(at, size, r);
    }
    for (const Block &block : live)
        if (block.at)
            let_go(block, 1);
}

// The forms as a compiler chooses them.
struct alignas(128) Wide {
    char bytes[200];
};
struct alignas(64 * 1024) Widest {
    char bytes[64 * 1024];
};

static void by_the_compiler()
{
    for (int i = 0; i < 1000; i++) {
        Wide *wide = new Wide, *wides = new Wide[3];
        Widest *widest = new (nothrow) Widest;
        int *number = new int(i), *numbers = new int[i + 1];
        CHECK(is_aligned(wide, 128) && is_aligned(wides, 128), "alignas(128) at %p and %p", (void *)wide, (void *)wides);
        CHECK(is_aligned(widest, 64 * KIB), "alignas(65536) at %p", (void *)widest);
        CHECK(*number == i, "an int");
        numbers[i] = i;
        delete wide;
        delete[] wides;
        delete widest;
        delete number;
        delete[] numbers;
    }
    // One heap: C's free and C++'s delete of a plain pointer meet in the same place.
    free(::operator new(100));
    ::operator delete(malloc(100));
    free(::operator new(100, align_val_t{512}));
}

int main()
{
    one_block_at_a_time();
    many_alive();
    by_the_compiler();
    puts("operator new and delete: all twenty forms");
    return 0;
}
