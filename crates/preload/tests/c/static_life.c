/* Linked with libtiermalloc.a, static or not: stdio, threads, fork, environment, and the allocator's own message when
 * asked for with the argument `probe`, which shows that it is ours that answers. */
#include "check.h"

static void *body(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    void *blocks[200] = {0};
    size_t sizes[200];
    for (int step = 0; step < 20000; step++) {
        size_t i = next_random(&random) % 200;
        if (blocks[i]) {
            CHECK(holds(blocks[i], sizes[i], i), "a block of %zu bytes", sizes[i]);
            free(blocks[i]);
        }
        sizes[i] = program_size(&random) % (16 * KIB);
        blocks[i] = i % 10 ? malloc(sizes[i]) : memalign(256, sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes", sizes[i]);
        fill(blocks[i], sizes[i], i);
    }
    for (int i = 0; i < 200; i++)
        free(blocks[i]);
    return strdup("a block that the joiner frees");
}

static void threads(void)
{
    pthread_t some[6];
    for (size_t i = 0; i < 6; i++)
        some[i] = start(body, (void *)i);
    for (int i = 0; i < 6; i++) {
        char *text = finish(some[i]);
        CHECK(strcmp(text, "a block that the joiner frees") == 0, "%s", text);
        free(text);
    }
}

static void at_exit(void)
{
    free(malloc(1000));
}

int main(int count, char **arguments)
{
    if (count > 1 && strcmp(arguments[1], "probe") == 0) {
        static char not_ours[64];
        free(not_ours + 16);
        return 0;
    }
    atexit(at_exit);
    char *text = NULL;
    CHECK(asprintf(&text, "%d %s %.3f", 12, "words", 1.5) > 0 && strcmp(text, "12 words 1.500") == 0, "asprintf");
    free(text);
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    for (int i = 0; i < 10000; i++)
        fprintf(stream, "%d ", i);
    fclose(stream);
    CHECK(length == 48890, "%zu characters in memory", length);
    free(text);
    threads();
    for (int round = 0; round < 10; round++) {
        pthread_t other = start(body, (void *)99);
        pid_t pid = fork();
        CHECK(pid >= 0, "fork");
        if (pid == 0) {
            alarm(20);
            threads();
            exit(0);
        }
        reap(pid, "a child");
        free(finish(other));
    }
    setenv("TIERMALLOC_TEST", "a value", 1);
    char *copy = realloc(strdup(getenv("TIERMALLOC_TEST")), 5 * MIB);
    CHECK(copy && strcmp(copy, "a value") == 0, "realloc");
    CHECK(malloc_usable_size(copy) >= 5 * MIB, "usable size");
    free(copy);
    void *zeros = calloc(1000, 1000);
    CHECK(zeros && is_zero(zeros, 1000000), "calloc");
    free(zeros);
    errno = 0;
    CHECK(malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM, "an absurd size");
    puts("linked: stdio, threads, fork and exit");
    return 0;
}
