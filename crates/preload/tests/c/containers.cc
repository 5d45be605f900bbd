// The standard containers, strings, shared pointers, futures and threads at work together: what a C++ program does to an
// allocator all day. Sums over the contents show that nothing was lost or overwritten.
#include "check.h"
#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

static std::string word(uint64_t n)
{
    return std::string(1 + n % 60, char('a' + n % 26)) + std::to_string(n);
}

static void strings_and_maps(uint64_t seed)
{
    std::map<std::string, std::vector<std::string>> tree;
    std::unordered_map<uint64_t, std::string> table;
    std::map<std::string, size_t> expected;
    uint64_t random = seed;
    for (int i = 0; i < 15000; i++) {
        uint64_t n = next_random(&random) % 997;
        tree[word(n)].push_back(word(n + 1));
        expected[word(n)]++;
        table[n] = word(n * 3);
        if (n % 7 == 0) {
            tree.erase(word(n));
            expected.erase(word(n));
            table.erase(n);
        }
    }
    CHECK(tree.size() == expected.size(), "%zu keys, %zu expected", tree.size(), expected.size());
    for (const auto &entry : tree)
        CHECK(entry.second.size() == expected[entry.first], "%s", entry.first.c_str());
    for (const auto &entry : table)
        CHECK(entry.second == word(entry.first * 3), "entry %llu", (unsigned long long)entry.first);
}

static void sequences(uint64_t seed)
{
    std::deque<std::string> queue;
    std::list<std::vector<int>> lists;
    std::vector<std::vector<long>> rows;
    uint64_t random = seed;
    size_t pushed = 0, popped = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t r = next_random(&random);
        if (r % 3) {
            queue.push_back(word(pushed++));
        } else if (!queue.empty()) {
            CHECK(queue.front() == word(popped), "element %zu of a queue", popped);
            queue.pop_front();
            popped++;
        }
        if (r % 50 == 0)
            lists.emplace_back(1 + r % 5000, i);
        if (lists.size() > 40)
            lists.pop_front();
    }
    for (int i = 0; i < 300; i++) {
        rows.emplace_back();
        for (int j = 0; j < i; j++)
            rows.back().push_back(long(i) * j);
    }
    std::reverse(rows.begin(), rows.end());
    for (const auto &row : rows)
        for (size_t j = 0; j < row.size(); j++)
            CHECK(row[j] == long(row.size() * j), "row of %zu", row.size());
    for (const auto &list : lists)
        CHECK(list.front() == list.back(), "a list's vector");
}

struct Node {
    std::shared_ptr<Node> left, right;
    std::string name;
};

static std::shared_ptr<Node> grown(int depth, uint64_t n)
{
    auto node = std::make_shared<Node>();
    node->name = word(n);
    if (depth > 0) {
        node->left = grown(depth - 1, 2 * n);
        node->right = grown(depth - 1, 2 * n + 1);
    }
    return node;
}

static size_t counted(const std::shared_ptr<Node> &node, uint64_t n)
{
    if (!node)
        return 0;
    CHECK(node->name == word(n), "node %llu", (unsigned long long)n);
    return 1 + counted(node->left, 2 * n) + counted(node->right, 2 * n + 1);
}

static void worker(uint64_t seed)
{
    strings_and_maps(seed);
    sequences(seed);
    auto tree = grown(11, 1);
    CHECK(counted(tree, 1) == 4095, "a tree of 4095 nodes");
    std::ostringstream out;
    for (int i = 0; i < 5000; i++)
        out << i << ' ';
    CHECK(out.str().size() == 23890, "%zu characters", out.str().size());
}

// Made in one thread, used in another, dropped in a third.
static void across_threads()
{
    std::mutex lock;
    std::vector<std::shared_ptr<Node>> shelf;
    std::atomic<size_t> nodes{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 60; i++) {
                auto tree = grown(6, t + 1);
                nodes += counted(tree, t + 1);
                std::shared_ptr<Node> dropped;
                std::lock_guard<std::mutex> guard(lock);
                shelf.push_back(tree);
                if (shelf.size() > 20) {
                    dropped = shelf[i % shelf.size()];
                    shelf.erase(shelf.begin() + i % shelf.size());
                }
            }
        });
    for (auto &thread : threads)
        thread.join();
    CHECK(nodes == 4 * 60 * 127, "%zu nodes", nodes.load());
    std::vector<std::future<std::string>> futures;
    for (int i = 0; i < 100; i++)
        futures.push_back(std::async(std::launch::async, [i] { return word(i * 1000); }));
    for (int i = 0; i < 100; i++)
        CHECK(futures[i].get() == word(i * 1000), "future %d", i);
}

int main()
{
    for (uint64_t round = 0; round < 3; round++) {
        std::vector<std::thread> threads;
        for (uint64_t seed = 1; seed <= 3; seed++)
            threads.emplace_back(worker, seed + 10 * round);
        worker(99);
        for (auto &thread : threads)
            thread.join();
        across_threads();
    }
    puts("containers: nothing lost, nothing overwritten");
    return 0;
}
