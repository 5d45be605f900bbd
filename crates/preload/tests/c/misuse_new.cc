// delete of what new never gave: the same single line as for free. Argument: the form of delete.
#include "check.h"
#include <new>

alignas(64) static char in_data[256] = "not from new";

static void *announced(void *pointer)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%p\n", pointer);
    CHECK(write(1, text, length) == length, "stdout");
    return pointer;
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: misuse_new FORM");
    const char *form = arguments[1];
    char *large = static_cast<char *>(::operator new(600 * KIB));
    if (!strcmp(form, "delete"))
        ::operator delete(announced(in_data));
    else if (!strcmp(form, "delete[]"))
        ::operator delete[](announced(in_data + 64));
    else if (!strcmp(form, "nothrow"))
        ::operator delete(announced(in_data), std::nothrow);
    else if (!strcmp(form, "aligned"))
        ::operator delete(announced(in_data + 64), std::align_val_t{64});
    else if (!strcmp(form, "middle"))
        ::operator delete(announced(large + 128 * KIB));
    else if (!strcmp(form, "sized-large"))
        ::operator delete(announced(in_data), 600 * KIB);
    else
        CHECK(false, "no form is called %s", form);
    ssize_t written = write(1, "survived\n", 9);
    return written == 9 ? 0 : 1;
}
