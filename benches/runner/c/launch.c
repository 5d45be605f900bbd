/* Starts one program and says what it took: `launch REPORT SECONDS PROGRAM ARGUMENT...`.
 *
 * Why not start it from the driver? Because the kernel counts the peak resident memory of a process from
 * its fork on: a child that a driver of 20 MB starts has a peak of 20 MB, whatever it runs. This program is
 * linked statically and holds a few hundred KiB, less than anything that it starts.
 *
 * What is in BENCH_PRELOAD becomes LD_PRELOAD of the program, and of the program alone. REPORT gets one
 * line: how it ended (`exit N`, `signal N` or `late 0`), then wall time in ns, user and system time in us,
 * peak resident memory in KiB, minor and major page faults, voluntary and other context switches. Times and
 * memory are of the program and of those of its children that it has waited for.
 *
 * The program leads a process group of its own; what is left of the group when it ends, or when its
 * seconds are over, is killed. Exit status: 0 if the program was started, else 125. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile pid_t child;
static volatile sig_atomic_t late;

static void on_alarm(int signal_number) {
    (void)signal_number;
    late = 1;
    if (child > 0) kill(-child, SIGKILL);
}

/* Whoever interrupts us means the program. */
static void on_end(int signal_number) {
    if (child > 0) kill(-child, SIGKILL);
    _exit(128 + signal_number);
}

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long us(struct timeval time) { return time.tv_sec * 1000000LL + time.tv_usec; }

static int fail(const char *what) {
    fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
    return 125;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: launch REPORT SECONDS PROGRAM ARGUMENT...\n");
        return 125;
    }
    const char *preload = getenv("BENCH_PRELOAD");
    /* Closes itself when the program starts, and carries errno if it does not. */
    int started[2];
    if (pipe2(started, O_CLOEXEC) != 0) return fail("pipe");

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = on_end;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);

    long long began = now_ns();
    pid_t pid = fork();
    if (pid < 0) return fail("fork");
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (preload != NULL && preload[0] != '\0') setenv("LD_PRELOAD", preload, 1);
        unsetenv("BENCH_PRELOAD");
        execvp(argv[3], argv + 3);
        int error = errno;
        if (write(started[1], &error, sizeof error) < 0) _exit(126);
        _exit(127);
    }
    setpgid(pid, pid);
    child = pid;
    alarm((unsigned)atoi(argv[2]));

    int status = 0;
    struct rusage usage;
    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR) return fail("wait4");
    long long wall = now_ns() - began;
    alarm(0);
    kill(-pid, SIGKILL);

    close(started[1]);
    int error = 0;
    if (read(started[0], &error, sizeof error) == (ssize_t)sizeof error) {
        errno = error;
        return fail(argv[3]);
    }
    FILE *report = fopen(argv[1], "w");
    if (report == NULL) return fail(argv[1]);
    if (late)
        fprintf(report, "late 0");
    else if (WIFSIGNALED(status))
        fprintf(report, "signal %d", WTERMSIG(status));
    else
        fprintf(report, "exit %d", WEXITSTATUS(status));
    fprintf(report, " %lld %lld %lld %ld %ld %ld %ld %ld\n", wall, us(usage.ru_utime), us(usage.ru_stime),
            usage.ru_maxrss, usage.ru_minflt, usage.ru_majflt, usage.ru_nvcsw, usage.ru_nivcsw);
    return fclose(report) == 0 ? 0 : fail(argv[1]);
}
