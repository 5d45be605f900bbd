/* lru-cache: a bounded cache whose entries drift in size.
 *
 * Keys are asked for with a skew: most requests are for few keys. A miss makes an entry of a few strings and
 * a payload, in place of what was used longest ago, until the whole is back under 48 MB. The typical size of
 * payloads moves from 100 bytes to 8 KiB and back in the course of the run, so that what one size has left
 * behind is of no use to the next, while old entries pin it.
 *
 * Stresses: fragmentation by sizes that change over time with objects of all ages; the figure to look at is
 * peak memory. */

#include <cmath>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "common.h"

namespace {

constexpr size_t capacity = 48u << 20;
constexpr uint32_t keys = 400000;

struct entry {
    std::string key, type;
    std::unique_ptr<uint8_t[]> payload;
    size_t size;
};

class cache {
public:
    /* Looks a key up; makes the entry if there is none. What the entry weighs, and whether it was there. */
    std::pair<size_t, bool> get(const std::string &key, size_t size) {
        if (auto found = index_.find(key); found != index_.end()) {
            order_.splice(order_.begin(), order_, found->second);
            return {found->second->size, true};
        }
        auto payload = std::make_unique<uint8_t[]>(size);
        touch(payload.get(), size, static_cast<uint8_t>(size));
        order_.push_front({key, "application/x-" + std::to_string(size % 97), std::move(payload), size});
        index_.emplace(key, order_.begin());
        held_ += size;
        while (held_ > capacity) {
            held_ -= order_.back().size;
            index_.erase(order_.back().key);
            order_.pop_back();
        }
        return {size, false};
    }

private:
    std::list<entry> order_;
    std::unordered_map<std::string, std::list<entry>::iterator> index_;
    size_t held_ = 0;
};

}  // namespace

int main(int argc, char **argv) {
    work work = work_of(argc, argv);
    rng rng = {71};
    cache cache;
    uint64_t checksum = 0, hits = 0, requests = scaled(work, 800e3);
    for (uint64_t i = 0; i < requests; i++) {
        /* The smaller of two draws, twice: skewed towards low keys. */
        uint32_t key = rng_below(&rng, keys);
        for (int draw = 0; draw < 3; draw++) {
            uint32_t other = rng_below(&rng, keys);
            if (other < key) key = other;
        }
        double phase = std::sin(static_cast<double>(i) / static_cast<double>(requests) * 6.2831853);
        auto typical = static_cast<size_t>(100.0 * std::pow(2.0, 3.2 * (phase + 1.0)));
        size_t size = rng_between(&rng, typical / 2, typical * 3 / 2);
        auto [weight, hit] = cache.get("user:" + std::to_string(key) + ":profile", size);
        checksum += weight;
        hits += hit;
    }
    return finish(checksum * 31 + hits);
}
