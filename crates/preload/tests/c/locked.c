/* A program that locks its memory after its first allocations (mlockall, now and for the future) goes on at the same
 * cost, and neither its address space nor the number of its mappings grows with what it frees. The kernel does on locked
 * pages only a part of what it does on others. */
#include "check.h"
#include <sys/mman.h>

enum { KEPT = 64, WARM_UP = 500, ROUNDS = 2500, MOST_FAULTS = 150, ENOUGH = 256 << 20 };
/* Blocks at one time, that many times, and of other addresses each time. */
enum { WAVE = 5000, WAVES = 5, MOST_MAPPINGS = 1000 };

static long faults(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0, "figures");
    return usage.ru_minflt;
}

static long mapped(void)
{
    char text[128];
    int file = open("/proc/self/statm", O_RDONLY);
    CHECK(file >= 0, "statm");
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    CHECK(length > 0, "statm");
    text[length] = '\0';
    return atol(text) * sysconf(_SC_PAGESIZE);
}

static int mappings(void)
{
    static char text[1 << 16];
    int lines = 0, file = open("/proc/self/maps", O_RDONLY);
    CHECK(file >= 0, "maps");
    for (ssize_t length; (length = read(file, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < length; i++)
            lines += text[i] == '\n';
    close(file);
    return lines;
}

int main(void)
{
    static char *kept[KEPT];
    static size_t sizes[KEPT];
    /* Seen by nobody, a compiler would leave it out. */
    void *volatile first = malloc(10);
    free(first);
    /* As much as the blocks below take, whatever the allocator: closed, so that it costs no memory. */
    int may = mlockall(MCL_CURRENT | MCL_FUTURE) == 0;
    void *room = may ? mmap(NULL, ENOUGH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (room == MAP_FAILED) {
        munlockall();
        puts("locked: not allowed here");
        return 0;
    }
    munmap(room, ENOUGH);
    long before = 0, faults_before = 0;
    for (int round = 0; round < ROUNDS; round++) {
        if (round == WARM_UP) {
            before = mapped();
            faults_before = faults();
        }
        int i = round % KEPT;
        if (kept[i] != NULL)
            for (size_t at = 0; at < sizes[i]; at += 997)
                CHECK(kept[i][at] == (char)i, "block %d, byte %zu", i, at);
        free(kept[i]);
        sizes[i] = 1 + (size_t)round * 7919 % (round % 2 == 0 ? 400000 : 4000);
        kept[i] = malloc(sizes[i]);
        CHECK(kept[i] != NULL, "%zu bytes in round %d", sizes[i], round);
        memset(kept[i], i, sizes[i]);
    }
    long growth = mapped() - before, each = (faults() - faults_before) / (ROUNDS - WARM_UP);
    CHECK(growth < (long)(64 * MIB), "%ld bytes more mapped", growth);
    CHECK(each < MOST_FAULTS, "%ld page faults for each block", each);
    static char *wave[WAVE];
    int most = 0;
    /* What comes from here on is not locked, what is there stays so. */
    CHECK(munlockall() == 0 && mlockall(MCL_CURRENT) == 0, "locking what there is");
    for (int round = 0; round < WAVES; round++) {
        for (int i = 0; i < WAVE; i++) {
            wave[i] = malloc(100 + (size_t)round * 37 % 4000);
            CHECK(wave[i] != NULL, "block %d of a wave", i);
            wave[i][0] = (char)i;
        }
        for (int i = 0; i < WAVE; i++) {
            CHECK(wave[i][0] == (char)i, "block %d of a wave", i);
            free(wave[i]);
        }
        int now = mappings();
        most = now > most ? now : most;
    }
    CHECK(most < MOST_MAPPINGS, "%d mappings", most);
    printf("locked: %d blocks, %ld KiB more mapped, %ld faults for each\n", ROUNDS, growth / 1024, each);
    return 0;
}
