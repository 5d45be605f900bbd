/* What the programs of these tests share: a check that reports and ends without allocating, patterns that show whether
 * a block was touched by someone else, and figures of the own process.
 *
 * A program prints one line that says what held, and exits 0. A check that fails prints one line on stderr and exits 1
 * at once, wherever it is: in a handler, in a child, in a thread.
 */
#ifndef TIERMALLOC_TESTS_CHECK_H
#define TIERMALLOC_TESTS_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)
#define GIB ((size_t)1024 * 1024 * 1024)

/* The condition must hold; what follows says what was expected, printf-like. */
#define CHECK(condition, ...)                                      \
    do {                                                           \
        if (!(condition))                                          \
            check_failed(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)

__attribute__((format(printf, 4, 5), noreturn, unused))
static void check_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    int error = errno;
    char text[1024];
    const char *name = strrchr(file, '/');
    int length = snprintf(text, sizeof text, "%s:%d: %s: ", name ? name + 1 : file, line, condition);
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(text + length, sizeof text - length, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof text - 32)
        length = (int)sizeof text - 32;
    length += snprintf(text + length, 32, " (errno %d)\n", error);
    ssize_t written = write(2, text, length);
    (void)written;
    _exit(1);
}

/* True when the program runs on the system's own allocator. */
static inline int on_system(void)
{
    return getenv("TIERMALLOC_TEST_SYSTEM") != NULL;
}

/* A number sequence that is the same in every run. Each thread has its own state. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state ? *state : 0x9e3779b97f4a7c15u;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* Sizes as programs ask for them: mostly small, now and then big, rarely beyond 256 KiB. */
static inline size_t program_size(uint64_t *state)
{
    uint64_t r = next_random(state) >> 8;
    unsigned kind = (unsigned)(r % 1000);
    r >>= 12;
    if (kind < 750)
        return 1 + r % 256;
    if (kind < 950)
        return 1 + r % (4 * KIB);
    if (kind < 995)
        return 1 + r % (64 * KIB);
    return 1 + r % (512 * KIB);
}

/* Fills a block to its last byte with a pattern that its seed decides. */
static inline void fill(void *block, size_t size, uint64_t seed)
{
    unsigned char *bytes = (unsigned char *)block;
    uint64_t word = seed * 0x9e3779b97f4a7c15u + 0x1234567;
    size_t i = 0;
    for (; i + 8 <= size; i += 8, word += 0x0101010101010107u)
        memcpy(bytes + i, &word, 8);
    for (; i < size; i++)
        bytes[i] = (unsigned char)(word >> (8 * (i & 7)));
}

/* Whether the first `size` bytes are still what fill() made of them. */
static inline int holds(const void *block, size_t size, uint64_t seed)
{
    const unsigned char *bytes = (const unsigned char *)block;
    uint64_t word = seed * 0x9e3779b97f4a7c15u + 0x1234567;
    size_t i = 0;
    for (; i + 8 <= size; i += 8, word += 0x0101010101010107u)
        if (memcmp(bytes + i, &word, 8) != 0)
            return 0;
    for (; i < size; i++)
        if (bytes[i] != (unsigned char)(word >> (8 * (i & 7))))
            return 0;
    return 1;
}

/* Whether a block is nothing but zero bytes. */
static inline int is_zero(const void *block, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)block;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static inline int is_aligned(const void *block, size_t alignment)
{
    return ((uintptr_t)block & (alignment - 1)) == 0;
}

/* A figure of /proc/self/status, in KiB where it is one of memory ("VmRSS:", "Threads:"), read without stdio. */
static inline long status_kib(const char *field)
{
    char text[4096];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0, "/proc must be there");
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    CHECK(length > 0, "/proc/self/status must be readable");
    text[length] = 0;
    const char *line = strstr(text, field);
    CHECK(line != NULL, "no %s in /proc/self/status", field);
    return strtol(line + strlen(field), NULL, 10);
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* What is resident (KiB) as soon as that is within a bound, or after five seconds: what nobody uses goes back while the
 * program does something else, or nothing. */
static inline long resident_within(long bound)
{
    double began = seconds();
    long now;
    while ((now = status_kib("VmRSS:")) > bound && seconds() - began < 5)
        usleep(50 * 1000);
    return now;
}

/* Starts a thread on a small stack, so that a thousand of them, or an address space of 200 MiB, is no problem. */
static inline pthread_t start(void *(*body)(void *), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 * KIB);
    int error = pthread_create(&thread, &attributes, body, argument);
    CHECK(error == 0, "pthread_create says %d", error);
    pthread_attr_destroy(&attributes);
    return thread;
}

static inline void *finish(pthread_t thread)
{
    void *result;
    int error = pthread_join(thread, &result);
    CHECK(error == 0, "pthread_join says %d", error);
    return result;
}

/* Waits for a child that must end with status 0. */
static inline void reap(pid_t child, const char *what)
{
    int status;
    pid_t got;
    do
        got = waitpid(child, &status, 0);
    while (got < 0 && errno == EINTR);
    CHECK(got == child, "%s: waitpid", what);
    CHECK(!WIFSIGNALED(status), "%s: killed by signal %d%s", what, WTERMSIG(status),
          WTERMSIG(status) == 14 ? ", its own time limit: it hung" : "");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: exit status %d", what, WEXITSTATUS(status));
}

#endif
