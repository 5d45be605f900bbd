/*
 * empty [malloc]: an empty program that says what memory it has: VmSize, VmHWM and VmRSS in KiB.
 *
 * With the argument it has called malloc once before. It reads and writes by system calls alone, so
 * that nothing but that call goes through the allocator.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        volatile char *p = malloc(1);
        if (!p)
            return 1;
        *p = 1;
    }
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (length <= 0)
        return 1;
    static const char *const fields[] = {"VmSize:", "VmHWM:", "VmRSS:"};
    for (int i = 0; i < 3; i++) {
        const char *at = strstr(text, fields[i]);
        if (!at)
            return 1;
        at += strlen(fields[i]);
        at += strspn(at, " \t");
        if (write(1, at, strcspn(at, " ")) < 0 || write(1, "\n", 1) < 0)
            return 1;
    }
    return 0;
}
