/*
 * Memory, from the front: the unknown window as symbols; symbols, as long as some of the last 32 KiB are unknown; then,
 * when none is, these 32 KiB once more as bytes, and bytes. Most data comes to that, so that half the memory is saved and
 * nothing is left to resolve in the greater part.
 *
 *   | 32 Ki unknown | wide symbols ... | 32 KiB window | bytes ... |
 */
#include "oci/inflate_chunk.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/err.h"
#include "base/mem.h"
#include "oci/inflate_find.h"

enum {
    TRIES = 4,                /* blocks begun by mistake, in a chunk: each costs up to all of it */
    STRETCH = INFLATE_WINDOW, /* symbols between two looks for unknown ones */
    UNKNOWN_BYTES = INFLATE_WINDOW * (int)sizeof(uint16_t),
};

struct inflate_chunk {
    struct inflate state;
    uint64_t origin, start;
    size_t search, n, max_n, cap; /* bytes: to search in, of input, of memory */
    size_t wide, bytes;           /* decoded as symbols, and then as bytes */
    uint8_t *in, *memory;
    uint8_t meaning[UINT16_MAX + 1]; /* of symbols: bytes, and the window; not used between them */
};

struct inflate_chunk *inflate_chunk_new(size_t input, size_t memory)
{
    struct inflate_chunk *c = mem_alloc(sizeof(*c));

    BUG_ON(memory < (size_t)4 * INFLATE_WINDOW);
    c->max_n = input;
    c->cap = memory;
    c->in = mem_alloc(input);
    c->memory = mem_alloc(UNKNOWN_BYTES + memory + INFLATE_SLACK * sizeof(uint16_t));
    for (unsigned i = 0; i < INFLATE_WINDOW; i++)
        ((uint16_t *)c->memory)[i] = (uint16_t)(INFLATE_UNKNOWN | i);
    for (unsigned i = 0; i < 256; i++)
        c->meaning[i] = (uint8_t)i;
    return c;
}

void inflate_chunk_free(struct inflate_chunk *c)
{
    if (!c)
        return;
    free(c->in);
    free(c->memory);
    free(c);
}

void inflate_chunk_fill(struct inflate_chunk *c, const uint8_t *in, size_t n, uint64_t origin,
                        size_t search)
{
    BUG_ON(n > c->max_n || search > n);
    memcpy(c->in, in, n);
    c->n = n;
    c->origin = origin;
    c->search = search;
    c->start = INFLATE_NOWHERE;
    c->wide = c->bytes = 0;
}

/* ---- decoding ---- */

static uint16_t *symbols(const struct inflate_chunk *c)
{
    return (uint16_t *)c->memory + INFLATE_WINDOW;
}

/* The window as bytes, in front of the bytes. */
static uint8_t *narrow(const struct inflate_chunk *c)
{
    return (uint8_t *)(symbols(c) + c->wide);
}

static bool has_unknown(const uint16_t *s, size_t n)
{
    for (size_t i = n; i; i -= 8) {
        uint64_t v[2];

        memcpy(v, s + i - 8, sizeof(v));
        if ((v[0] | v[1]) & 0x8000800080008000ULL)
            return true;
    }
    return false;
}

static bool is_over(const struct inflate_chunk *c, enum inflate_stop why)
{
    return why != INFLATE_BLOCK || c->state.pos >= (uint64_t)c->search * 8;
}

/* Bytes from here on; why: what the last stop was. */
static void decode_bytes(struct inflate_chunk *c)
{
    uint8_t *window = narrow(c);
    size_t taken = c->wide * sizeof(uint16_t);
    struct inflate_bytes out = {
        .at = window, .n = INFLATE_WINDOW, .cap = c->cap > taken ? c->cap - taken : 0};
    const uint16_t *last = symbols(c) + c->wide - INFLATE_WINDOW;

    if (out.cap < INFLATE_WINDOW + INFLATE_ROOM)
        return;
    for (size_t i = 0; i < INFLATE_WINDOW; i++)
        window[i] = (uint8_t)last[i];
    while (!is_over(c, inflate_block_bytes(&c->state, c->in, c->n, &out)))
        ;
    c->bytes = out.n - INFLATE_WINDOW;
}

