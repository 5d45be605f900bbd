// The way out: static destructors, thread_local destructors, atexit handlers and destructor functions free and allocate
// long after the allocator's own clean-up, while a detached thread still works. The exit status shows that all of them
// ran: a handler that runs last sets it.
#include "check.h"
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static int steps;

static void work(const char *who)
{
    // Enough to need a refill, a flush and a big block.
    std::vector<std::string> strings;
    for (int i = 0; i < 2000; i++)
        strings.emplace_back(i % 100, 'x');
    void *big = malloc(600 * KIB);
    CHECK(big != nullptr, "600 KiB in %s", who);
    memset(big, 1, 600 * KIB);
    free(big);
    for (int i = 0; i < 2000; i++)
        CHECK(strings[i] == std::string(i % 100, 'x'), "string %d in %s", i, who);
    steps++;
}

struct Keeper {
    const char *who;
    std::map<int, std::string> kept;
    std::unique_ptr<char[]> big;
    explicit Keeper(const char *name) : who(name), big(new char[2 * MIB])
    {
        for (int i = 0; i < 3000; i++)
            kept[i] = std::string(i % 200, char('a' + i % 26));
        fill(big.get(), 2 * MIB, 12);
    }
    ~Keeper()
    {
        for (int i = 0; i < 3000; i++)
            CHECK(kept[i] == std::string(i % 200, char('a' + i % 26)), "string %d of %s", i, who);
        CHECK(holds(big.get(), 2 * MIB, 12), "the big block of %s", who);
        work(who);
    }
};

// Constructed first, so the last of the static objects to go.
static Keeper first("the first static object");
static thread_local Keeper local("a thread_local object");
static Keeper second("the second static object");

static char *left_for_exit;

static void at_exit()
{
    CHECK(holds(left_for_exit, 5000, 3), "a block left for atexit");
    free(left_for_exit);
    left_for_exit = static_cast<char *>(malloc(700));
    work("an atexit handler");
}

static void at_exit_again()
{
    work("another atexit handler");
    // A handler that registers a handler.
    atexit([] { work("a handler of a handler"); });
}

__attribute__((destructor)) static void destructor_function()
{
    free(left_for_exit);
    work("a destructor function");
    // Everything that had to run before this one has run: two static objects, three thread_local ones, three handlers,
    // the destructor itself.
    if (steps != 9) {
        check_failed(__FILE__, __LINE__, "steps == 9", "%d steps ran on the way out", steps);
    }
}

int main()
{
    atexit(at_exit);
    atexit(at_exit_again);
    left_for_exit = static_cast<char *>(malloc(5000));
    fill(left_for_exit, 5000, 3);
    CHECK(local.kept.size() == 3000, "the main thread's object");
    for (int i = 0; i < 2; i++)
        std::thread([] { CHECK(local.kept.size() == 3000, "a thread's object"); }).join();
    // Still at work when the process ends.
    std::thread([] {
        uint64_t random = 5;
        void *blocks[100] = {};
        for (;;) {
            uint64_t r = next_random(&random);
            free(blocks[r % 100]);
            blocks[r % 100] = malloc(program_size(&random));
        }
    }).detach();
    puts("exit: static, thread_local and atexit clean-up all allocate and free");
    return 0;
}
