/* A signal's handler forks, as crash handlers do, while it interrupts malloc and free of a program with one thread. */
#include "check.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t forks;

static void handler(int signal)
{
    (void)signal;
    pid_t child = fork();
    if (child == 0)
        _exit(7);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %d", status);
    forks++;
}

int main(void)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = { { 0, 997 }, { 0, 997 } };
    setitimer(ITIMER_REAL, &every, NULL);
    while (forks < 500) {
        void *large = malloc(300000), *small = malloc(5000);
        CHECK(large && small, "malloc");
        free(large);
        free(small);
    }
    puts("fork_in_handler: 500 forks, no deadlock");
    return 0;
}
