/*
 * Forty-eight places at once: the first bits of a dynamic block's header are 0 (not the last), 0 1 (its kind), and two
 * numbers of five bits that are not 30 or 31. Shifted copies of one word, ANDed, leave one place in nine. Of those the
 * code for the code lengths must be complete, a sum of table look-ups, which one in some hundred is; only then the whole
 * header is read. All in all a few ns a byte.
 */
#include "oci/inflate_find.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "oci/inflate_code.h"

enum {
    AT_ONCE = 48, /* bits; 13 more are looked at */
    FOUR = 1 << 12,
    COMPLETE = 128, /* in codes of 7 bits */
    HEADER = 17,    /* bits before the lengths of the code for lengths */
};

static uint16_t sums[FOUR]; /* of four lengths of three bits: how many codes of 7 bits they take */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_sums(void)
{
    for (unsigned v = 0; v < FOUR; v++)
        for (unsigned i = 0; i < 12; i += 3)
            sums[v] = (uint16_t)(sums[v] + (v >> i & 7 ? 1U << (7 - (v >> i & 7)) : 0));
}

/* One bit for each place where a dynamic block's first 13 bits are possible. */
static uint64_t dynamic_places(uint64_t w)
{
    uint64_t kind = ~w & ~(w >> 1) & w >> 2;
    uint64_t litlen = w >> 4 & w >> 5 & w >> 6 & w >> 7,
             dist = w >> 9 & w >> 10 & w >> 11 & w >> 12;

    return kind & ~litlen & ~dist & ((1ULL << AT_ONCE) - 1);
}

static bool has_complete_code(const uint8_t *in, size_t n, uint64_t pos)
{
    unsigned lengths = 4 + (unsigned)(inflate_code_peek(in, n, pos) >> 13 & 15);
    uint64_t v = inflate_code_peek(in, n, pos + HEADER) & ((1ULL << 3 * lengths) - 1);

    return sums[v & (FOUR - 1)] + sums[v >> 12 & (FOUR - 1)] + sums[v >> 24 & (FOUR - 1)] +
               sums[v >> 36 & (FOUR - 1)] + sums[v >> 48] ==
           COMPLETE;
}

static bool is_dynamic(const uint8_t *in, size_t n, uint64_t pos)
{
    struct inflate_lengths l;

    if (!has_complete_code(in, n, pos))
        return false;
    pos += 3;
    return inflate_code_read(in, n, &pos, &l) == 1 && inflate_code_is_usual(&l);
}

static bool is_length(const uint8_t *in, size_t at)
{
    uint32_t v;

    memcpy(&v, in + at, sizeof(v));
    return ((v ^ v >> 16) & 0xffff) == 0xffff && (!at || !(in[at - 1] >> 5));
}

/* Does something of a block follow, as far as can be seen? Noise holds a length twice each half MiB. */
static bool is_stored(const uint8_t *in, size_t n, size_t at)
{
    uint64_t next;

    if (!is_length(in, at))
        return false;
    next = at + 4 + (in[at] | (uint64_t)in[at + 1] << 8);
    if (next + 5 > n)
        return true;
    switch (in[next] >> 1 & 3) {
    case 0: return is_length(in, next + 1);
    case 1: return true;
    case 2: return in[next] & 1 || has_complete_code(in, n, next * 8);
    default: return false;
    }
}

/* The stored block of the six bytes from `at` on, as a bit; its name may be before them. */
static uint64_t stored_in(const uint8_t *in, size_t n, size_t at)
{
    for (size_t i = at; i < at + AT_ONCE / 8 && i + 4 <= n; i++)
        if (i && is_stored(in, n, i))
            return i * 8 - 3;
    return INFLATE_NOWHERE;
}

static uint64_t dynamic_in(const uint8_t *in, size_t n, size_t at, uint64_t from)
{
    uint64_t w = inflate_code_peek(in, n, at * 8), places = dynamic_places(w);

    for (; places; places &= places - 1) {
        uint64_t pos = at * 8 + (uint64_t)__builtin_ctzll(places);

        if (pos >= from && is_dynamic(in, n, pos))
            return pos;
    }
    return INFLATE_NOWHERE;
}

uint64_t inflate_find(const uint8_t *in, size_t n, uint64_t from, uint64_t to)
{
    pthread_once(&once, make_sums);
    for (size_t at = (size_t)(from >> 3); at * 8 < to && at + 8 <= n; at += AT_ONCE / 8) {
        uint64_t stored = stored_in(in, n, at), dynamic = dynamic_in(in, n, at, from);
        uint64_t first = stored < dynamic && stored >= from ? stored : dynamic;

        if (first < to)
            return first;
    }
    return INFLATE_NOWHERE;
}

uint64_t inflate_find_name(const uint8_t *in, size_t n, uint64_t pos)
{
    if (inflate_code_peek(in, n, pos) >> 1 & 3)
        return pos;
    return (pos + 3 + 7) / 8 * 8 - 3;
}
