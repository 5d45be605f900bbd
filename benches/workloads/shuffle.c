/* shuffle: generations of linked records that are dropped in another order than they were made (as graphs, syntax
 * trees and indexes are, which are built in one order and taken down along another one).
 *
 * Each thread makes a generation of records of six sizes in random turn, in one list, walks the list twice, and
 * frees the records in random order, but for one in 64, which lives through the next generation too. With `one`
 * all records are of 64 bytes, and none is left.
 *
 * Stresses: how far apart the next generation comes to lie, runs of frees in no order, long runs of allocations. */

#include "common.h"

enum { RECORDS = 30000, KEPT = 64, WALKS = 2 };

struct record {
    struct record *next;
    uint32_t value, size;
};

static const uint32_t sizes[] = {16, 24, 40, 64, 96, 160};

struct runner {
    struct rng rng;
    uint64_t generations;
    int one;
    uint64_t checksum;
    APART;
};

static uint64_t drop(struct record *record) {
    uint64_t sum = record->value + ((uint8_t *)record)[record->size - 1];
    free(record);
    return sum;
}

static void *run(void *argument) {
    struct runner *runner = argument;
    struct record **records = must(calloc(RECORDS, sizeof *records));
    struct record *kept[RECORDS / KEPT] = {NULL};
    for (uint64_t generation = 0; generation < runner->generations; generation++) {
        struct record *all = NULL;
        for (uint32_t i = 0; i < RECORDS; i++) {
            uint32_t size = runner->one ? 64 : sizes[rng_below(&runner->rng, sizeof sizes / sizeof *sizes)];
            struct record *record = take(size);
            record->next = all;
            record->size = size;
            record->value = i;
            if (size > sizeof *record) ((uint8_t *)record)[size - 1] = (uint8_t)i;
            all = records[i] = record;
        }
        for (int walk = 0; walk < WALKS; walk++)
            for (struct record *record = all; record != NULL; record = record->next)
                runner->checksum = runner->checksum * 3 + record->value;
        for (uint32_t i = RECORDS - 1; i > 0; i--) {
            uint32_t other = rng_below(&runner->rng, i + 1);
            struct record *swapped = records[i];
            records[i] = records[other];
            records[other] = swapped;
        }
        for (uint32_t i = 0; i < RECORDS; i++) {
            struct record *leaves = records[i];
            if (!runner->one && i % KEPT == 0 && i / KEPT < RECORDS / KEPT) {
                leaves = kept[i / KEPT];
                kept[i / KEPT] = records[i];
            }
            if (leaves != NULL) runner->checksum += drop(leaves);
        }
    }
    for (uint32_t i = 0; i < RECORDS / KEPT; i++)
        if (kept[i] != NULL) runner->checksum += drop(kept[i]);
    free(records);
    return NULL;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct runner *runners = must(calloc((size_t)work.threads, sizeof *runners));
    for (int i = 0; i < work.threads; i++) {
        runners[i].rng.state = 31 + (uint64_t)i;
        runners[i].one = argc > 3 && strcmp(argv[3], "one") == 0;
        runners[i].generations = scaled(work, 400.0 / work.threads);
    }
    run_threads(work.threads, run, runners, sizeof *runners);
    uint64_t checksum = 0;
    for (int i = 0; i < work.threads; i++) checksum = checksum * 31 + runners[i].checksum;
    free(runners);
    return finish(checksum);
}
