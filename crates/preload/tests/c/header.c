/* tiermalloc.h in a program that knows nothing of the library: with it and without. C99 and C++11. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define TIERMALLOC_WEAK
#include "../../include/tiermalloc.h"

static int classes;

static void count(const struct tiermalloc_class_stats *stats, size_t size, void *data)
{
    if (data == (void *)&classes && size >= sizeof *stats && stats->size > 0)
        classes++;
}

int main(int count_of_arguments, char **arguments)
{
    int expected = count_of_arguments > 1 && strcmp(arguments[1], "with") == 0;
    int there = tiermalloc_stats && tiermalloc_each_class && tiermalloc_stats_write && tiermalloc_config_get && tiermalloc_version;
    if (there != expected)
        return 1;
    if (!there) {
        puts("without");
        return tiermalloc_stats || tiermalloc_version || tiermalloc_trim || tiermalloc_thread_idle || tiermalloc_thread_busy ||
               tiermalloc_set_soft_limit || tiermalloc_set_hard_limit;
    }
    void *volatile block = malloc(1);
    struct tiermalloc_stats stats;
    uint64_t large[100];
    char value[32], shorter[4];
    memset(&stats, 0xff, sizeof stats);
    memset(large, 0xff, sizeof large);
    if (tiermalloc_stats(&stats, sizeof stats) != 0 || stats.mapped == 0 || stats.live > stats.mapped)
        return 2;
    /* A program that knows less, and one that knows more. */
    uint64_t two[3] = {7, 7, 7};
    if (tiermalloc_stats((struct tiermalloc_stats *)(void *)two, 16) != 0 || two[0] == 7 || two[2] != 7)
        return 3;
    if (tiermalloc_stats((struct tiermalloc_stats *)(void *)large, sizeof large) != 0 || large[99] != 0 || large[0] == 0)
        return 4;
    if (tiermalloc_stats(NULL, sizeof stats) == 0 || tiermalloc_stats(&stats, 7) == 0)
        return 5;
    if (tiermalloc_each_class(count, (void *)&classes) != 0 || classes == 0 || tiermalloc_each_class(NULL, NULL) == 0)
        return 6;
    if (tiermalloc_config_get("pool", value, sizeof value) <= 0 || tiermalloc_config_get("nothing", value, sizeof value) != -1)
        return 7;
    if (tiermalloc_config_get("stats_interval", value, sizeof value) != 4 || strcmp(value, "none") != 0)
        return 8;
    if (tiermalloc_config_get("hard_limit", value, sizeof value) != 4 || strcmp(value, "none") != 0)
        return 14;
    if (tiermalloc_config_get("release_delay", value, sizeof value) != 5 || strcmp(value, "500ms") != 0)
        return 15;
    if (tiermalloc_config_get("stats_format", shorter, sizeof shorter) != 4 || strcmp(shorter, "tex") != 0)
        return 9;
    if (tiermalloc_config_get("cache_total", NULL, 0) <= 0 || tiermalloc_config_get(NULL, value, 1) != -1)
        return 10;
    if (tiermalloc_config_get("stats", value, sizeof value) <= 0)
        return 11;
    if (tiermalloc_stats_write(1, TIERMALLOC_JSON) != 0 || tiermalloc_stats_write(1, 3) == 0 || tiermalloc_stats_write(-1, 0) == 0)
        return 12;
    free(block);
    return strlen(tiermalloc_version()) < 5 ? 13 : 0;
}
