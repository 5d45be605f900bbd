// A size or a boundary given to delete that is not the one given to new: old code does that, and got away with it on
// allocators that ignore the size. It may be refused with a message; it may never put an object where one of another
// size belongs. Argument: how it is wrong. Exits 0 when all blocks are whole, dies by SIGABRT when it is refused.
#include "check.h"
#include <new>
#include <vector>

using std::align_val_t;

static void wrong(const char *how, void *block, size_t size)
{
    if (!strcmp(how, "smaller"))
        ::operator delete(block, size / 2 + 1);
    else if (!strcmp(how, "bigger"))
        ::operator delete(block, size * 2 + 100);
    else if (!strcmp(how, "zero"))
        ::operator delete(block, size_t(0));
    else if (!strcmp(how, "much-bigger"))
        ::operator delete(block, size + 10 * MIB);
    else if (!strcmp(how, "aligned"))
        ::operator delete(block, size, align_val_t{256});
    else
        CHECK(false, "no such way: %s", how);
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: wrong_size HOW");
    static const size_t sizes[] = {16, 40, 100, 500, 1000, 3000, 10000, 60000, 200000, 300 * KIB, 2 * MIB};
    struct Block {
        char *at;
        size_t size;
    };
    std::vector<Block> live;
    uint64_t seed = 0;
    for (int round = 0; round < 4; round++) {
        for (size_t size : sizes) {
            int each = size > 50000 ? 3 : 60;
            for (int i = 0; i < each; i++)
                wrong(arguments[1], ::operator new(size), size);
            for (int i = 0; i < each; i++)
                live.push_back({static_cast<char *>(::operator new(size / 2 + i)), size / 2 + i});
        }
        for (size_t i = 0; i < live.size(); i++)
            fill(live[i].at, live[i].size, seed + i);
        for (size_t i = 0; i < live.size(); i++)
            CHECK(holds(live[i].at, live[i].size, seed + i), "block %zu of %zu bytes shares memory", i, live[i].size);
    }
    puts("a wrong size at delete: no block shares memory with another");
    return 0;
}
