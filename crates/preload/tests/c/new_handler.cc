// The new-handler is asked before operator new gives up: again and again until it frees enough, throws, or takes itself
// away. Nothrow forms ask it too, and turn what it throws into null. malloc never asks.
#include "check.h"
#include <memory>
#include <new>
#include <vector>

using std::align_val_t;
using std::nothrow;

static int calls;

struct Own : std::bad_alloc {
    int calls_then;
    const char *what() const noexcept override { return "our own"; }
};

static void counts_then_resigns()
{
    if (++calls == 5)
        std::set_new_handler(nullptr);
}

static void throws_its_own()
{
    calls++;
    Own error;
    error.calls_then = calls;
    throw error;
}

static void hands_over_to_the_thrower()
{
    calls++;
    std::set_new_handler(throws_its_own);
}

template <class Form> static void asked_until_it_resigns(const char *what, Form form)
{
    calls = 0;
    std::set_new_handler(counts_then_resigns);
    bool caught = false;
    try {
        form();
    } catch (const Own &) {
        CHECK(false, "%s threw the wrong thing", what);
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught, "%s throws in the end", what);
    CHECK(calls == 5, "%s asked %d times", what, calls);
    CHECK(std::get_new_handler() == nullptr, "the handler is gone");
}

template <class Form> static void passes_its_exception_on(const char *what, Form form)
{
    for (auto handler : {throws_its_own, hands_over_to_the_thrower}) {
        calls = 0;
        std::set_new_handler(handler);
        bool caught = false;
        try {
            form();
        } catch (const Own &error) {
            caught = true;
            CHECK(error.calls_then == calls, "%s: the exception is the handler's own", what);
        }
        CHECK(caught, "%s lets the handler's exception through", what);
        CHECK(calls == (handler == throws_its_own ? 1 : 2), "%s asked %d times", what, calls);
    }
    std::set_new_handler(nullptr);
}

template <class Form> static void null_and_asked(const char *what, Form form)
{
    calls = 0;
    std::set_new_handler(counts_then_resigns);
    CHECK(form() == nullptr && calls == 5, "%s asked %d times", what, calls);
    calls = 0;
    std::set_new_handler(throws_its_own);
    CHECK(form() == nullptr && calls == 1, "%s swallows what the handler throws", what);
    std::set_new_handler(nullptr);
    CHECK(form() == nullptr, "%s without a handler", what);
}

// Memory that the program holds for a rainy day.
static std::vector<std::unique_ptr<char[]>> reserve;

static void frees_the_reserve()
{
    calls++;
    CHECK(!reserve.empty(), "asked again although the reserve is gone");
    reserve.pop_back();
}

static void limit_to_what_there_is(size_t more)
{
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = status_kib("VmSize:") * KIB + more;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0, "RLIMIT_AS");
}

static void retried_after_the_handler_freed()
{
    for (int i = 0; i < 8; i++)
        reserve.emplace_back(new char[100 * MIB]);
    limit_to_what_there_is(32 * MIB);
    std::set_new_handler(frees_the_reserve);
    calls = 0;
    std::unique_ptr<char[]> first(new char[80 * MIB]);
    CHECK(calls >= 1, "80 MiB with 32 MiB left needs the handler");
    fill(first.get(), 80 * MIB, 1);
    int before = calls;
    std::unique_ptr<char[]> second(new (align_val_t{4096}) char[80 * MIB]);
    CHECK(calls > before, "the aligned form needs the handler");
    fill(second.get(), 80 * MIB, 2);
    before = calls;
    std::unique_ptr<char[]> third(new (nothrow) char[80 * MIB]);
    CHECK(third != nullptr && calls > before, "the nothrow form needs the handler");
    CHECK(holds(first.get(), 80 * MIB, 1) && holds(second.get(), 80 * MIB, 2), "blocks got after the handler freed");
    // malloc is not C++: it fails without asking.
    before = calls;
    errno = 0;
    CHECK(malloc(PTRDIFF_MAX) == nullptr && errno == ENOMEM && calls == before, "malloc asks nobody");
    std::set_new_handler(nullptr);
    reserve.clear();
    // One that came from the aligned form goes back through it.
    ::operator delete[](second.release(), align_val_t{4096});
}

int main()
{
    const size_t absurd = PTRDIFF_MAX;
    const align_val_t wide{256};
    asked_until_it_resigns("new", [=] { return ::operator new(absurd); });
    asked_until_it_resigns("new[]", [=] { return ::operator new[](absurd); });
    asked_until_it_resigns("aligned new", [=] { return ::operator new(absurd, wide); });
    asked_until_it_resigns("aligned new[]", [=] { return ::operator new[](absurd, wide); });
    passes_its_exception_on("new", [=] { return ::operator new(absurd); });
    passes_its_exception_on("new[]", [=] { return ::operator new[](absurd); });
    passes_its_exception_on("aligned new", [=] { return ::operator new(absurd, wide); });
    passes_its_exception_on("aligned new[]", [=] { return ::operator new[](absurd, wide); });
    null_and_asked("nothrow new", [=] { return ::operator new(absurd, nothrow); });
    null_and_asked("nothrow new[]", [=] { return ::operator new[](absurd, nothrow); });
    null_and_asked("aligned nothrow new", [=] { return ::operator new(absurd, wide, nothrow); });
    null_and_asked("aligned nothrow new[]", [=] { return ::operator new[](absurd, wide, nothrow); });
    retried_after_the_handler_freed();
    puts("new-handler: asked until it frees, throws or resigns");
    return 0;
}