static enum inflate_stop decode_from(struct inflate_chunk *c, uint64_t pos)
{
    const size_t cap = c->cap / sizeof(uint16_t) + INFLATE_WINDOW;
    struct inflate_symbols out = {.at = (uint16_t *)c->memory, .n = INFLATE_WINDOW};
    enum inflate_stop why;

    inflate_block_begin(&c->state, pos);
    do {
        out.cap = out.n + STRETCH < cap ? out.n + STRETCH : cap;
        do
            why = inflate_block_symbols(&c->state, c->in, c->n, &out);
        while (!is_over(c, why));
        c->wide = out.n - INFLATE_WINDOW;
        if (why != INFLATE_OUTPUT)
            return why;
        if (!has_unknown(out.at + out.n - INFLATE_WINDOW, INFLATE_WINDOW)) {
            decode_bytes(c);
            return INFLATE_OUTPUT;
        }
    } while (out.cap < cap);
    return why;
}

/* What begins by mistake ends in nonsense, mostly. What does not is seen through when nothing leads to it. */
void inflate_chunk_decode(struct inflate_chunk *c)
{
    uint64_t to = (uint64_t)c->search * 8, pos = 0;

    for (int i = 0; i < TRIES; i++, pos++) {
        pos = inflate_find(c->in, c->n, pos, to);
        if (pos == INFLATE_NOWHERE)
            break;
        if (decode_from(c, pos) != INFLATE_BAD) {
            c->start = c->origin * 8 + pos;
            return;
        }
    }
}

uint64_t inflate_chunk_start(const struct inflate_chunk *c)
{
    return c->start;
}

uint64_t inflate_chunk_end(const struct inflate_chunk *c)
{
    return c->origin * 8 + c->state.pos;
}

uint64_t inflate_chunk_origin(const struct inflate_chunk *c)
{
    return c->origin;
}

size_t inflate_chunk_used(const struct inflate_chunk *c)
{
    return c->wide * sizeof(uint16_t) + (c->bytes ? INFLATE_WINDOW + c->bytes : 0);
}

const struct inflate *inflate_chunk_state(const struct inflate_chunk *c)
{
    return &c->state;
}

/* ---- resolving ---- */

enum { STRIDE = 16 };

/* Sixteen at a time, where they are all known; true when they were. */
static inline bool narrow_known(const uint16_t *from, uint8_t *to)
{
#ifdef __SSE2__
    __m128i a = _mm_loadu_si128((const __m128i_u *)from);
    __m128i b = _mm_loadu_si128((const __m128i_u *)(from + STRIDE / 2));

    if (_mm_movemask_epi8(_mm_or_si128(a, b)) & 0xaaaa)
        return false;
    _mm_storeu_si128((__m128i_u *)to, _mm_packus_epi16(a, b));
    return true;
#else
    uint64_t v[STRIDE / 4];

    memcpy(v, from, sizeof(v));
    if ((v[0] | v[1] | v[2] | v[3]) & 0x8000800080008000ULL)
        return false;
    for (size_t i = 0; i < STRIDE; i++)
        to[i] = (uint8_t)from[i];
    return true;
#endif
}

/* Symbols to bytes; they may be at the same place. */
static void resolve(const uint16_t *from, size_t n, const uint8_t *meaning, uint8_t *to)
{
    size_t i = 0;

    for (; i + STRIDE <= n; i += STRIDE)
        if (!narrow_known(from + i, to + i))
            for (size_t k = i; k < i + STRIDE; k++)
                to[k] = meaning[from[k]];
    for (; i < n; i++)
        to[i] = meaning[from[i]];
}

void inflate_chunk_window(struct inflate_chunk *c, uint8_t *window)
{
    memcpy(c->meaning + INFLATE_UNKNOWN, window, INFLATE_WINDOW);
    if (c->bytes)
        memcpy(window, narrow(c) + c->bytes, INFLATE_WINDOW);
    else
        resolve(symbols(c) + c->wide - INFLATE_WINDOW, INFLATE_WINDOW, c->meaning, window);
}

void inflate_chunk_resolve(struct inflate_chunk *c)
{
    resolve(symbols(c), c->wide, c->meaning, (uint8_t *)symbols(c));
}

void inflate_chunk_parts(const struct inflate_chunk *c, struct inflate_part ret[2])
{
    ret[0] = (struct inflate_part){(const uint8_t *)symbols(c), c->wide};
    ret[1] = (struct inflate_part){narrow(c) + INFLATE_WINDOW, c->bytes};
}
