// Linked with libtiermalloc.a, static or not: containers, threads, exceptions of operator new, and the allocator's own
// message when asked for with the argument `probe`.
#include "check.h"
#include <iostream>
#include <map>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

static void body(int seed)
{
    std::map<std::string, std::vector<int>> map;
    for (int i = 0; i < 5000; i++)
        map["key " + std::to_string(i % 300 + seed)].push_back(i);
    size_t sum = 0;
    for (const auto &entry : map)
        sum += entry.second.size();
    CHECK(sum == 5000, "%zu numbers", sum);
}

static bool throws(size_t size)
{
    try {
        // By name: a compiler may drop a new-expression whose block nobody uses.
        ::operator delete(::operator new(size));
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

static int calls;

static void handler()
{
    calls++;
    std::set_new_handler(nullptr);
}

struct Last {
    std::string text = std::string(100, 'x');
    ~Last() { CHECK(text == std::string(100, 'x'), "a static object"); }
};
static Last last;

int main(int count, char **arguments)
{
    if (count > 1 && std::string(arguments[1]) == "probe") {
        static char not_ours[64];
        ::operator delete(not_ours + 16);
        return 0;
    }
    volatile size_t absurd = PTRDIFF_MAX;
    for (int i = 0; i < 100; i++)
        CHECK(throws(absurd), "a real bad_alloc");
    std::set_new_handler(handler);
    CHECK(throws(absurd) && calls == 1, "the new-handler is asked");
    CHECK(::operator new(absurd, std::nothrow) == nullptr, "nothrow new");
    struct alignas(512) Wide {
        char bytes[512];
    };
    Wide *wide = new Wide[3];
    CHECK(is_aligned(wide, 512), "alignas(512) at %p", (void *)wide);
    delete[] wide;
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; i++)
        threads.emplace_back([i] {
            body(i);
            CHECK(throws(PTRDIFF_MAX), "a real bad_alloc in a thread");
        });
    for (auto &thread : threads)
        thread.join();
    std::ostringstream out;
    for (int i = 0; i < 1000; i++)
        out << i << ' ';
    CHECK(out.str().size() == 3890, "%zu characters", out.str().size());
    std::cout << "linked: containers, threads and exceptions\n";
    return 0;
}
