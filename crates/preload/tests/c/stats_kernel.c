/* What may be resident, as the library has it, is what is resident, as the kernel has it: at least that, and not much
 * more. */
#include "figures.h"
#include <sys/prctl.h>

/* Resident bytes of mappings without a name: the heap, and some of the libraries' data. */
static size_t resident(void)
{
    static char text[1 << 20];
    int file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0, "/proc must be there");
    size_t length = 0;
    ssize_t got;
    while ((got = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(file);
    text[length] = 0;
    size_t sum = 0;
    int unnamed = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long from, to, offset, inode;
        char rights[8], device[16];
        int end = 0;
        if (sscanf(line, "%lx-%lx %7s %lx %15s %lu%n", &from, &to, rights, &offset, device, &inode, &end) == 6)
            unnamed = inode == 0 && strspn(line + end, " ") == strlen(line + end) && strncmp(rights, "rw-p", 4) == 0;
        else if (unnamed && strncmp(line, "Rss:", 4) == 0)
            sum += strtoul(line + 4, NULL, 10) * KIB;
    }
    return sum;
}

/* What is the kernel's and not the heap's: the libraries' data, the page map, stacks. */
static size_t others;

static void agree(const char *what, double closeness)
{
    struct tiermalloc_stats stats;
    tiermalloc_stats(&stats, sizeof stats);
    static struct picture picture;
    look(&picture);
    uint64_t untouched = 0;
    for (int i = 0; i < picture.count; i++)
        untouched += picture.classes[i].untouched;
    size_t committed = stats.committed - untouched, now = resident();
    /* The page map has nine bytes for each page of the heap; the rest is for what the libraries have, the rings of the quarantine among it. */
    size_t besides = others + stats.mapped / 8192 * 9 + 1 * MIB;
    CHECK(committed + besides >= now, "%s: %zu KiB are resident, %zu KiB may be", what, now / KIB, committed / KIB);
    CHECK((double)committed <= (double)now * closeness + 2.0 * MIB, "%s: %zu KiB are resident, %zu KiB may be", what,
          now / KIB, committed / KIB);
    printf("%s: %zu KiB resident, %zu KiB committed\n", what, now / KIB, committed / KIB);
}

enum { COUNT = 60000 };
static char *blocks[COUNT];

int main(void)
{
    /* Huge pages would be resident as a whole where a byte was touched. */
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    memset(blocks, 1, sizeof blocks);
    free(malloc(1));
    struct tiermalloc_stats stats;
    resident();
    tiermalloc_stats(&stats, sizeof stats);
    size_t now = resident();
    others = now > stats.live ? now - stats.live : 0;
    CHECK(others < 4 * MIB, "%zu KiB before anything was allocated", others / KIB);
    uint64_t state = 1;
    size_t total = 0;
    for (int i = 0; i < COUNT; i++) {
        size_t size = program_size(&state);
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL, "%zu bytes", size);
        memset(blocks[i], 1, size);
        total += size;
    }
    agree("all there", 1.15);
    for (int i = 0; i < COUNT; i += 3)
        free(blocks[i]);
    agree("a third freed", 1.15);
    malloc_trim(0);
    agree("trimmed", 1.15);
    for (int i = 0; i < COUNT; i++)
        if (i % 3 != 0)
            free(blocks[i]);
    malloc_trim(0);
    agree("all freed", 1.5);
    return 0;
}
