/* A service that puts itself into the background, as they do: threads first, then fork, setsid, fork again, and in the
 * grandchild, whose ancestors are gone, a server with threads. It reports through a pipe. */
#include "check.h"
#include <stdatomic.h>

static atomic_int stop;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    void *blocks[200] = {0};
    size_t sizes[200];
    long rounds = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed) || rounds < 20000) {
        size_t i = next_random(&random) % 200;
        if (blocks[i]) {
            CHECK(holds(blocks[i], sizes[i], i), "a block of %zu bytes", sizes[i]);
            free(blocks[i]);
        }
        sizes[i] = program_size(&random) % 4096;
        blocks[i] = malloc(sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes", sizes[i]);
        fill(blocks[i], sizes[i], i);
        rounds++;
    }
    for (int i = 0; i < 200; i++)
        free(blocks[i]);
    return NULL;
}

static void serve(int report, void *configuration)
{
    CHECK(holds(configuration, 3000, 1), "what was read before going into the background");
    free(configuration);
    pthread_t threads[4];
    stop = 1;
    for (size_t i = 0; i < 4; i++)
        threads[i] = start(churn, (void *)i);
    for (int i = 0; i < 4; i++)
        finish(threads[i]);
    CHECK(write(report, "served", 6) == 6, "the report");
    /* The full way out: atexit handlers, stdio, destructors. */
    exit(0);
}

static void go_into_the_background(int report, void *configuration)
{
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child > 0) {
        reap(child, "the first child");
        return;
    }
    /* Out of the process group, so out of reach of the test's time limit: it has one of its own. */
    alarm(30);
    setsid();
    free(malloc(50));
    child = fork();
    CHECK(child >= 0, "the second fork");
    if (child > 0)
        _exit(0);
    alarm(30);
    serve(report, configuration);
}

int main(void)
{
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        threads[i] = start(churn, (void *)i);
    for (int round = 0; round < 12; round++) {
        int ends[2];
        char answer[16];
        CHECK(pipe(ends) == 0, "a pipe");
        void *configuration = malloc(3000);
        fill(configuration, 3000, 1);
        go_into_the_background(ends[1], configuration);
        close(ends[1]);
        ssize_t length = read(ends[0], answer, sizeof answer);
        CHECK(length == 6 && memcmp(answer, "served", 6) == 0, "the service ended without serving, round %d", round);
        close(ends[0]);
        CHECK(holds(configuration, 3000, 1), "the parent's own");
        free(configuration);
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        finish(threads[i]);
    puts("daemon: a grandchild without ancestors serves with threads");
    return 0;
}
