/* Programs end at once while the allocator's own thread is there: also where a signal's handler ends them in the middle
 * of malloc or free, for whose lock that thread may be waiting, and where they are children that the C library's fork
 * knows nothing of, in which there is no such thread. And it goes where the system takes no memory back. */
#include "check.h"
#include <dirent.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum { BLOCKS = 100000 };

static void leave_much(void)
{
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(100);
        CHECK(blocks[i] != NULL, "100 bytes");
        memset(blocks[i], 1, 100);
    }
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static int threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL, "/proc must be there");
    int count = 0;
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* Waits for a child that must end by itself, with status 0, within ten seconds. */
static void ends(pid_t child, const char *what)
{
    CHECK(child > 0, "%s: no child", what);
    double began = seconds();
    int status;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (seconds() - began > 10) {
            kill(child, SIGKILL);
            CHECK(0, "%s: it does not end", what);
        }
        usleep(1000);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %x", what, status);
}

static void end(int signal)
{
    (void)signal;
    exit(0);
}

static void interrupted(void)
{
    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        if (child == 0) {
            static void *blocks[4096];
            leave_much();
            signal(SIGALRM, end);
            struct itimerval once = { { 0, 0 }, { 0, 20000 + round * 37 % 1500 } };
            setitimer(ITIMER_REAL, &once, NULL);
            for (;;) {
                for (size_t i = 0; i < 4096; i++)
                    blocks[i] = malloc(16 + i * 37 % 3000);
                for (int i = 0; i < 4096; i++)
                    free(blocks[i]);
            }
        }
        ends(child, "a program that a handler ends");
    }
}

/* The kernel's fork, past all handlers. */
static pid_t bare_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void unannounced(void)
{
    leave_much();
    CHECK(threads() == 2, "%d threads: the allocator's own is to be there", threads());
    pid_t child = bare_fork();
    if (child == 0) {
        leave_much();
        exit(0);
    }
    ends(child, "a child of the kernel's fork");
    child = bare_fork();
    if (child == 0) {
        child = fork();
        if (child == 0) {
            leave_much();
            CHECK(threads() == 2, "%d threads in the child's child", threads());
            exit(0);
        }
        ends(child, "a child's child");
        exit(0);
    }
    ends(child, "a child of the kernel's fork that forks");
    child = vfork();
    if (child == 0) {
        leave_much();
        _exit(0);
    }
    ends(child, "a child that shares the memory");
}

static void locked(void)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        puts("locked memory: not allowed here");
        return;
    }
    leave_much();
    double began = seconds();
    while (threads() > 1) {
        CHECK(seconds() - began < 20, "the thread looks for ever at what the system does not take back");
        usleep(200 * 1000);
    }
}

int main(void)
{
    interrupted();
    unannounced();
    locked();
    puts("ends: nobody waits for the thread that gives memory back in vain");
    return 0;
}
