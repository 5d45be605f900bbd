# g++ -O2 on C++ full of templates and containers.
# `gcc.sh prepare SCALE` once, `gcc.sh run SCALE` is measured.
set -euo pipefail

if [ "$1" = prepare ]; then
    parts=$(awk -v scale="$2" 'BEGIN { printf "%d", 2 * scale + 1 }')
    {
        cat <<'CPP'
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>
template <int N> struct Item { int key = N; std::string name = std::to_string(N); };
CPP
        for part in $(seq 1 "$parts"); do
            cat <<CPP
namespace part$part {
template <int... Ns> long use(std::integer_sequence<int, Ns...>) {
    std::tuple<std::map<int, Item<Ns + $part * 10>>...> maps;
    ((std::get<Ns>(maps)[Ns].key += Ns), ...);
    std::vector<std::function<long(long)>> functions;
    (functions.push_back([](long x) { return x * $part + Ns; }), ...);
    long total = 0;
    for (auto &function : functions) total = function(total) % 1000003;
    std::vector<std::unique_ptr<Item<$part>>> items;
    for (int i = 0; i < 9; i++) items.push_back(std::make_unique<Item<$part>>());
    std::sort(items.begin(), items.end(), [](auto &a, auto &b) { return a->name < b->name; });
    return total + (static_cast<long>(std::get<Ns>(maps).size()) + ...);
}
long all() { return use(std::make_integer_sequence<int, 3>()); }
}
CPP
        done
    } >work.cpp
    exit
fi
exec g++ -std=c++17 -O2 -S work.cpp -o work.s
