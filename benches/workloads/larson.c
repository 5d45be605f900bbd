/* larson: a server that runs for long (after Larson and Krishnan, "Memory allocation for long-running server
 * applications", ISMM 1998).
 *
 * Each of THREADS servers holds 1,000 objects of 10 to 500 bytes and replaces one at random, over and over.
 * After a number of replacements its thread ends and a new one takes over the objects, so that objects are
 * freed by another thread than the one that allocated them, and the caches of ended threads matter.
 *
 * Stresses: small allocation and free at random ages, frees of objects of ended threads, thread exit. */

#include "common.h"

enum { SLOTS = 1000, LOW = 10, HIGH = 500, GENERATIONS = 40 };

struct server {
    uint8_t *slots[SLOTS];
    uint16_t sizes[SLOTS];
    struct rng rng;
    uint64_t replacements; /* a generation */
    uint64_t checksum;
    int generation;
    APART;
};

static void fill(struct server *server, uint32_t slot) {
    size_t size = rng_between(&server->rng, LOW, HIGH);
    uint8_t *object = take(size);
    object[0] = (uint8_t)size;
    object[size - 1] = (uint8_t)slot;
    server->slots[slot] = object;
    server->sizes[slot] = (uint16_t)size;
}

/* One generation of a server. */
static void *serve(void *argument) {
    struct server *server = argument;
    for (uint64_t i = 0; i < server->replacements; i++) {
        uint32_t slot = rng_below(&server->rng, SLOTS);
        server->checksum += server->slots[slot][0] ^ server->slots[slot][server->sizes[slot] - 1];
        free(server->slots[slot]);
        fill(server, slot);
    }
    return NULL;
}

/* Waits for each generation and starts the next. */
static void *run_server(void *argument) {
    struct server *server = argument;
    for (; server->generation < GENERATIONS; server->generation++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, server) != 0) exit(3);
        pthread_join(thread, NULL);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct server *servers = must(calloc((size_t)work.threads, sizeof *servers));
    for (int i = 0; i < work.threads; i++) {
        servers[i].rng.state = (uint64_t)i + 1;
        servers[i].replacements = scaled(work, 16e6 / GENERATIONS / work.threads);
        for (uint32_t slot = 0; slot < SLOTS; slot++) fill(&servers[i], slot);
    }
    run_threads(work.threads, run_server, servers, sizeof *servers);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) {
        checksum += servers[i].checksum;
        for (uint32_t slot = 0; slot < SLOTS; slot++) free(servers[i].slots[slot]);
    }
    free(servers);
    return finish(checksum);
}
