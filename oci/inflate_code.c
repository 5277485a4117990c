/*
 * Codes are canonical: sorted by length, then by symbol, they count upwards. A decoder meets their highest bit first, so
 * tables are indexed by the reversed code, and a code shorter than the look-up fills every place that ends with it.
 *
 * Incomplete codes are let through, as the library for one core lets them (ISA-L): a layer must not be good on one host
 * and bad on the next.
 */
#include "oci/inflate_code.h"

enum {
    MAX_BITS = 15,
    PRE_BITS = 7,
    N_PRE = 19,
    FIRST_LENGTH = 257,
    N_LENGTHS = 29,
    N_DISTANCES = 30
};

static const uint16_t length_base[N_LENGTHS] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[N_LENGTHS] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t dist_base[N_DISTANCES] = {
    1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
    193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

/* ---- what symbols mean ---- */

static uint32_t litlen_meaning(unsigned symbol)
{
    if (symbol < 256)
        return INFLATE_LITERAL | symbol << 16;
    if (symbol == 256)
        return INFLATE_SPECIAL | INFLATE_EOB;
    if (symbol - FIRST_LENGTH >= N_LENGTHS)
        return INFLATE_SPECIAL;
    return (uint32_t)length_base[symbol - FIRST_LENGTH] << 16 | length_extra[symbol - FIRST_LENGTH];
}

static uint32_t dist_meaning(unsigned symbol)
{
    if (symbol >= N_DISTANCES)
        return INFLATE_SPECIAL;
    return (uint32_t)dist_base[symbol] << 16 | (symbol < 2 ? 0 : symbol / 2 - 1);
}

static uint32_t itself(unsigned symbol)
{
    return symbol << 16;
}

/* ---- tables ---- */

struct table {
    uint32_t *entries;
    unsigned bits, longest; /* of the first look-up; of any code */
    uint32_t (*meaning)(unsigned symbol);

    unsigned used, prefix, sub_bits, sub_start; /* the second table being filled */
    uint16_t left[MAX_BITS + 1];                /* codes not yet placed, by length */
};

static void fill(uint32_t *at, unsigned code, unsigned step_bits, unsigned bits, uint32_t entry)
{
    for (unsigned i = code; i < 1U << bits; i += 1U << step_bits)
        at[i] = entry;
}

/* A second table for the codes that begin with `prefix`, the shortest of which has `len` bits. */
static void begin_second(struct table *t, unsigned prefix, unsigned len)
{
    int room = 1 << (len - t->bits);

    t->prefix = prefix;
    t->sub_bits = len - t->bits;
    t->sub_start = t->used;
    while (t->bits + t->sub_bits < t->longest && (room -= t->left[t->bits + t->sub_bits]) > 0) {
        t->sub_bits++;
        room <<= 1;
    }
    t->used += 1U << t->sub_bits;
    for (unsigned i = t->sub_start; i < t->used; i++)
        t->entries[i] = INFLATE_SPECIAL | t->sub_bits;
    t->entries[prefix] =
        INFLATE_SPECIAL | INFLATE_LONGER | t->sub_start << 16 | t->sub_bits << 8 | t->bits;
}

static void place(struct table *t, unsigned symbol, unsigned code, unsigned len)
{
    uint32_t meaning = t->meaning(symbol);

    if (len <= t->bits) {
        fill(t->entries, code, len, t->bits, meaning + (len << 8 | len));
    } else {
        unsigned prefix = code & ((1U << t->bits) - 1), rest = len - t->bits;

        if (prefix != t->prefix)
            begin_second(t, prefix, len);
        fill(t->entries + t->sub_start, code >> t->bits, rest, t->sub_bits,
             meaning + (rest << 8 | rest));
    }
    t->left[len]--;
}

/* The next code of that length, reversed as the last one was. */
static unsigned after(unsigned code, unsigned len)
{
    unsigned bit = 1U << (len - 1);

    for (; code & bit; bit >>= 1)
        code ^= bit;
    return code | bit;
}

/* Room left among the codes, in codes of 15 bits; negative when there are too many. */
static int count(const uint8_t *lengths, unsigned n, uint16_t counts[MAX_BITS + 1])
{
    int room = 1 << MAX_BITS;

    memset(counts, 0, (MAX_BITS + 1) * sizeof(*counts));
    for (unsigned i = 0; i < n; i++)
        counts[lengths[i]]++;
    counts[0] = 0;
    for (unsigned len = 1; len <= MAX_BITS; len++)
        room -= counts[len] << (MAX_BITS - len);
    return room;
}

static bool build(struct table *t, const uint8_t *lengths, unsigned n)
{
    uint16_t sorted[INFLATE_LITLEN_MAX], first[MAX_BITS + 2] = {0};
    unsigned code = 0, k = 0;
    int room = count(lengths, n, t->left);

    if (room < 0)
        return false;
    t->prefix = ~0U;
    t->used = 1U << t->bits;
    for (unsigned i = 0; room && i < t->used; i++)
        t->entries[i] = INFLATE_SPECIAL | t->bits;
    for (unsigned len = 1; len <= MAX_BITS; len++) {
        if (t->left[len])
            t->longest = len;
        first[len + 1] = (uint16_t)(first[len] + t->left[len]);
    }
    for (unsigned i = 0; i < n; i++)
        if (lengths[i])
            sorted[first[lengths[i]]++] = (uint16_t)i;
    for (unsigned len = 1; len <= MAX_BITS; len++) {
        for (; k < first[len]; k++) { /* moved to the end of that length by the sorting */
            place(t, sorted[k], code, len);
            code = after(code, len);
        }
    }
    return true;
}

bool inflate_code_build(const struct inflate_lengths *l, struct inflate_codes *ret)
{
    struct table litlen = {
        .entries = ret->litlen, .bits = INFLATE_LITLEN_BITS, .meaning = litlen_meaning};
    struct table dist = {.entries = ret->dist, .bits = INFLATE_DIST_BITS, .meaning = dist_meaning};

    return build(&litlen, l->of, l->n_litlen) && build(&dist, l->of + l->n_litlen, l->n_dist);
}

bool inflate_code_is_usual(const struct inflate_lengths *l)
{
    uint16_t counts[MAX_BITS + 1];

    if (!l->of[256] || count(l->of, l->n_litlen, counts) != 0)
        return false;
    int room = count(l->of + l->n_litlen, l->n_dist, counts);

    return room == 0 || room == 1 << MAX_BITS || (room == 1 << (MAX_BITS - 1) && counts[1] == 1);
}

bool inflate_code_is_readable(const struct inflate_lengths *l)
{
    if (l->n_litlen > INFLATE_LITLEN_MAX || l->n_dist > INFLATE_DIST_MAX)
        return false;
    /* What lies behind them was never written. */
    for (unsigned i = 0; i < l->n_litlen + l->n_dist; i++)
        if (l->of[i] > MAX_BITS)
            return false;
    return true;
}

/* ---- headers ---- */

void inflate_code_fixed(struct inflate_lengths *ret)
{
    ret->n_litlen = INFLATE_LITLEN_MAX;
    ret->n_dist = INFLATE_DIST_MAX;
    memset(ret->of, 8, 144);
    memset(ret->of + 144, 9, 256 - 144);
    memset(ret->of + 256, 7, 280 - 256);
    memset(ret->of + 280, 8, INFLATE_LITLEN_MAX - 280);
    memset(ret->of + INFLATE_LITLEN_MAX, 5, INFLATE_DIST_MAX);
}

/* How often a length is repeated, and which: symbols 16 to 18 of the code for lengths. */
static unsigned repeats(unsigned symbol, uint64_t bits, unsigned *extra)
{
    switch (symbol) {
    case 16: *extra = 2; return 3 + (unsigned)(bits & 3);
    case 17: *extra = 3; return 3 + (unsigned)(bits & 7);
    case 18: *extra = 7; return 11 + (unsigned)(bits & 127);
    default: *extra = 0; return 1;
    }
}

static int read_lengths(const uint8_t *in, size_t n, uint64_t *pos, const uint32_t *pre,
                        struct inflate_lengths *ret)
{
    unsigned all = (unsigned)ret->n_litlen + ret->n_dist, extra;

    for (unsigned i = 0; i < all;) {
        uint64_t bits = inflate_code_peek(in, n, *pos);
        uint32_t entry = pre[bits & ((1U << PRE_BITS) - 1)];
        unsigned symbol = entry >> 16, len = entry & 0xff;
        unsigned times = repeats(symbol, bits >> len, &extra);

        *pos += len + extra;
        if (*pos > (uint64_t)n * 8)
            return 0;
        if (entry & INFLATE_SPECIAL || times > all - i || (symbol == 16 && !i))
            return -1;
        memset(ret->of + i, symbol < 16 ? (int)symbol : symbol == 16 ? ret->of[i - 1] : 0, times);
        i += times;
    }
    return 1;
}

int inflate_code_read(const uint8_t *in, size_t n, uint64_t *pos, struct inflate_lengths *ret)
{
    static const uint8_t order[N_PRE] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                         11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[N_PRE] = {0};
    uint32_t pre[1 << PRE_BITS];
    struct table t = {.entries = pre, .bits = PRE_BITS, .meaning = itself};
    uint64_t bits = inflate_code_peek(in, n, *pos);
    unsigned n_pre = 4 + (unsigned)(bits >> 10 & 15);

    ret->n_litlen = (uint16_t)(257 + (bits & 31));
    ret->n_dist = (uint16_t)(1 + (bits >> 5 & 31));
    *pos += 14;
    bits = inflate_code_peek(in, n, *pos);
    for (unsigned i = 0; i < n_pre; i++)
        lengths[order[i]] = (uint8_t)(bits >> 3 * i & 7);
    *pos += 3 * n_pre;
    if (*pos > (uint64_t)n * 8)
        return 0;
    if (ret->n_litlen > FIRST_LENGTH + N_LENGTHS || ret->n_dist > N_DISTANCES ||
        !build(&t, lengths, N_PRE))
        return -1;
    return read_lengths(in, n, pos, pre, ret);
}
