// A C++ library that a C program loads with dlopen(RTLD_LOCAL): libstdc++ comes in with it and is in nobody's global
// scope, so an operator new that looks there for the way to throw finds nothing. See local_scope.c.
#include <cstdint>
#include <map>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

static int handler_calls;

struct Own : std::bad_alloc {};

static void throwing_handler()
{
    handler_calls++;
    throw Own();
}

// Each returns 0 when all is as the standard says, and otherwise the number of the step that is not.
extern "C" int plugin_catches()
{
    for (std::size_t size : {std::size_t(PTRDIFF_MAX), std::size_t(1) << 47, std::size_t(1) << 62}) {
        bool caught = false;
        try {
            ::operator delete(::operator new(size));
        } catch (const std::bad_alloc &error) {
            caught = error.what() != nullptr;
        }
        if (!caught)
            return 1;
        caught = false;
        try {
            ::operator delete[](::operator new[](size, std::align_val_t{128}), std::align_val_t{128});
        } catch (const std::exception &) {
            caught = true;
        }
        if (!caught)
            return 2;
        if (::operator new(size, std::nothrow) != nullptr)
            return 3;
    }
    return 0;
}

extern "C" int plugin_handler()
{
    handler_calls = 0;
    std::set_new_handler(throwing_handler);
    int result = 0;
    try {
        ::operator delete(::operator new(PTRDIFF_MAX));
        result = 1;
    } catch (const Own &) {
    } catch (const std::bad_alloc &) {
        result = 2;
    }
    if (handler_calls != 1)
        result = 3;
    if (::operator new(PTRDIFF_MAX, std::nothrow) != nullptr || handler_calls != 2)
        result = 4;
    std::set_new_handler(nullptr);
    return result;
}

extern "C" int plugin_containers()
{
    std::map<std::string, std::vector<int>> words;
    for (int i = 0; i < 20000; i++)
        words["word " + std::to_string(i % 700)].push_back(i);
    if (words.size() != 700)
        return 1;
    try {
        words.at("no such word");
        return 2;
    } catch (const std::out_of_range &) {
    }
    std::size_t all = 0;
    for (const auto &word : words)
        all += word.second.size();
    return all == 20000 ? 0 : 3;
}

// A block that the C program frees, and one that came from it.
extern "C" void *plugin_gives()
{
    return new char[100];
}

extern "C" void plugin_takes(void *block)
{
    delete[] static_cast<char *>(block);
}
