/* The other ways to a child, beside allocating threads: vfork, posix_spawn, system, popen. The children run under the
 * library as well. */
#include "check.h"
#include <spawn.h>
#include <stdatomic.h>

extern char **environ;
static atomic_int stop;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument + 1;
    void *blocks[100] = {0};
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        size_t i = next_random(&random) % 100;
        free(blocks[i]);
        blocks[i] = malloc(program_size(&random));
        CHECK(blocks[i] != NULL, "a block beside children");
    }
    for (int i = 0; i < 100; i++)
        free(blocks[i]);
    return NULL;
}

static void by_vfork(void)
{
    char *arguments[] = {"sh", "-c", "exit 0", NULL};
    pid_t pid = vfork();
    CHECK(pid >= 0, "vfork");
    if (pid == 0) {
        execv("/bin/sh", arguments);
        _exit(127);
    }
    reap(pid, "a child by vfork");
    pid = vfork();
    CHECK(pid >= 0, "vfork");
    if (pid == 0)
        _exit(0);
    reap(pid, "a child by vfork that only ends");
}

static void by_posix_spawn(void)
{
    char *arguments[] = {"sh", "-c", "exit 0", NULL};
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    int error = posix_spawnp(&pid, "sh", &actions, NULL, arguments, environ);
    CHECK(error == 0, "posix_spawn says %d", error);
    posix_spawn_file_actions_destroy(&actions);
    reap(pid, "a child by posix_spawn");
}

static void by_popen(int number)
{
    char command[64], line[64], expected[64];
    snprintf(command, sizeof command, "echo line %d", number);
    snprintf(expected, sizeof expected, "line %d\n", number);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL, "popen");
    CHECK(fgets(line, sizeof line, pipe) != NULL && strcmp(line, expected) == 0, "popen of %s", command);
    CHECK(pclose(pipe) == 0, "pclose of %s", command);
}

int main(void)
{
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        threads[i] = start(churn, (void *)i);
    for (int round = 0; round < 60; round++) {
        by_vfork();
        by_posix_spawn();
        CHECK(system("exit 3") >> 8 == 3, "system passes the exit status on");
        by_popen(round);
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        finish(threads[i]);
    puts("spawn: vfork, posix_spawn, system and popen beside allocating threads");
    return 0;
}
