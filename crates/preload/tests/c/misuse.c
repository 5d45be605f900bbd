/* Frees and reallocs of what is no allocation, and mistakes that only show when an object reaches its span. These are pushed
 * there: they happen in a thread, among more objects of the class than all caches together may keep, before the thread
 * ends and the heap is trimmed.
 */
#include "misuse.h"
#include <signal.h>
#include <sys/mman.h>

static char in_data[64] __attribute__((aligned(16))) = "not from malloc";
static const char in_rodata[64] __attribute__((aligned(16))) = "nor this";

static void frees(const volatile void *pointer)
{
    free(announced(pointer));
    past();
}

static void reallocs(const volatile void *pointer, size_t size)
{
    void *moved = realloc(announced(pointer), size);
    CHECK(moved != pointer, "what realloc gave");
    past();
}

static void of_the_stack(void)
{
    char on_stack[64] __attribute__((aligned(16)));
    memset(on_stack, 1, sizeof on_stack);
    frees(on_stack + 16);
}

static void of_a_global(void) { frees(in_data); }
static void of_a_constant(void) { frees(in_rodata); }
static void of_code(void) { frees((void *)((uintptr_t)&of_the_stack & ~(uintptr_t)15)); }
static void of_a_low_address(void) { frees((void *)0x10); }
static void of_a_kernel_address(void) { frees((void *)(uintptr_t)0xffffffffff600010u); }
static void of_a_non_canonical_address(void) { frees((void *)(uintptr_t)0x8000dead0000beefu); }
static void of_the_last_user_page(void) { frees((void *)(uintptr_t)0x00007ffffffff000u); }

static void *own_mapping(void)
{
    void *page = mmap(NULL, 1 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED, "a mapping of the program's own");
    return page;
}

static void of_a_mapping(void) { frees((char *)own_mapping() + 4096); }

struct among {
    size_t size, count, into;
    int times;
};

static void *through_a_span(void *argument)
{
    struct among *among = argument;
    void **blocks = malloc(among->count * sizeof *blocks);
    CHECK(blocks != NULL, "a table");
    for (size_t i = 0; i < among->count; i++) {
        blocks[i] = malloc(among->size);
        CHECK(blocks[i] != NULL, "%zu bytes", among->size);
    }
    char *victim = announced((char *)blocks[among->count / 2] + among->into);
    for (int time = 0; time < among->times; time++)
        free(victim);
    past();
    for (size_t i = 0; i < among->count; i++)
        if (i != among->count / 2)
            free(blocks[i]);
    free(blocks);
    return NULL;
}

static void deferred(size_t size, size_t count, size_t into, int times)
{
    struct among among = {size, count, into, times};
    finish(start(through_a_span, &among));
    malloc_trim(0);
}

static void middle_of_small(void) { deferred(64, 60000, 16, 1); }
static void odd_middle_of_small(void) { deferred(48, 60000, 1, 1); }
static void middle_of_medium(void) { deferred(20000, 1000, 4096, 1); }
static void twice_small(void) { deferred(64, 60000, 0, 2); }
static void twice_medium(void) { deferred(20000, 1000, 0, 2); }

static void middle_of_large(void) { frees((char *)malloc(600 * KIB) + 64 * KIB); }
static void near_the_start_of_large(void) { frees((char *)malloc(600 * KIB) + 16); }
static void middle_of_huge(void) { frees((char *)malloc(300 * MIB) + 150 * MIB); }

/* Once part of a large block, now of nothing. */
static void inside_a_free_span(void)
{
    char *block = malloc(900 * KIB);
    free(block);
    frees(block + 300 * KIB);
}

static void twice(size_t size)
{
    char *block = malloc(size);
    free(block);
    frees(block);
}

static void twice_large(void) { twice(600 * KIB); }
static void twice_huge(void) { twice(300 * MIB); }

static void realloc_of_a_global(void) { reallocs(in_data, 100); }
static void realloc_of_a_mapping(void) { reallocs(own_mapping(), 5000); }
static void realloc_of_the_middle_of_large(void) { reallocs((char *)malloc(600 * KIB) + 64 * KIB, 700 * KIB); }

static void realloc_of_a_freed_large(void)
{
    char *block = malloc(600 * KIB);
    free(block);
    reallocs(block, 700 * KIB);
}

static void reallocarray_of_a_global(void)
{
    CHECK(reallocarray(announced(in_data), 10, 10) != in_data, "what reallocarray gave");
    past();
}

/* The message and the abort work in a child as well. */
static void in_a_child(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0, "fork");
    if (pid == 0)
        of_the_stack();
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
        abort();
}

/* No memory to say it with. */
static void without_memory(void)
{
    struct rlimit limit = {1, 1};
    setrlimit(RLIMIT_AS, &limit);
    of_the_stack();
}

static const struct bug bugs[] = {
    {"stack", of_the_stack},
    {"data", of_a_global},
    {"rodata", of_a_constant},
    {"code", of_code},
    {"mapping", of_a_mapping},
    {"low", of_a_low_address},
    {"kernel", of_a_kernel_address},
    {"non-canonical", of_a_non_canonical_address},
    {"high", of_the_last_user_page},
    {"middle-small", middle_of_small},
    {"middle-small-odd", odd_middle_of_small},
    {"middle-medium", middle_of_medium},
    {"middle-large", middle_of_large},
    {"near-start-of-large", near_the_start_of_large},
    {"middle-huge", middle_of_huge},
    {"free-span", inside_a_free_span},
    {"double-small", twice_small},
    {"double-medium", twice_medium},
    {"double-large", twice_large},
    {"double-huge", twice_huge},
    {"realloc-foreign", realloc_of_a_global},
    {"realloc-mapping", realloc_of_a_mapping},
    {"realloc-middle-large", realloc_of_the_middle_of_large},
    {"realloc-freed-large", realloc_of_a_freed_large},
    {"reallocarray-foreign", reallocarray_of_a_global},
    {"in-a-child", in_a_child},
    {"without-memory", without_memory},
};

int main(int count, char **arguments)
{
    return run_bug(bugs, sizeof bugs / sizeof *bugs, count, arguments);
}
