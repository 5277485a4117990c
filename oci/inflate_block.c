/*
 * Two loops decode a coded block: a fast one while there is plenty of input and room, which keeps the bits in a register
 * and asks for nothing else than that; and a careful one for the ends, symbol by symbol. Each is made twice from one
 * text, for bytes and for symbols of 16 bits, and once more for processors with BMI2, whose shifts it is made of.
 */
#include "oci/inflate_block.h"

#include "base/err.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define LIKELY(x)     __builtin_expect(!!(x), 1)

enum {
    FAST_INPUT = 32,   /* bytes a turn of the fast loop may read, and then some */
    FAST_OUTPUT = 272, /* elements a turn may write */
};

/* ---- output ---- */

static ALWAYS_INLINE void put(void *out, size_t at, uint32_t entry, bool wide)
{
    if (wide)
        ((uint16_t *)out)[at] = (uint8_t)(entry >> 16);
    else
        ((uint8_t *)out)[at] = (uint8_t)(entry >> 16);
}

static ALWAYS_INLINE void copy_bytes(uint8_t *to, size_t distance, size_t len)
{
    const uint8_t *from = to - distance;
    uint8_t *end = to + len;

    if (LIKELY(distance >= 16)) {
        do {
            memcpy(to, from, 16);
            to += 16, from += 16;
        } while (to < end);
    } else if (distance >= 8) {
        do {
            memcpy(to, from, 8);
            to += 8, from += 8;
        } while (to < end);
    } else if (distance == 1) {
        memset(to, *from, len);
    } else {
        while (to < end)
            *to++ = *from++;
    }
}

static ALWAYS_INLINE void copy_symbols(uint16_t *to, size_t distance, size_t len)
{
    const uint16_t *from = to - distance;
    uint16_t *end = to + len;

    if (LIKELY(distance >= 8)) {
        do {
            memcpy(to, from, 16);
            to += 8, from += 8;
        } while (to < end);
    } else {
        while (to < end)
            *to++ = *from++;
    }
}

/* May write up to 16 elements more than len. */
static ALWAYS_INLINE void copy(void *out, size_t at, size_t distance, size_t len, bool wide)
{
    if (wide)
        copy_symbols((uint16_t *)out + at, distance, len);
    else
        copy_bytes((uint8_t *)out + at, distance, len);
}

/* ---- coded blocks ---- */

struct target {
    void *at;
    size_t n, cap, oldest;
};

struct reader {
    const uint8_t *next;
    uint64_t bits;
    unsigned have;
};

static ALWAYS_INLINE void refill(struct reader *r)
{
    uint64_t more;

    memcpy(&more, r->next, sizeof(more));
    r->bits |= more << r->have;
    r->next += (63 - r->have) >> 3;
    r->have |= 56;
}

static ALWAYS_INLINE void consume(struct reader *r, uint32_t entry)
{
    r->bits >>= (uint8_t)entry & 63;
    r->have -= (uint8_t)entry;
}

/* Base and extra bits of a length or a distance. */
static ALWAYS_INLINE uint32_t value(uint64_t bits, uint32_t entry)
{
    uint64_t low = bits & ((1ULL << ((uint8_t)entry & 63)) - 1);

    return ((entry >> 16) & 0x7fff) + (uint32_t)(low >> (entry >> 8 & 15));
}

static ALWAYS_INLINE uint32_t litlen_of(const struct inflate_codes *c, uint64_t bits)
{
    return c->litlen[bits & ((1U << INFLATE_LITLEN_BITS) - 1)];
}

static ALWAYS_INLINE uint32_t dist_of(const struct inflate_codes *c, uint64_t bits)
{
    return c->dist[bits & ((1U << INFLATE_DIST_BITS) - 1)];
}

/* Of a code longer than the first look-up, whose bits are consumed. */
static ALWAYS_INLINE uint32_t longer(const uint32_t *table, uint32_t entry, uint64_t bits)
{
    return table[(entry >> 16) + (bits & ((1U << (entry >> 8 & 15)) - 1))];
}

