// Destructors of C++ thread_local objects allocate and free, register further ones, and meet key destructors that run
// after them: everything works until the thread's last instruction.
#include "check.h"
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

static std::atomic<long> ran{0};
static pthread_key_t key;

static void work(int amount)
{
    std::map<int, std::string> map;
    for (int i = 0; i < amount; i++)
        map[i] = std::string(i % 150, char('a' + i % 26));
    for (int i = 0; i < amount; i++)
        CHECK(map[i] == std::string(i % 150, char('a' + i % 26)), "entry %d", i);
    ran++;
}

struct Late {
    std::vector<int> numbers = std::vector<int>(1000, 7);
    ~Late()
    {
        CHECK(numbers[999] == 7, "a thread_local made by a destructor");
        work(50);
    }
};

// First touched inside another destructor: it is constructed, and destroyed, on the way out.
static Late &late()
{
    static thread_local Late object;
    return object;
}

struct Local {
    std::string text = "a string too long to live inside the object itself, so it is on the heap";
    std::unique_ptr<char[]> big{new char[400 * KIB]};
    std::map<std::string, std::vector<int>> map;
    ~Local()
    {
        CHECK(text.size() > 60 && text[0] == 'a', "the text");
        map["one more"].push_back(1);
        work(200);
        CHECK(late().numbers.size() == 1000, "a thread_local first touched in a destructor");
        pthread_setspecific(key, new std::string(text));
    }
};

static thread_local Local local;

static void key_destructor(void *value)
{
    std::unique_ptr<std::string> text(static_cast<std::string *>(value));
    CHECK(text->size() > 60, "a string for a key destructor");
    work(100);
    // The second time round, as long as the text has not grown too much.
    if (text->size() < 90)
        pthread_setspecific(key, new std::string(*text + std::string(20, '+')));
}

static void body(int n)
{
    local.map["numbers"].assign(100 + n, n);
    work(n % 100);
}

int main()
{
    CHECK(pthread_key_create(&key, key_destructor) == 0, "a key");
    long warm = 0;
    const int rounds = 6, threads = 40;
    for (int round = 0; round < rounds; round++) {
        for (int first = 0; first < threads; first += 4) {
            std::vector<std::thread> some;
            for (int i = 0; i < 4; i++)
                some.emplace_back(body, first + i);
            for (auto &thread : some)
                thread.join();
        }
        if (round == 0)
            warm = status_kib("VmRSS:");
    }
    long bound = warm * 11 / 10 + 2 * 1024, after = resident_within(bound);
    // The body, Local, Late and, for a text of 72, 92 characters, the key's destructor twice.
    CHECK(ran == 5L * rounds * threads, "%ld steps of %d", ran.load(), 5 * rounds * threads);
    CHECK(after <= bound, "late destructors leak: %ld KiB, then %ld", warm, after);
    printf("thread_local destructors: all ran; %ld KiB resident, then %ld\n", warm, after);
    return 0;
}
