/* strings: text that is split, changed, joined and sorted, as in any program that reads and writes text.
 *
 * Stresses: std::string beyond the length that fits in itself, vectors that grow by doubling, temporaries,
 * sized delete. */

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "common.h"

namespace {

std::string line_of(rng &rng) {
    std::string line;
    for (uint32_t fields = 4 + rng_below(&rng, 12), field = 0; field < fields; field++) {
        if (field > 0) line += ';';
        size_t letters = rng_skewed(&rng, 4, 64);
        for (size_t i = 0; i < letters; i++) line += static_cast<char>('a' + rng_below(&rng, 26));
    }
    return line;
}

std::vector<std::string> split(const std::string &line) {
    std::vector<std::string> fields;
    size_t from = 0;
    for (size_t at; (at = line.find(';', from)) != std::string::npos; from = at + 1)
        fields.push_back(line.substr(from, at - from));
    fields.push_back(line.substr(from));
    return fields;
}

std::string quote(const std::string &field) { return '"' + field + "\" (" + std::to_string(field.size()) + ')'; }

}  // namespace

int main(int argc, char **argv) {
    work work = work_of(argc, argv);
    rng rng = {81};
    uint64_t checksum = 0;
    for (uint64_t page = 0, pages = scaled(work, 140); page < pages; page++) {
        std::vector<std::string> lines;
        for (int i = 0; i < 600; i++) lines.push_back(line_of(rng));
        std::vector<std::string> words;
        for (const auto &line : lines)
            for (auto &field : split(line)) words.push_back(quote(field));
        std::sort(words.begin(), words.end());
        words.erase(std::unique(words.begin(), words.end()), words.end());
        std::ostringstream out;
        std::string joined;
        for (const auto &word : words) {
            out << word << '\n';
            joined += word + ' ';
        }
        checksum = checksum * 31 + out.str().size() + joined.size() + static_cast<unsigned char>(words.front()[1]);
    }
    return finish(checksum);
}
