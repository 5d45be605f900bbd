// delete of what new never gave.
#include "misuse.h"
#include <new>

alignas(64) static char in_data[256] = "not from new";

static char *large()
{
    return static_cast<char *>(::operator new(600 * KIB));
}

static const bug bugs[] = {
    {"delete", [] { ::operator delete(announced(in_data)); past(); }},
    {"delete[]", [] { ::operator delete[](announced(in_data + 64)); past(); }},
    {"delete-nothrow", [] { ::operator delete(announced(in_data), std::nothrow); past(); }},
    {"delete-aligned", [] { ::operator delete(announced(in_data + 64), std::align_val_t{64}); past(); }},
    {"delete-sized", [] { ::operator delete(announced(in_data), 100); past(); }},
    {"delete-sized-as-large", [] { ::operator delete(announced(in_data), 600 * KIB); past(); }},
    {"delete-middle-of-large", [] { ::operator delete(announced(large() + 128 * KIB)); past(); }},
};

int main(int count, char **arguments)
{
    return run_bug(bugs, sizeof bugs / sizeof *bugs, count, arguments);
}
