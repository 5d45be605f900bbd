/* A program that allocates a little and then waits until a file is there, or does not come:
 *   stats_when FILE HOW LINES
 * HOW is a word for what it does meanwhile: `wait`, `signal` (to itself), `busy` (the same, and it allocates
 * on), `alloc` (only that), `own` (the signal is
 * its own), `child` (the same as signal in the child of a fork), `end` (nothing: it ends). FILE has %p for the process. */
#include "check.h"
#include <signal.h>

static volatile sig_atomic_t mine;

static void handler(int signal)
{
    (void)signal;
    mine = 1;
}

static int lines_of(const char *name)
{
    static char text[1 << 20];
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    int lines = 0;
    for (ssize_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    return lines;
}

int main(int count, char **arguments)
{
    CHECK(count == 4, "three arguments");
    const char *how = arguments[2];
    int wanted = atoi(arguments[3]);
    static void *blocks[1000];
    alarm(50);
    for (int i = 0; i < 1000; i++)
        blocks[i] = malloc(100);
    if (strcmp(how, "child") == 0) {
        pid_t child = fork();
        if (child != 0) {
            reap(child, "the child");
            return 0;
        }
    }
    char name[300], *at = strstr(arguments[1], "%p");
    if (at)
        snprintf(name, sizeof name, "%.*s%d%s", (int)(at - arguments[1]), arguments[1], (int)getpid(), at + 2);
    else
        snprintf(name, sizeof name, "%s", arguments[1]);
    CHECK(lines_of(name) == 0, "nothing is there yet");
    if (strcmp(how, "end") == 0)
        return 0;
    if (strcmp(how, "own") == 0)
        signal(SIGUSR2, handler);
    double began = seconds();
    int seen;
    while ((seen = lines_of(name)) < wanted) {
        CHECK(seconds() - began < 20, "%d lines in %s after %g seconds", seen, name, seconds() - began);
        if (strcmp(how, "wait") != 0 && strcmp(how, "alloc") != 0)
            kill(getpid(), SIGUSR2);
        if (strcmp(how, "busy") == 0 || strcmp(how, "alloc") == 0)
            for (int i = 0; i < 20000; i++) {
                free(blocks[i % 1000]);
                blocks[i % 1000] = malloc(16 + i % 5000);
            }
        if (strcmp(how, "own") == 0 && seconds() - began > 1.5)
            break;
        usleep(20 * 1000);
    }
    if (strcmp(how, "own") == 0)
        CHECK(mine && lines_of(name) == 0, "the signal is the program's");
    errno = 0;
    /* Without the library's end, and without anybody's at_exit. */
    _exit(0);
}
