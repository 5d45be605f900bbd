/* realloc-growth: buffers that grow while they are filled.
 *
 * Strings of up to 4 KiB that grow by half, logs that grow by a constant piece up to 256 KiB, and a few
 * large arrays that double up to 32 MiB, side by side, so that what lies behind a buffer is taken as often
 * as not. What was written must still be there after each step.
 *
 * Stresses: realloc in place and by copying, for small, medium and huge blocks. */

#include "common.h"

enum { BUFFERS = 256 };

struct buffer {
    uint8_t *bytes;
    size_t size, limit;
    int kind; /* 0: by half, 1: by a piece, 2: by doubling */
};

static void begin(struct buffer *buffer, struct rng *rng) {
    uint32_t dice = rng_below(rng, 20000);
    buffer->kind = dice == 0 ? 2 : dice < 600 ? 1 : 0;
    buffer->limit = buffer->kind == 2 ? 32u << 20 : buffer->kind == 1 ? 256u << 10 : rng_between(rng, 64, 4096);
    buffer->size = buffer->kind == 0 ? 16 : 4096;
    buffer->bytes = take(buffer->size);
    memset(buffer->bytes, (int)buffer->kind + 1, buffer->size);
}

static void grow(struct buffer *buffer) {
    size_t old = buffer->size;
    size_t size = buffer->kind == 0 ? old + old / 2 : buffer->kind == 1 ? old + 4096 : old * 2;
    buffer->bytes = must(realloc(buffer->bytes, size));
    /* What is new is written as it would be by whoever reads into it. */
    memset(buffer->bytes + old, (int)buffer->kind + 1, size - old);
    buffer->size = size;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct rng rng = {21};
    struct buffer buffers[BUFFERS];
    for (int i = 0; i < BUFFERS; i++) begin(&buffers[i], &rng);
    uint64_t checksum = 0, steps = scaled(work, 2.5e6);
    for (uint64_t step = 0; step < steps; step++) {
        struct buffer *buffer = &buffers[rng_below(&rng, BUFFERS)];
        if (buffer->size < buffer->limit) {
            grow(buffer);
            continue;
        }
        for (size_t at = 0; at < buffer->size; at += 1 + buffer->size / 16) checksum += buffer->bytes[at];
        checksum += buffer->size;
        free(buffer->bytes);
        begin(buffer, &rng);
    }
    for (int i = 0; i < BUFFERS; i++) free(buffers[i].bytes);
    return finish(checksum);
}
