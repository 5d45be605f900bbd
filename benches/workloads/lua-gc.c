/* lua-gc: an interpreter's heap with a mark-and-sweep collector (after the way in which Lua keeps its
 * objects: all in one list, swept from its head to its end).
 *
 * A small machine runs a fixed program on values that are numbers, strings or tables: it concatenates
 * strings, builds trees of tables with array parts that grow by doubling, and drops them. Whenever the
 * objects have doubled since the last collection, it marks from its roots and sweeps: thousands of objects
 * of mixed sizes are freed in one run, in the order in which they were made, and the next thousands are taken.
 *
 * With `long` it runs four times as long: a heap that has been swept often is not what it was at first.
 *
 * Stresses: long runs of frees followed by long runs of allocations, realloc of arrays, calloc-like clearing. */

#include "common.h"

enum kind { STRING, TABLE };

struct object {
    struct object *next; /* in the list of all */
    uint8_t kind, marked;
};

struct string {
    struct object object;
    uint32_t length;
    char text[];
};

struct table {
    struct object object;
    uint32_t count, room;
    struct object **array;
    double number;
};

enum { ROOTS = 64, DEPTH = 10 };

static struct object *all, *roots[ROOTS];
static uint64_t objects, limit = 60000, collections, freed;

static void *adopt(void *block, enum kind kind) {
    struct object *object = block;
    object->next = all;
    object->kind = (uint8_t)kind;
    object->marked = 0;
    all = object;
    objects++;
    return block;
}

static struct string *string_of(const char *text, size_t length) {
    struct string *string = take(sizeof *string + length + 1);
    string->length = (uint32_t)length;
    memcpy(string->text, text, length);
    string->text[length] = '\0';
    return adopt(string, STRING);
}

static struct string *join(const struct string *a, const struct string *b) {
    struct string *string = take(sizeof *string + a->length + b->length + 1);
    string->length = a->length + b->length;
    memcpy(string->text, a->text, a->length);
    memcpy(string->text + a->length, b->text, b->length + 1);
    return adopt(string, STRING);
}

static struct table *table_of(double number) {
    struct table *table = take(sizeof *table);
    table->count = table->room = 0;
    table->array = NULL;
    table->number = number;
    return adopt(table, TABLE);
}

static void append(struct table *table, void *value) {
    if (table->count == table->room) {
        table->room = table->room == 0 ? 2 : table->room * 2;
        table->array = must(realloc(table->array, table->room * sizeof *table->array));
    }
    table->array[table->count++] = value;
}

static void mark(struct object *object) {
    if (object == NULL || object->marked) return;
    object->marked = 1;
    if (object->kind == TABLE) {
        struct table *table = (struct table *)object;
        for (uint32_t i = 0; i < table->count; i++) mark(table->array[i]);
    }
}

static void sweep(void) {
    for (struct object **link = &all; *link != NULL;) {
        struct object *object = *link;
        if (object->marked) {
            object->marked = 0;
            link = &object->next;
            continue;
        }
        *link = object->next;
        if (object->kind == TABLE) free(((struct table *)object)->array);
        free(object);
        objects--;
        freed++;
    }
}

/* Between two instructions everything that is alive hangs from a root. */
static void safe_point(void) {
    if (objects < limit) return;
    for (int i = 0; i < ROOTS; i++) mark(roots[i]);
    sweep();
    collections++;
    limit = objects * 2 < 60000 ? 60000 : objects * 2;
}

static struct table *tree(struct rng *rng, int depth) {
    struct table *table = table_of(depth);
    char text[24];
    int length = snprintf(text, sizeof text, "node-%u", rng_below(rng, 100000));
    append(table, string_of(text, (size_t)length));
    if (depth > 0)
        for (uint32_t i = 0, children = 1 + rng_below(rng, 3); i < children; i++)
            append(table, tree(rng, depth - 1 - (int)i));
    return table;
}

static uint64_t weigh(const struct object *object) {
    if (object == NULL) return 0;
    if (object->kind == STRING) return ((const struct string *)object)->length;
    const struct table *table = (const struct table *)object;
    uint64_t weight = 1;
    for (uint32_t i = 0; i < table->count; i++) weight += weigh(table->array[i]);
    return weight;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct rng rng = {61};
    uint64_t checksum = 0, instructions = scaled(work, argc > 3 && strcmp(argv[3], "long") == 0 ? 1200e3 : 300e3);
    for (uint64_t i = 0; i < instructions; i++) {
        uint32_t root = rng_below(&rng, ROOTS / 2), text = ROOTS / 2 + root;
        switch (rng_below(&rng, 8)) {
        case 0: /* a new tree in place of an old one */
            roots[root] = &tree(&rng, DEPTH - (int)rng_below(&rng, 8))->object;
            break;
        case 1: /* what hangs there, counted */
            checksum += weigh(roots[root]);
            break;
        case 2: /* a list of numbers, each in a table of its own */
            if (roots[root] != NULL)
                for (int n = 0; n < 20; n++) append((struct table *)roots[root], table_of(n));
            break;
        default: /* a text that grows and begins again */
            if (roots[text] == NULL || ((struct string *)roots[text])->length > 600)
                roots[text] = &string_of("begin ", 6)->object;
            for (int n = 0; n < 6; n++) {
                struct string *more = string_of("word ", 1 + rng_below(&rng, 5));
                roots[text] = &join((struct string *)roots[text], more)->object;
            }
        }
        safe_point();
    }
    for (int i = 0; i < ROOTS; i++) roots[i] = NULL;
    sweep();
    return finish(checksum * 31 + collections * 1000003 + freed);
}
