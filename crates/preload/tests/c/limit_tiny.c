/* Very little address space: 30 MiB for the program, its libraries and all its memory. What works, works; what does not
 * is null and ENOMEM; threads that cannot start say so; and it goes on. */
#include "limit.h"

static void *body(void *argument)
{
    struct list list = {NULL, 0, 0};
    (void)argument;
    for (int i = 0; i < 500 && add(&list, 100); i++)
        ;
    verify(&list);
    thin(&list, 1);
    return NULL;
}

static void threads_as_far_as_they_go(void)
{
    pthread_attr_t attributes;
    pthread_t threads[64];
    int count = 0, error = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 512 * KIB);
    while (count < 64 && (error = pthread_create(&threads[count], &attributes, body, NULL)) == 0)
        count++;
    CHECK(error == 0 || error == EAGAIN || error == ENOMEM, "pthread_create says %d", error);
    for (int i = 0; i < count; i++)
        finish(threads[i]);
    pthread_attr_destroy(&attributes);
}

int main(int count, char **arguments)
{
    (void)count;
    begin_again_limited(30 * MIB, arguments);
    size_t got = 0;
    for (int round = 0; round < 4; round++) {
        struct list list = {NULL, 0, 0};
        size_t sizes[] = {1000, 40, 300 * KIB, 5000};
        add_until_null(&list, sizes[round]);
        add_until_null(&list, SMALLEST);
        verify(&list);
        CHECK(list.bytes >= 8 * MIB, "only %zu KiB of 30 MiB, in blocks of %zu bytes", list.bytes / KIB, sizes[round]);
        got = got > list.bytes ? got : list.bytes;
        errno = 0;
        CHECK(malloc(25 * MIB) == NULL && errno == ENOMEM, "25 MiB where nothing is left");
        thin(&list, 2);
        verify(&list);
        thin(&list, 1);
        void *big = malloc(6 * MIB);
        CHECK(big != NULL, "6 MiB after all was freed, round %d", round);
        memset(big, 1, 6 * MIB);
        free(big);
        threads_as_far_as_they_go();
    }
    /* stdio still finds its buffers. */
    printf("30 MiB of address space: up to %zu MiB could be had, and the program went on\n", got / MIB);
    return 0;
}
