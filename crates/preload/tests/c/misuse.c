/* One bug each. The program writes the pointer that it is about to misuse to stdout; then it must die by SIGABRT with one
 * line about it on stderr. `survived` on stdout means that nobody noticed. Argument: the bug.
 *
 * Bugs that only show when an object reaches its span are pushed there: they happen in a thread, among more objects of
 * the class than all caches together may keep, before the thread ends and the heap is trimmed.
 */
#include "check.h"
#include <signal.h>
#include <sys/mman.h>

static char in_data[64] __attribute__((aligned(16))) = "not from malloc";
static const char in_rodata[64] __attribute__((aligned(16))) = "nor this";

/* The pointer, before anything happens to it. No stdio: that would allocate in between. */
static void *announced(void *pointer)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%p\n", pointer);
    CHECK(write(1, text, length) == length, "stdout");
    return pointer;
}

static void through_a_span(size_t size, size_t count, size_t into, int times)
{
    void **blocks = malloc(count * sizeof *blocks);
    CHECK(blocks != NULL, "a table");
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        CHECK(blocks[i] != NULL, "%zu bytes", size);
    }
    char *victim = (char *)announced((char *)blocks[count / 2] + into);
    for (int time = 0; time < times; time++)
        free(victim);
    for (size_t i = 0; i < count; i++)
        if (i != count / 2)
            free(blocks[i]);
    free(blocks);
}

struct bug {
    size_t size, count, into;
    int times;
};

static void *in_a_thread(void *argument)
{
    struct bug *bug = argument;
    through_a_span(bug->size, bug->count, bug->into, bug->times);
    return NULL;
}

static void deferred(size_t size, size_t count, size_t into, int times)
{
    struct bug bug = {size, count, into, times};
    finish(start(in_a_thread, &bug));
    malloc_trim(0);
}

static void *own_mapping(void)
{
    void *page = mmap(NULL, 1 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED, "a mapping of the program's own");
    return page;
}

static void misuse(const char *bug)
{
    char on_stack[64] __attribute__((aligned(16)));
    char *block;
    memset(on_stack, 1, sizeof on_stack);
    free(malloc(100));
    if (strcmp(bug, "stack") == 0) {
        free(announced(on_stack + 16));
    } else if (strcmp(bug, "data") == 0) {
        free(announced(in_data));
    } else if (strcmp(bug, "rodata") == 0) {
        free(announced((void *)(uintptr_t)in_rodata));
    } else if (strcmp(bug, "code") == 0) {
        free(announced((void *)((uintptr_t)&misuse & ~(uintptr_t)15)));
    } else if (strcmp(bug, "mapping") == 0) {
        free(announced((char *)own_mapping() + 4096));
    } else if (strcmp(bug, "low") == 0) {
        free(announced((void *)0x10));
    } else if (strcmp(bug, "kernel") == 0) {
        free(announced((void *)(uintptr_t)0xffffffffff600010u));
    } else if (strcmp(bug, "non-canonical") == 0) {
        free(announced((void *)(uintptr_t)0x8000dead0000beefu));
    } else if (strcmp(bug, "high") == 0) {
        free(announced((void *)(uintptr_t)0x00007ffffffff000u));
    } else if (strcmp(bug, "middle-small") == 0) {
        deferred(64, 60000, 16, 1);
    } else if (strcmp(bug, "middle-small-odd") == 0) {
        deferred(48, 60000, 1, 1);
    } else if (strcmp(bug, "middle-medium") == 0) {
        deferred(20000, 1000, 4096, 1);
    } else if (strcmp(bug, "middle-large") == 0) {
        block = malloc(600 * KIB);
        free(announced(block + 64 * KIB));
    } else if (strcmp(bug, "near-start-of-large") == 0) {
        block = malloc(600 * KIB);
        free(announced(block + 16));
    } else if (strcmp(bug, "middle-huge") == 0) {
        block = malloc(300 * MIB);
        free(announced(block + 150 * MIB));
    } else if (strcmp(bug, "free-span") == 0) {
        /* Once part of a large block, now of nothing. */
        block = malloc(900 * KIB);
        free(block);
        free(announced(block + 300 * KIB));
    } else if (strcmp(bug, "double-large") == 0) {
        block = malloc(600 * KIB);
        free(block);
        free(announced(block));
    } else if (strcmp(bug, "double-huge") == 0) {
        block = malloc(300 * MIB);
        free(block);
        free(announced(block));
    } else if (strcmp(bug, "double-small") == 0) {
        deferred(64, 60000, 0, 2);
    } else if (strcmp(bug, "double-medium") == 0) {
        deferred(20000, 1000, 0, 2);
    } else if (strcmp(bug, "realloc-foreign") == 0) {
        CHECK(realloc(announced(on_stack + 16), 100) != on_stack, "what realloc gave");
    } else if (strcmp(bug, "realloc-mapping") == 0) {
        CHECK(realloc(announced(own_mapping()), 5000) != on_stack, "what realloc gave");
    } else if (strcmp(bug, "realloc-middle-large") == 0) {
        block = malloc(600 * KIB);
        CHECK(realloc(announced(block + 64 * KIB), 700 * KIB) != on_stack, "what realloc gave");
    } else if (strcmp(bug, "realloc-freed-large") == 0) {
        block = malloc(600 * KIB);
        free(block);
        CHECK(realloc(announced(block), 700 * KIB) != on_stack, "what realloc gave");
    } else if (strcmp(bug, "reallocarray-foreign") == 0) {
        CHECK(reallocarray(announced(in_data), 10, 10) != on_stack, "what reallocarray gave");
    } else if (strcmp(bug, "in-a-child") == 0) {
        /* The message and the abort work in a child as well. */
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0)
            free(announced(on_stack + 16));
        int status;
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
            abort();
    } else if (strcmp(bug, "without-memory") == 0) {
        /* No memory to say it with. */
        struct rlimit limit = {1, 1};
        setrlimit(RLIMIT_AS, &limit);
        free(announced(on_stack + 16));
    } else {
        CHECK(0, "no bug is called %s", bug);
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: misuse BUG");
    misuse(arguments[1]);
    ssize_t written = write(1, "survived\n", 9);
    return written == 9 ? 0 : 1;
}
