/* Signals interrupt malloc and free everywhere, thousands of times: by a timer of the process, by a timer of CPU time, or
 * sent to each thread. The handler does not allocate; it only looks at errno and at memory. Nothing may be corrupted, and
 * an interrupted system call may not turn into a failure. Argument: alarm, prof or kill. */
#include "check.h"
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { THREADS = 3, SWAPS = 400000 };

static atomic_long signals;
static atomic_int working = THREADS;
static volatile char scribble[256];

static void handler(int number)
{
    int error = errno;
    signals++;
    for (size_t i = 0; i < sizeof scribble; i++)
        scribble[i] = (char)number;
    errno = error;
}

static void *churn(void *argument)
{
    enum { LIVE = 200 };
    void *blocks[LIVE] = {0};
    size_t sizes[LIVE];
    uint64_t random = (uintptr_t)argument + 1;
    for (int step = 0; step < SWAPS; step++) {
        uint64_t r = next_random(&random) >> 8;
        size_t i = r % LIVE;
        if (blocks[i]) {
            CHECK(holds(blocks[i], sizes[i] < 256 ? sizes[i] : 256, i), "a block of %zu bytes under signals", sizes[i]);
            if (r >> 20 & 7)
                free(blocks[i]);
            else {
                sizes[i] = sizes[i] / 2 + 1;
                blocks[i] = realloc(blocks[i], sizes[i]);
                CHECK(holds(blocks[i], sizes[i] < 256 ? sizes[i] : 256, i), "a block that shrank under signals");
                fill(blocks[i], sizes[i] < 256 ? sizes[i] : 256, i);
                continue;
            }
        }
        sizes[i] = program_size(&random);
        /* Now and then one that goes to the system and back. */
        if (step % 2000 == 0)
            sizes[i] = 3 * MIB;
        errno = 1234;
        blocks[i] = malloc(sizes[i]);
        CHECK(blocks[i] != NULL, "%zu bytes under signals", sizes[i]);
        CHECK(errno == 1234, "malloc under signals changed errno");
        fill(blocks[i], sizes[i] < 256 ? sizes[i] : 256, i);
    }
    for (int i = 0; i < LIVE; i++)
        free(blocks[i]);
    working--;
    return NULL;
}

static void set_timer(int which, long microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(which, &timer, NULL) == 0, "a timer");
}

int main(int count, char **arguments)
{
    CHECK(count == 2, "usage: signal_storm alarm|prof|kill");
    const char *kind = arguments[1];
    struct sigaction action = {.sa_handler = handler};
    /* No SA_RESTART: a system call inside the allocator sees EINTR. */
    int number = strcmp(kind, "alarm") == 0 ? SIGALRM : strcmp(kind, "prof") == 0 ? SIGPROF : SIGUSR1;
    sigaction(number, &action, NULL);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        threads[i] = start(churn, (void *)i);
    if (number == SIGALRM)
        set_timer(ITIMER_REAL, 200);
    else if (number == SIGPROF)
        set_timer(ITIMER_PROF, 100);
    while (number == SIGUSR1 && working == THREADS) {
        /* Until the first thread is done: a thread that was not joined may be sent signals. */
        for (int i = 0; i < THREADS; i++)
            pthread_kill(threads[i], SIGUSR1);
        usleep(50);
    }
    for (int i = 0; i < THREADS; i++)
        finish(threads[i]);
    if (number == SIGALRM)
        set_timer(ITIMER_REAL, 0);
    else if (number == SIGPROF)
        set_timer(ITIMER_PROF, 0);
    long seen = signals;
    CHECK(seen > 10, "%ld signals are no storm", seen);
    printf("signals, %s: %ld of them, nothing corrupted\n", kind, seen);
    return 0;
}