static enum inflate_stop bad(struct inflate *s, enum inflate_problem problem)
{
    s->problem = problem;
    return INFLATE_BAD;
}

static enum inflate_stop block_end(struct inflate *s)
{
    s->place = s->final ? INFLATE_ENDED : INFLATE_BETWEEN;
    return s->final ? INFLATE_END : INFLATE_BLOCK;
}

/*
 * While there is plenty of both: INFLATE_INPUT says that there is not. 56 bits are there at the head of a turn: three
 * literals of 11 bits, or two and a length of 15 + 5; another 56 for the distance's 15 + 13.
 */
static ALWAYS_INLINE enum inflate_stop fast(struct inflate *s, const uint8_t *in, size_t n,
                                            struct target *o, bool wide)
{
    const struct inflate_codes *c = &s->codes;
    const uint8_t *stop = in + n - FAST_INPUT;
    struct reader r = {.next = in + (s->pos >> 3)};
    enum inflate_stop why = INFLATE_INPUT;
    void *out = o->at;
    size_t at = o->n, full = o->cap - FAST_OUTPUT;

    refill(&r);
    consume(&r, s->pos & 7);
    while (r.next <= stop && at <= full) {
        refill(&r);
        uint32_t entry = litlen_of(c, r.bits);

        if (entry & INFLATE_LITERAL) {
            consume(&r, entry);
            put(out, at++, entry, wide);
            entry = litlen_of(c, r.bits);
            if (entry & INFLATE_LITERAL) {
                consume(&r, entry);
                put(out, at++, entry, wide);
                entry = litlen_of(c, r.bits);
                if (entry & INFLATE_LITERAL) {
                    consume(&r, entry);
                    put(out, at++, entry, wide);
                    continue;
                }
            }
        }
        if (entry & INFLATE_SPECIAL) {
            if (entry & INFLATE_LONGER) {
                consume(&r, entry);
                entry = longer(c->litlen, entry, r.bits);
                if (entry & INFLATE_LITERAL) {
                    consume(&r, entry);
                    put(out, at++, entry, wide);
                    continue;
                }
            }
            if (entry & INFLATE_SPECIAL) {
                consume(&r, entry & INFLATE_EOB ? entry : 0);
                why = entry & INFLATE_EOB ? block_end(s) : bad(s, INFLATE_BAD_SYMBOL);
                break;
            }
        }
        size_t len = value(r.bits, entry);

        consume(&r, entry);
        refill(&r);
        entry = dist_of(c, r.bits);
        if (entry & INFLATE_LONGER && entry & INFLATE_SPECIAL) {
            consume(&r, entry);
            entry = longer(c->dist, entry, r.bits);
        }
        if (entry & INFLATE_SPECIAL) {
            why = bad(s, INFLATE_BAD_SYMBOL);
            break;
        }
        size_t distance = value(r.bits, entry);

        consume(&r, entry);
        if (distance > at - o->oldest) {
            why = bad(s, INFLATE_BAD_DISTANCE);
            break;
        }
        copy(out, at, distance, len, wide);
        at += len;
    }
    s->pos = (uint64_t)(r.next - in) * 8 - r.have;
    o->n = at;
    return why;
}

/* What one symbol is, with its bits; used only when they are all there. */
struct symbol {
    unsigned bits;
    uint32_t entry;       /* of the literal or length; SPECIAL: an end, or no code */
    size_t len, distance; /* of a match */
};

static void read_symbol(const struct inflate_codes *c, uint64_t bits, struct symbol *ret)
{
    uint32_t entry = litlen_of(c, bits);

    *ret = (struct symbol){.entry = entry};
    if (entry & INFLATE_SPECIAL && entry & INFLATE_LONGER) {
        ret->bits = entry & 0xff;
        ret->entry = entry = longer(c->litlen, entry, bits >> ret->bits);
    }
    if (!(entry & (INFLATE_LITERAL | INFLATE_SPECIAL)))
        ret->len = value(bits >> ret->bits, entry);
    ret->bits += entry & 0xff;
    if (!ret->len)
        return;
    entry = dist_of(c, bits >> ret->bits);
    if (entry & INFLATE_SPECIAL && entry & INFLATE_LONGER) {
        ret->bits += entry & 0xff;
        entry = longer(c->dist, entry, bits >> ret->bits);
    }
    if (entry & INFLATE_SPECIAL)
        ret->entry = entry;
    else
        ret->distance = value(bits >> ret->bits, entry);
    ret->bits += entry & 0xff;
}

