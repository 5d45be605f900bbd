/* A program that never allocates gets the signal for statistics, and has not ended by it:
 *   stats_unasked FILE */
#include "check.h"
#include <signal.h>

int main(int count, char **arguments)
{
    CHECK(count == 2, "one argument");
    alarm(50);
    raise(SIGUSR2);
    while (access(arguments[1], R_OK) != 0)
        usleep(1000);
    return 0;
}
