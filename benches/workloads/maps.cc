/* maps: trees and hash tables of records, filled, searched, thinned out and thrown away.
 *
 * An ordered map from numbers to records and a hash table from names to lists of numbers, as an in-memory
 * index has them: entries come and go at random for a while, then everything goes at once.
 *
 * Stresses: nodes of 40 to 100 bytes of random age, hash tables that rehash, frees in the order of a tree. */

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "common.h"

namespace {

struct record {
    std::string name;
    uint64_t value;
};

uint64_t generation(rng &rng, uint64_t steps) {
    constexpr uint32_t range = 120000;
    std::map<uint32_t, record> by_number;
    std::unordered_map<std::string, std::vector<uint32_t>> by_name;
    uint64_t checksum = 0;
    for (uint64_t step = 0; step < steps; step++) {
        uint32_t number = rng_below(&rng, range);
        std::string name = "name of " + std::to_string(number % 30011);
        switch (rng_below(&rng, 6)) {
        case 0:
        case 1:
        case 2:
            if (by_number.emplace(number, record{name, step}).second) by_name[name].push_back(number);
            break;
        case 3:
        case 4:
            if (auto found = by_number.find(number); found != by_number.end()) {
                auto list = by_name.find(found->second.name);
                checksum += list->second.size();
                for (size_t i = 0; i < list->second.size(); i++)
                    if (list->second[i] == number) {
                        list->second[i] = list->second.back();
                        list->second.pop_back();
                        break;
                    }
                if (list->second.empty()) by_name.erase(list);
                by_number.erase(found);
            }
            break;
        default:
            for (auto at = by_number.lower_bound(number), end = by_number.end(); at != end; ++at) {
                checksum += at->first ^ at->second.value;
                if (checksum % 5 == 0) break;
            }
        }
    }
    return checksum * 31 + by_number.size() + by_name.size();
}

}  // namespace

int main(int argc, char **argv) {
    work work = work_of(argc, argv);
    rng rng = {91};
    uint64_t checksum = 0, steps = scaled(work, 250e3);
    for (int i = 0; i < 4; i++) checksum = checksum * 31 + generation(rng, steps);
    return finish(checksum);
}
