/* A program that closes all files that it has not opened, and opens others in their places: what the library writes at
 * the end must not land in one of them. Its argument is the file. */
#include "check.h"

int main(int count, char **arguments)
{
    CHECK(count == 2, "an argument");
    free(malloc(1));
    for (int file = 2; file < 1024; file++)
        close(file);
    for (int i = 0; i < 900; i++)
        if (open(arguments[1], O_WRONLY | O_CREAT | O_APPEND, 0600) < 0)
            break;
    close(2);
    return 0;
}
