/* cfrac: factorisation with small numbers of many digits (after the program of that name in Zorn's
 * collection, "The measured cost of conservative garbage collection", 1993, a stand-in for programs whose
 * objects are many, tiny and short-lived).
 *
 * Numbers are lists of 16-bit digits in blocks of their own size, and every operation allocates its result
 * and frees what it no longer needs. Pollard's rho with Floyd's cycle search splits products of two primes.
 *
 * Stresses: malloc and free of 8 to 40 bytes, almost always of the block freed last; small live set. */

#include "common.h"

struct number {
    int digits; /* without leading zeros */
    uint16_t digit[]; /* the lowest first */
};

static struct number *blank(int digits) {
    struct number *n = take(sizeof *n + (size_t)digits * sizeof n->digit[0]);
    n->digits = digits;
    return n;
}

static struct number *of(uint64_t value) {
    int digits = 0;
    for (uint64_t rest = value; rest != 0; rest >>= 16) digits++;
    struct number *n = blank(digits);
    for (int i = 0; i < digits; i++) n->digit[i] = (uint16_t)(value >> (16 * i));
    return n;
}

static struct number *copy(const struct number *of) {
    struct number *n = blank(of->digits);
    memcpy(n->digit, of->digit, (size_t)of->digits * sizeof of->digit[0]);
    return n;
}

static void trim(struct number *n) {
    while (n->digits > 0 && n->digit[n->digits - 1] == 0) n->digits--;
}

static int compare(const struct number *a, const struct number *b) {
    if (a->digits != b->digits) return a->digits < b->digits ? -1 : 1;
    for (int i = a->digits - 1; i >= 0; i--)
        if (a->digit[i] != b->digit[i]) return a->digit[i] < b->digit[i] ? -1 : 1;
    return 0;
}

/* a + b */
static struct number *sum(const struct number *a, const struct number *b) {
    int digits = (a->digits > b->digits ? a->digits : b->digits) + 1;
    struct number *n = blank(digits);
    uint32_t carry = 0;
    for (int i = 0; i < digits; i++) {
        if (i < a->digits) carry += a->digit[i];
        if (i < b->digits) carry += b->digit[i];
        n->digit[i] = (uint16_t)carry;
        carry >>= 16;
    }
    trim(n);
    return n;
}

/* |a - b| */
static struct number *distance(const struct number *a, const struct number *b) {
    if (compare(a, b) < 0) {
        const struct number *swap = a;
        a = b;
        b = swap;
    }
    struct number *n = blank(a->digits);
    int32_t carry = 0;
    for (int i = 0; i < a->digits; i++) {
        carry += a->digit[i] - (i < b->digits ? b->digit[i] : 0);
        n->digit[i] = (uint16_t)carry;
        carry >>= 16;
    }
    trim(n);
    return n;
}

/* a * b */
static struct number *product(const struct number *a, const struct number *b) {
    struct number *n = blank(a->digits + b->digits);
    memset(n->digit, 0, (size_t)n->digits * sizeof n->digit[0]);
    for (int i = 0; i < a->digits; i++) {
        uint32_t carry = 0;
        for (int j = 0; j < b->digits; j++) {
            carry += n->digit[i + j] + (uint32_t)a->digit[i] * b->digit[j];
            n->digit[i + j] = (uint16_t)carry;
            carry >>= 16;
        }
        n->digit[i + b->digits] = (uint16_t)carry;
    }
    trim(n);
    return n;
}

/* a mod b, digit by digit from the top: long division with the quotient thrown away */
static struct number *remainder_of(const struct number *a, const struct number *b) {
    struct number *rest = of(0);
    for (int i = a->digits - 1; i >= 0; i--) {
        struct number *shifted = blank(rest->digits + 1);
        shifted->digit[0] = a->digit[i];
        memcpy(shifted->digit + 1, rest->digit, (size_t)rest->digits * sizeof rest->digit[0]);
        trim(shifted);
        free(rest);
        rest = shifted;
        for (int bit = 15; bit >= 0 && compare(rest, b) >= 0; bit--) {
            struct number *power = of(UINT64_C(1) << bit);
            struct number *multiple = product(b, power);
            if (compare(multiple, rest) <= 0) {
                struct number *less = distance(rest, multiple);
                free(rest);
                rest = less;
            }
            free(multiple);
            free(power);
        }
    }
    return rest;
}

static struct number *common_divisor(const struct number *a, const struct number *b) {
    struct number *x = copy(a), *y = copy(b);
    while (y->digits > 0) {
        struct number *rest = remainder_of(x, y);
        free(x);
        x = y;
        y = rest;
    }
    free(y);
    return x;
}

/* x * x + c mod n */
static struct number *step(struct number *x, const struct number *c, const struct number *n) {
    struct number *square = product(x, x), *more = sum(square, c), *rest = remainder_of(more, n);
    free(square);
    free(more);
    free(x);
    return rest;
}

/* A proper divisor of n, found with the polynomial x * x + c. */
static uint64_t split(uint64_t value, uint64_t constant) {
    struct number *n = of(value), *c = of(constant), *one = of(1);
    struct number *slow = of(2), *fast = of(2), *divisor = of(1);
    while (compare(divisor, one) == 0) {
        slow = step(slow, c, n);
        fast = step(step(fast, c, n), c, n);
        struct number *apart = distance(slow, fast);
        free(divisor);
        divisor = common_divisor(apart, n);
        free(apart);
    }
    uint64_t found = 0;
    for (int i = 0; i < divisor->digits; i++) found |= (uint64_t)divisor->digit[i] << (16 * i);
    free(slow);
    free(fast);
    free(divisor);
    free(one);
    free(c);
    free(n);
    return found;
}

int main(int argc, char **argv) {
    struct work work = work_of(argc, argv);
    static const uint64_t primes[] = {10007, 15013, 20011, 30011, 40009, 50021, 60013, 65537};
    enum { PRIMES = sizeof primes / sizeof primes[0] };
    uint64_t checksum = 0, products = scaled(work, 300);
    for (uint64_t i = 0; i < products; i++) {
        uint64_t a = primes[i % PRIMES], b = primes[(i / PRIMES + i + 1) % PRIMES];
        checksum = checksum * 31 + split(a * b, 1 + i % 7);
    }
    return finish(checksum);
}
