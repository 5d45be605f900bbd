/* Mappings come and go for ever without using up addresses, maps or memory. */
#include "check.h"

static size_t resident(void)
{
    size_t total, pages;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%zu %zu", &total, &pages) == 2, "statm");
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t maps(void)
{
    size_t lines = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    CHECK(file != NULL, "maps");
    for (int c; (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    fclose(file);
    return lines;
}

int main(void)
{
    struct rlimit limit = { 4000 * MIB, 4000 * MIB };
    setrlimit(RLIMIT_AS, &limit);
    size_t before = 0, maps_before = 0;
    for (int round = 0; round < 20000; round++) {
        if (round == 100) {
            before = resident();
            maps_before = maps();
        }
        char *block = malloc((size_t)(64 + round % 900) * MIB);
        CHECK(block != NULL, "round %d", round);
        block[0] = 1;
        free(block);
        block = malloc(64 * KIB);
        CHECK(block != NULL, "round %d", round);
        block = realloc(block, 2 * MIB);
        CHECK(block != NULL, "round %d", round);
        free(block);
    }
    CHECK(resident() < before + 4 * MIB, "resident %zu KiB, %zu before", resident() / KIB, before / KIB);
    CHECK(maps() < maps_before + 20, "%zu maps, %zu before", maps(), maps_before);
    puts("address_space: 20,000 rounds left nothing behind");
    return 0;
}
