/* A signal's handler ends the program in the middle of malloc or free, as often as the argument says; that is not to be taken
   for a mistake. */
#include "check.h"
#include <signal.h>
#include <sys/time.h>

static void handler(int signal)
{
    (void)signal;
    exit(0);
}

int main(int count, char **words)
{
    int rounds = count > 1 ? atoi(words[1]) : 200;
    for (int round = 0; round < rounds; round++) {
        pid_t child = fork();
        if (child == 0) {
            static void *blocks[64];
            signal(SIGALRM, handler);
            struct itimerval once = { { 0, 0 }, { 0, 500 + round * 37 % 1500 } };
            setitimer(ITIMER_REAL, &once, NULL);
            for (;;)
                for (int i = 0; i < 64; i++) {
                    free(blocks[i]);
                    blocks[i] = malloc(32);
                }
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "round %d: status %d", round, status);
    }
    printf("exit_in_handler: %d programs ended well\n", rounds);
    return 0;
}
