/* What the programs about statistics share: all classes at one moment, and the sums that must hold. */
#ifndef TIERMALLOC_TESTS_FIGURES_H
#define TIERMALLOC_TESTS_FIGURES_H

#include "check.h"
#define TIERMALLOC_WEAK
#include "../../include/tiermalloc.h"

enum { MOST_CLASSES = 208 };

/* The heap at one moment. It allocates nothing, so that looking changes nothing. */
struct picture {
    struct tiermalloc_stats stats;
    struct tiermalloc_class_stats classes[MOST_CLASSES];
    int count;
};

static inline void keep_class(const struct tiermalloc_class_stats *stats, size_t size, void *data)
{
    struct picture *picture = (struct picture *)data;
    CHECK(size == sizeof *stats, "a structure of %zu bytes", size);
    CHECK(picture->count < MOST_CLASSES, "more classes than there are");
    picture->classes[picture->count++] = *stats;
}

/* Looks once more while something moves: the allocator's own thread may be at work. */
static inline void look(struct picture *picture)
{
    struct tiermalloc_stats again;
    int tries = 0;
    do {
        picture->count = 0;
        CHECK(tiermalloc_stats(&picture->stats, sizeof picture->stats) == 0, "figures");
        CHECK(tiermalloc_each_class(keep_class, picture) == 0, "classes");
        CHECK(tiermalloc_stats(&again, sizeof again) == 0, "figures");
    } while (memcmp(&again, &picture->stats, sizeof again) != 0 && ++tries < 20);
}

/* What there is of a class; all zero if it was never used. */
static inline struct tiermalloc_class_stats class_of_size(const struct picture *picture, size_t size)
{
    static const struct tiermalloc_class_stats none;
    for (int i = 0; i < picture->count; i++)
        if (picture->classes[i].size == size)
            return picture->classes[i];
    return none;
}

/* In the pool `guarded` blocks are of no class: then the classes are a part of the sums. */
static inline int is_guarded(void)
{
    char pool[16];
    return tiermalloc_config_get("pool", pool, sizeof pool) > 0 && strcmp(pool, "guarded") == 0;
}

/* The sums of a heap in which nothing moves. In the child of a fork that other threads did not expect, a span that one
 * of them had in its hands is in nobody's: then the parts may be less than the whole. */
static inline void sums_hold_but(const struct picture *picture, int lost)
{
    const struct tiermalloc_stats *s = &picture->stats;
    uint64_t parts = s->live + s->thread_caches + s->parked_caches + s->transfer_caches + s->quarantine + s->span_free +
                     s->free_dirty + s->free_clean + s->metadata + s->metadata_free;
    CHECK(parts == s->mapped || (lost && parts < s->mapped), "the parts are %llu, mapped %llu", (unsigned long long)parts, (unsigned long long)s->mapped);
    CHECK(s->committed <= s->mapped && s->live <= s->committed, "%llu in use, %llu committed, %llu mapped",
          (unsigned long long)s->live, (unsigned long long)s->committed, (unsigned long long)s->mapped);
    CHECK(s->missed == 0, "everything could be looked at");
    uint64_t live = s->large + s->huge, objects = s->large_count + s->huge_count, in_threads = 0, parked = 0;
    uint64_t transfer = 0, quarantine = 0, free = 0, spans = 0, refills = 0, flushes = 0;
    for (int i = 0; i < picture->count; i++) {
        const struct tiermalloc_class_stats *c = &picture->classes[i];
        uint64_t out = c->live_objects + c->thread_objects + c->parked_objects + c->transfer_objects + c->quarantine_objects;
        uint64_t inside = c->free_objects + c->fresh_objects;
        CHECK(c->size * (out + inside) + c->tail_waste == c->in_spans, "class %llu: its parts are its spans",
              (unsigned long long)c->size);
        CHECK(c->in_spans == c->spans * c->pages_per_span * 8192, "class %llu", (unsigned long long)c->size);
        CHECK(c->refilled_objects - c->flushed_objects == c->live_objects + c->thread_objects + c->parked_objects + c->quarantine_objects,
              "class %llu: %llu came, %llu went, %llu in use", (unsigned long long)c->size,
              (unsigned long long)c->refilled_objects, (unsigned long long)c->flushed_objects,
              (unsigned long long)c->live_objects);
        CHECK(c->transfer_hits <= c->refills, "class %llu", (unsigned long long)c->size);
        live += c->live_objects * c->size;
        objects += c->live_objects;
        in_threads += c->thread_objects * c->size;
        parked += c->parked_objects * c->size;
        transfer += c->transfer_objects * c->size;
        quarantine += c->quarantine_objects * c->size;
        free += inside * c->size + c->tail_waste;
        spans += c->spans;
        refills += c->refills;
        flushes += c->flushes;
    }
    int outside = is_guarded();
    CHECK((live == s->live && objects == s->live_objects) || ((lost || outside) && live <= s->live), "%llu bytes in %llu objects by class, %llu in %llu in all",
          (unsigned long long)live, (unsigned long long)objects, (unsigned long long)s->live,
          (unsigned long long)s->live_objects);
    CHECK(in_threads == s->thread_caches && parked == s->parked_caches && transfer == s->transfer_caches, "caches");
    CHECK(quarantine == s->quarantine || (outside && quarantine <= s->quarantine), "quarantine");
    CHECK(spans == s->spans, "spans");
    CHECK(free == s->span_free || (lost && free < s->span_free), "%llu free in spans by class, %llu in all",
          (unsigned long long)free, (unsigned long long)s->span_free);
    CHECK(refills == s->refills && flushes == s->flushes, "events");
}

static inline void sums_hold(const struct picture *picture)
{
    sums_hold_but(picture, 0);
}

#endif