/* One symbol near the end of input or room. INFLATE_BLOCK stands for "go on". */
static ALWAYS_INLINE enum inflate_stop careful(struct inflate *s, const uint8_t *in, size_t n,
                                               struct target *o, bool wide)
{
    struct symbol y;

    if (o->cap - o->n < INFLATE_ROOM)
        return INFLATE_OUTPUT;
    read_symbol(&s->codes, inflate_code_peek(in, n, s->pos), &y);
    if (s->pos + y.bits > (uint64_t)n * 8)
        return INFLATE_INPUT;
    if (y.entry & INFLATE_SPECIAL && !(y.entry & INFLATE_EOB))
        return bad(s, INFLATE_BAD_SYMBOL);
    s->pos += y.bits;
    if (y.entry & INFLATE_SPECIAL) {
        block_end(s);
    } else if (y.entry & INFLATE_LITERAL) {
        put(o->at, o->n++, y.entry, wide);
    } else {
        if (y.distance > o->n - o->oldest)
            return bad(s, INFLATE_BAD_DISTANCE);
        copy(o->at, o->n, y.distance, y.len, wide);
        o->n += y.len;
    }
    return INFLATE_BLOCK;
}

typedef enum inflate_stop loop(struct inflate *s, const uint8_t *in, size_t n, struct target *o);

static enum inflate_stop fast_bytes(struct inflate *s, const uint8_t *in, size_t n,
                                    struct target *o)
{
    return fast(s, in, n, o, false);
}

static enum inflate_stop fast_symbols(struct inflate *s, const uint8_t *in, size_t n,
                                      struct target *o)
{
    return fast(s, in, n, o, true);
}

#ifdef __x86_64__
__attribute__((target("bmi,bmi2"))) static enum inflate_stop fast_bytes_bmi2(struct inflate *s,
                                                                             const uint8_t *in,
                                                                             size_t n,
                                                                             struct target *o)
{
    return fast(s, in, n, o, false);
}

__attribute__((target("bmi,bmi2"))) static enum inflate_stop fast_symbols_bmi2(struct inflate *s,
                                                                               const uint8_t *in,
                                                                               size_t n,
                                                                               struct target *o)
{
    return fast(s, in, n, o, true);
}

static loop *choose(bool wide)
{
    if (__builtin_cpu_supports("bmi2"))
        return wide ? fast_symbols_bmi2 : fast_bytes_bmi2;
    return wide ? fast_symbols : fast_bytes;
}
#else
static loop *choose(bool wide)
{
    return wide ? fast_symbols : fast_bytes;
}
#endif

static enum inflate_stop coded(struct inflate *s, const uint8_t *in, size_t n, struct target *o,
                               bool wide)
{
    loop *quick = choose(wide);

    for (;;) {
        bool plenty =
            n >= FAST_INPUT && (s->pos >> 3) <= n - FAST_INPUT && o->cap - o->n >= INFLATE_ROOM;
        enum inflate_stop why = plenty ? quick(s, in, n, o) : INFLATE_INPUT;

        if (why != INFLATE_INPUT)
            return why;
        why = careful(s, in, n, o, wide);
        if (why != INFLATE_BLOCK)
            return why;
        if (s->place != INFLATE_CODED)
            return s->final ? INFLATE_END : INFLATE_BLOCK;
    }
}

/* ---- stored blocks ---- */

