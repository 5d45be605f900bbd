/* espresso: logic minimisation on lists of cubes (after the program of that name in Zorn's collection and in
 * SPEC, by way of the unate recursive paradigm in Brayton et al., "Logic minimization algorithms for VLSI
 * synthesis", 1984).
 *
 * A cover is a list of cubes, a cube a small vector of its own: two bits for each variable. The complement
 * of a random cover is computed by splitting on the variable that most cubes depend on, complementing both
 * cofactors, and merging; then the complement of that. What is no longer needed is freed at once.
 *
 * Stresses: vectors of 16 to 48 bytes by the million, lists of them that grow, depth-first lifetimes. */

#include "common.h"

/* Bits 2v and 2v+1 of a cube: it covers points in which variable v is 0, and in which it is 1. */
struct cube {
    struct cube *next;
    uint32_t word[];
};

struct cover {
    struct cube *first;
    int count;
};

static int variables, words;

static struct cube *full_cube(void) {
    struct cube *cube = take(sizeof *cube + (size_t)words * sizeof cube->word[0]);
    cube->next = NULL;
    memset(cube->word, 0xff, (size_t)words * sizeof cube->word[0]);
    return cube;
}

static struct cube *copy(const struct cube *of) {
    struct cube *cube = full_cube();
    memcpy(cube->word, of->word, (size_t)words * sizeof cube->word[0]);
    return cube;
}

static int value(const struct cube *cube, int v) { return cube->word[v / 16] >> (v % 16 * 2) & 3; }

static void set(struct cube *cube, int v, int bits) {
    cube->word[v / 16] &= ~(UINT32_C(3) << (v % 16 * 2));
    cube->word[v / 16] |= (uint32_t)bits << (v % 16 * 2);
}

static void add(struct cover *cover, struct cube *cube) {
    cube->next = cover->first;
    cover->first = cube;
    cover->count++;
}

static void drop(struct cover *cover) {
    for (struct cube *cube = cover->first, *next; cube != NULL; cube = next) {
        next = cube->next;
        free(cube);
    }
    cover->first = NULL;
    cover->count = 0;
}

/* What is left of the cover where variable v is 0 (side 1) or 1 (side 2). */
static struct cover cofactor(const struct cover *of, int v, int side) {
    struct cover cover = {NULL, 0};
    for (const struct cube *cube = of->first; cube != NULL; cube = cube->next)
        if (value(cube, v) & side) {
            struct cube *part = copy(cube);
            set(part, v, 3);
            add(&cover, part);
        }
    return cover;
}

/* The variable that most cubes depend on, or -1 if one of them is everything. */
static int splitting(const struct cover *cover) {
    int best = -1, most = 0;
    for (int v = 0; v < variables; v++) {
        int count = 0;
        for (const struct cube *cube = cover->first; cube != NULL; cube = cube->next) count += value(cube, v) != 3;
        if (count > most) {
            best = v;
            most = count;
        }
    }
    for (const struct cube *cube = cover->first; cube != NULL; cube = cube->next) {
        int free_in_all = 1;
        for (int v = 0; v < variables && free_in_all; v++) free_in_all = value(cube, v) == 3;
        if (free_in_all) return -1;
    }
    return best;
}

/* Moves the cubes of one side into the whole; equal ones of both sides become one. */
static void merge(struct cover *whole, struct cover *low, struct cover *high, int v) {
    for (struct cube *cube; (cube = low->first) != NULL;) {
        low->first = cube->next;
        struct cube **other = &high->first;
        while (*other != NULL && memcmp((*other)->word, cube->word, (size_t)words * sizeof cube->word[0]) != 0)
            other = &(*other)->next;
        if (*other != NULL) {
            struct cube *twin = *other;
            *other = twin->next;
            free(twin);
        } else {
            set(cube, v, 1);
        }
        add(whole, cube);
    }
    for (struct cube *cube; (cube = high->first) != NULL;) {
        high->first = cube->next;
        set(cube, v, 2);
        add(whole, cube);
    }
}

static struct cover complement(const struct cover *of) {
    struct cover cover = {NULL, 0};
    if (of->first == NULL) {
        add(&cover, full_cube());
        return cover;
    }
    int v = splitting(of);
    if (v < 0) return cover;
    struct cover low = cofactor(of, v, 1), high = cofactor(of, v, 2);
    struct cover not_low = complement(&low), not_high = complement(&high);
    drop(&low);
    drop(&high);
    merge(&cover, &not_low, &not_high, v);
    return cover;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    struct rng rng = {41};
    uint64_t checksum = 0, covers = scaled(work, 300);
    for (uint64_t number = 0; number < covers; number++) {
        variables = 20 + (int)(number % 3) * 16;
        words = (variables + 15) / 16;
        struct cover cover = {NULL, 0};
        for (int i = 0; i < 36; i++) {
            struct cube *cube = full_cube();
            for (int literal = 0; literal < 5; literal++)
                set(cube, (int)rng_below(&rng, 16), 1 + (int)rng_below(&rng, 2));
            add(&cover, cube);
        }
        struct cover off = complement(&cover), on = complement(&off);
        checksum = checksum * 1000003 + (uint64_t)off.count * 65536 + (uint64_t)on.count;
        drop(&cover);
        drop(&off);
        drop(&on);
    }
    return finish(checksum);
}
