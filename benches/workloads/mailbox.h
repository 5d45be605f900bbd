/* Parcels of objects from one thread to another, who frees them. The threads are to meet at a barrier every
 * few parcels, so that how much memory is in flight does not depend on which of them the system lets run. */

#ifndef TIERMALLOC_WORKLOAD_MAILBOX_H
#define TIERMALLOC_WORKLOAD_MAILBOX_H

#include <stdatomic.h>

#include "common.h"

/* Allocated by the sender and freed by the receiver, as its objects are. */
struct parcel {
    struct parcel *next;
    int count;
    uint8_t *objects[];
};

struct mailbox {
    _Atomic(struct parcel *) newest;
};

/* Frees an object, if there is one. Its first byte, to be added up in any order. */
static inline uint64_t drop(uint8_t *object) {
    if (object == NULL) return 0;
    uint64_t byte = object[0];
    free(object);
    return byte;
}

/* Frees all that is in a mailbox; the sum of the first bytes. */
static inline uint64_t mailbox_empty(struct mailbox *box) {
    uint64_t checksum = 0;
    struct parcel *parcel = atomic_exchange(&box->newest, NULL);
    while (parcel != NULL) {
        struct parcel *next = parcel->next;
        for (int i = 0; i < parcel->count; i++) checksum += drop(parcel->objects[i]);
        free(parcel);
        parcel = next;
    }
    return checksum;
}

/* Puts a parcel of these objects into a mailbox. */
static inline void mailbox_send(struct mailbox *to, uint8_t **objects, int count) {
    struct parcel *parcel = (struct parcel *)take(sizeof *parcel + (size_t)count * sizeof parcel->objects[0]);
    parcel->count = count;
    memcpy(parcel->objects, objects, (size_t)count * sizeof objects[0]);
    parcel->next = atomic_load(&to->newest);
    while (!atomic_compare_exchange_weak(&to->newest, &parcel->next, parcel)) {
    }
}

#endif