static enum inflate_stop stored(struct inflate *s, const uint8_t *in, size_t n, struct target *o,
                                bool wide)
{
    size_t from = (size_t)(s->pos >> 3), part = n - from;

    if (o->cap - o->n < INFLATE_ROOM && s->stored)
        return INFLATE_OUTPUT;
    if (part > s->stored)
        part = s->stored;
    if (part > o->cap - o->n)
        part = o->cap - o->n;
    if (!wide)
        memcpy((uint8_t *)o->at + o->n, in + from, part);
    for (size_t i = 0; wide && i < part; i++)
        ((uint16_t *)o->at)[o->n + i] = in[from + i];
    o->n += part;
    s->pos += (uint64_t)part * 8;
    s->stored -= (uint32_t)part;
    if (!s->stored)
        return block_end(s);
    return from + part == n ? INFLATE_INPUT : INFLATE_OUTPUT;
}

/* ---- headers ---- */

static enum inflate_stop begin_stored(struct inflate *s, const uint8_t *in, size_t n)
{
    uint64_t at = (s->pos + 3 + 7) / 8;

    if (at + 4 > n)
        return INFLATE_INPUT;
    uint32_t v = (uint32_t)inflate_code_peek(in, n, at * 8);

    if (((v ^ v >> 16) & 0xffff) != 0xffff)
        return bad(s, INFLATE_BAD_BLOCK);
    s->stored = v & 0xffff;
    s->pos = (at + 4) * 8;
    s->place = INFLATE_STORED;
    return INFLATE_BLOCK;
}

static enum inflate_stop begin_coded(struct inflate *s, const uint8_t *in, size_t n, bool dynamic)
{
    uint64_t pos = s->pos + 3;
    int rc = 1;

    if (dynamic)
        rc = inflate_code_read(in, n, &pos, &s->lengths);
    else
        inflate_code_fixed(&s->lengths);
    if (rc == 0)
        return INFLATE_INPUT;
    if (rc < 0 || !inflate_code_build(&s->lengths, &s->codes))
        return bad(s, INFLATE_BAD_BLOCK);
    s->pos = pos;
    s->place = INFLATE_CODED;
    return INFLATE_BLOCK;
}

/* INFLATE_BLOCK: one has begun. */
static enum inflate_stop begin(struct inflate *s, const uint8_t *in, size_t n)
{
    uint64_t head = inflate_code_peek(in, n, s->pos);

    if (s->pos + 3 > (uint64_t)n * 8)
        return INFLATE_INPUT;
    s->final = head & 1;
    switch (head >> 1 & 3) {
    case 0: return begin_stored(s, in, n);
    case 1: return begin_coded(s, in, n, false);
    case 2: return begin_coded(s, in, n, true);
    default: return bad(s, INFLATE_BAD_BLOCK);
    }
}

static enum inflate_stop run(struct inflate *s, const uint8_t *in, size_t n, struct target *o,
                             bool wide)
{
    if (s->problem != INFLATE_FINE)
        return INFLATE_BAD;
    if (s->place == INFLATE_BETWEEN) {
        enum inflate_stop why = begin(s, in, n);

        if (why != INFLATE_BLOCK)
            return why;
    }
    switch (s->place) {
    case INFLATE_STORED: return stored(s, in, n, o, wide);
    case INFLATE_CODED: return coded(s, in, n, o, wide);
    default: return INFLATE_END;
    }
}

/* ---- doors ---- */

void inflate_block_begin(struct inflate *s, uint64_t pos)
{
    s->pos = pos;
    s->place = INFLATE_BETWEEN;
    s->final = false;
    s->stored = 0;
    s->problem = INFLATE_FINE;
}

enum inflate_stop inflate_block_bytes(struct inflate *s, const uint8_t *in, size_t n,
                                      struct inflate_bytes *out)
{
    struct target o = {out->at, out->n, out->cap, out->oldest};
    enum inflate_stop why = run(s, in, n, &o, false);

    out->n = o.n;
    return why;
}

enum inflate_stop inflate_block_symbols(struct inflate *s, const uint8_t *in, size_t n,
                                        struct inflate_symbols *out)
{
    struct target o = {out->at, out->n, out->cap, 0};
    enum inflate_stop why = run(s, in, n, &o, true);

    out->n = o.n;
    return why;
}
