/* Forks beside another thread, while a library's handlers allocate before and after each fork. */
#include "check.h"

static volatile int stop;

static void *churn(void *unused)
{
    while (!stop) {
        free(malloc(300));
        free(malloc(70000));
    }
    return unused;
}

int main(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, churn, NULL) == 0, "thread");
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(3);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3, "status %d", status);
    }
    stop = 1;
    pthread_join(thread, NULL);
    puts("prefork: handlers of a library allocate around 100 forks");
    return 0;
}
