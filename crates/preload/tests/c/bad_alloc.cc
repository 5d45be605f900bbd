// operator new that cannot: a real std::bad_alloc, caught by type, by base class and by reference, from every throwing
// form; null from every nothrow form; and the program goes on with all it had.
#include "check.h"
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <typeinfo>
#include <vector>

using std::align_val_t;
using std::nothrow;

static const size_t absurd[] = {size_t(1) << 47, size_t(1) << 62, PTRDIFF_MAX, size_t(PTRDIFF_MAX) + 1, SIZE_MAX - 4096, SIZE_MAX - 15, SIZE_MAX};

// The destructor must run on the way out: the exception unwinds, it does not jump.
struct Witness {
    int &count;
    ~Witness() { count++; }
};

static void throws(const char *what, const std::function<void *()> &form)
{
    int unwound = 0;
    bool caught = false;
    try {
        Witness witness{unwound};
        void *block = form();
        CHECK(false, "%s gave %p", what, block);
    } catch (const std::bad_alloc &error) {
        caught = true;
        CHECK(typeid(error) == typeid(std::bad_alloc), "%s threw a %s", what, typeid(error).name());
        CHECK(error.what() != nullptr && *error.what(), "%s threw something without a name", what);
    }
    CHECK(caught && unwound == 1, "%s", what);

    caught = false;
    try {
        form();
    } catch (const std::exception &error) {
        caught = true;
        CHECK(std::string(error.what()) == std::bad_alloc().what(), "%s says %s", what, error.what());
    }
    CHECK(caught, "%s by its base class", what);

    caught = false;
    try {
        form();
    } catch (...) {
        caught = true;
        // It can be kept, and thrown again elsewhere.
        std::exception_ptr kept = std::current_exception();
        bool again = false;
        std::thread([&] {
            try {
                std::rethrow_exception(kept);
            } catch (const std::bad_alloc &) {
                again = true;
            }
        }).join();
        CHECK(again, "%s in another thread", what);
    }
    CHECK(caught, "%s by anything", what);
}

static void every_form(size_t size)
{
    throws("new", [=] { return ::operator new(size); });
    throws("new[]", [=] { return ::operator new[](size); });
    for (size_t alignment : {size_t(1), size_t(16), size_t(64), size_t(4096), 64 * KIB, MIB}) {
        align_val_t value{alignment};
        // libstdc++ 12 rounds the size up to the boundary, past 2^64, and hands out a block of no bytes.
        if (on_system() && size > SIZE_MAX - alignment)
            continue;
        throws("aligned new", [=] { return ::operator new(size, value); });
        throws("aligned new[]", [=] { return ::operator new[](size, value); });
        CHECK(::operator new(size, value, nothrow) == nullptr, "aligned nothrow new of %#zx bytes", size);
        CHECK(::operator new[](size, value, nothrow) == nullptr, "aligned nothrow new[] of %#zx bytes", size);
    }
    CHECK(::operator new(size, nothrow) == nullptr, "nothrow new of %#zx bytes", size);
    CHECK(::operator new[](size, nothrow) == nullptr, "nothrow new[] of %#zx bytes", size);
}

static void through_the_library()
{
    // Containers that the C++ library itself grows.
    bool caught = false;
    try {
        std::vector<char> bytes;
        bytes.reserve(PTRDIFF_MAX - 1);
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught, "vector::reserve");
    caught = false;
    std::string text = "kept";
    try {
        text.reserve(text.max_size() - 1);
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught && text == "kept", "string::reserve");
    // A length that overflows is the compiler's to see; it throws what derives from bad_alloc.
    caught = false;
    try {
        volatile size_t count = SIZE_MAX / 4;
        std::unique_ptr<long[]> longs(new long[count]);
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught, "new long[SIZE_MAX / 4]");
}

int main()
{
    std::vector<std::unique_ptr<std::string>> kept;
    for (int i = 0; i < 2000; i++)
        kept.push_back(std::make_unique<std::string>(i % 300, char('a' + i % 26)));

    for (size_t size : absurd)
        every_form(size);
    through_the_library();
    std::thread([] { every_form(PTRDIFF_MAX); }).join();

    // A thrown exception is an allocation of its own; thousands of them leak nothing and harm nothing.
    long before = status_kib("VmRSS:");
    int caught = 0;
    for (int i = 0; i < 20000; i++)
        try {
            ::operator delete(::operator new(PTRDIFF_MAX));
        } catch (const std::bad_alloc &) {
            caught++;
        }
    CHECK(caught == 20000, "%d of 20000", caught);
    CHECK(status_kib("VmRSS:") < before + 4096, "exceptions leak: %ld KiB, then %ld", before, status_kib("VmRSS:"));
    for (int i = 0; i < 2000; i++)
        CHECK(*kept[i] == std::string(i % 300, char('a' + i % 26)), "string %d", i);
    puts("bad_alloc: thrown by every throwing form, null from every nothrow one");
    return 0;
}
