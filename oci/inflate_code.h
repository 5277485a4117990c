#pragma once
/*
 * inflate_code.h - the Huffman codes of a deflate block: its header read, and the tables that decode with it.
 *
 * Pure functions over bytes of a stranger: whatever they say, nothing outside the arrays given is touched. Bits are
 * counted from the lowest bit of in[0]. Threads: any.
 * Source: RFC 1951, 3.2.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"

enum {
    INFLATE_LITLEN_BITS = 11, /* of the first look-up; longer codes take a second */
    INFLATE_DIST_BITS = 8,
    INFLATE_LITLEN_MAX = 288,
    INFLATE_DIST_MAX = 32,
    /* Should every code need a second table of its own, incomplete as codes may be. The usual ones use the beginning. */
    INFLATE_LITLEN_TABLE =
        (1 << INFLATE_LITLEN_BITS) + (INFLATE_LITLEN_MAX << (15 - INFLATE_LITLEN_BITS)),
    INFLATE_DIST_TABLE = (1 << INFLATE_DIST_BITS) + (INFLATE_DIST_MAX << (15 - INFLATE_DIST_BITS))
};

/*
 * An entry: what a code means, and how many bits it and its extra bits have.
 *
 *   literal   LITERAL | byte << 16           | length << 8 | length
 *   length    base << 16                     | length << 8 | length + extra bits        (and distances)
 *   end       SPECIAL | EOB                  | length << 8 | length
 *   longer    SPECIAL | LONGER | first << 16 | bits of the second look-up << 8 | bits of the first
 *   no code   SPECIAL                        | bits of the look-up
 */
#define INFLATE_LITERAL (1U << 31)
#define INFLATE_SPECIAL (1U << 15)
#define INFLATE_LONGER  (1U << 14)
#define INFLATE_EOB     (1U << 13)

struct inflate_codes {
    uint32_t litlen[INFLATE_LITLEN_TABLE];
    uint32_t dist[INFLATE_DIST_TABLE];
};

/* Of a block's codes, by symbol; a literal/length code's, then the distance code's. */
struct inflate_lengths {
    uint16_t n_litlen, n_dist;
    uint8_t of[INFLATE_LITLEN_MAX + INFLATE_DIST_MAX];
};

/* At least 57 bits from bit `pos` on; zeros behind the end. */
static inline uint64_t inflate_code_peek(const uint8_t *in, size_t n, uint64_t pos)
{
    size_t at = (size_t)(pos >> 3);
    uint64_t v = 0;

    if (at + sizeof(v) <= n)
        memcpy(&v, in + at, sizeof(v));
    else if (at < n)
        memcpy(&v, in + at, n - at);
    return v >> (pos & 7);
}

/*
 * Read a dynamic block's header from bit *pos, just behind the block's type.
 *   1   read; *pos is the first code's bit
 *   0   the input ends within it
 *   -1  no header
 */
int inflate_code_read(const uint8_t *in, size_t n, uint64_t *pos, struct inflate_lengths *ret)
    MUST_CHECK;
void inflate_code_fixed(struct inflate_lengths *ret);
/* Would a compressor have made these? Complete codes with an end; no distances, or one of a bit, are usual too. */
bool inflate_code_is_usual(const struct inflate_lengths *l);
/* Could they have been read from a header? For those that come from elsewhere. */
bool inflate_code_is_readable(const struct inflate_lengths *l);
/* Of readable lengths. False where more codes are said to be than there can be. Codes left over decode to "no code". */
bool inflate_code_build(const struct inflate_lengths *l, struct inflate_codes *ret) MUST_CHECK;
