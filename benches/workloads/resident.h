/* Resident memory of this process, read without allocating; figures for the driver. */

#ifndef TIERMALLOC_WORKLOAD_RESIDENT_H
#define TIERMALLOC_WORKLOAD_RESIDENT_H

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "common.h"

/* The field `name` of /proc/self/status, in KiB; `VmRSS` is what is resident now. The file is read in full
 * and the kernel's counters are exact there, unlike those of /proc/self/statm. */
static inline double status_kib(const char *name) {
    char text[8192];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (length <= 0) {
        fprintf(stderr, "/proc/self/status cannot be read\n");
        exit(5);
    }
    text[length] = '\0';
    const char *line = strstr(text, name);
    return line == NULL ? 0 : (double)atol(line + strlen(name) + 1);
}

static inline double resident_kib(void) { return status_kib("VmRSS"); }

/* Seconds of a clock. */
static inline double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Zeroed memory that is not the allocator's, so that what the program itself needs is not counted as its. */
static inline void *aside(size_t size) {
    void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (block == MAP_FAILED) must(NULL);
    return block;
}

/* A figure: its name, how much, of what. */
static inline void figure(const char *name, double value, const char *unit) {
    printf("%s\t%.6g\t%s\n", name, value, unit);
}

#endif
