# C++ with many instantiations: containers, tuples, recursion in templates, regular expressions.
cat >templates.cpp <<'CPP'
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Fib { static constexpr long value = Fib<N - 1>::value + Fib<N - 2>::value; };
template <> struct Fib<0> { static constexpr long value = 0; };
template <> struct Fib<1> { static constexpr long value = 1; };

template <int N> struct Item { int key = N; std::string name = std::to_string(N); };

template <int... Ns> long use(std::integer_sequence<int, Ns...>) {
    std::tuple<std::map<int, Item<Ns>>...> maps;
    ((std::get<Ns>(maps)[Ns].key += Ns), ...);
    std::vector<std::function<long(long)>> functions;
    (functions.push_back([](long x) { return x + Fib<Ns + 40>::value; }), ...);
    long total = 0;
    for (auto &function : functions) total = function(total) % 1000003;
    return total + (static_cast<long>(std::get<Ns>(maps).size()) + ...);
}

using Value = std::variant<long, double, std::string, std::vector<int>>;
struct Size {
    std::size_t operator()(long) const { return 1; }
    std::size_t operator()(double) const { return 2; }
    std::size_t operator()(const std::string &s) const { return s.size(); }
    std::size_t operator()(const std::vector<int> &v) const { return v.size(); }
};

int main() {
    std::cout << use(std::make_integer_sequence<int, 8>()) << '\n';
    std::unordered_map<std::string, std::vector<std::shared_ptr<Value>>> table;
    for (int i = 0; i < 20000; i++) {
        auto &row = table["row" + std::to_string(i % 701)];
        row.push_back(std::make_shared<Value>(std::string(i % 40, 'x')));
        row.push_back(std::make_shared<Value>(std::vector<int>(i % 30)));
    }
    std::size_t total = 0;
    for (auto &[name, row] : table)
        for (auto &value : row) total += std::visit(Size(), *value);
    std::cout << total << '\n';
    std::string text;
    for (int i = 0; i < 3000; i++) text += "k" + std::to_string(i) + "=" + std::to_string(i * i) + ";";
    std::regex pair("k(\\d*7)=(\\d+);");
    std::cout << std::distance(std::sregex_iterator(text.begin(), text.end(), pair), {}) << '\n';
    try {
        std::vector<char> absurd;
        absurd.reserve(absurd.max_size());
        std::cout << "reserved\n";
    } catch (const std::bad_alloc &) {
        std::cout << "bad_alloc\n";
    }
    std::multiset<std::string> names;
    for (int i = 0; i < 5000; i++) names.insert(std::string(i % 17, 'n'));
    std::cout << names.count("nnnnn") << '\n';
}
CPP
g++ -std=c++17 -O2 -c templates.cpp -o templates.o
cksum <templates.o
g++ templates.o -o templates
./templates

# C with one long file of functions.
awk 'BEGIN {
    print "#include <stdio.h>"
    for (i = 0; i < 120; i++) {
        print "static unsigned f" i "(unsigned x) {"
        print "    unsigned table[] = {" i ", " i * 3 ", " i * 7 ", " i * i "};"
        print "    for (unsigned k = 0; k < 16; k++) x = (x ^ table[k & 3]) * 2654435761u + k;"
        print "    return x" (i ? " + f" i - 1 "(x >> 3)" : "") ";"
        print "}"
    }
    print "int main(void) { printf(\"%u\\n\", f119(1)); return 0; }"
}' >long.c
gcc -O2 -g -pipe -c long.c -o long.o
cksum <long.o
gcc long.o -o long
./long
