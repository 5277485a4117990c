#pragma once
/*
 * inflate_block.h - a deflate stream decoded, block by block.
 *
 * Bytes are written behind those that are there already, which are the window that matches may reach back into. Where
 * the window is not known, symbols of 16 bits are written instead: a byte, or INFLATE_UNKNOWN | place in the 32 KiB
 * before the first symbol, to be looked up later.
 *
 * It can stop at any bit: what is not used of the input is given again, with more. Nothing is kept of the input, so the
 * owner may move it, and count `pos` anew. After INFLATE_BAD it stays bad. Threads: any, one at a time on one object.
 * Source: RFC 1951.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "oci/inflate_code.h"

enum {
    INFLATE_WINDOW = 32768,
    INFLATE_SLACK = 64, /* elements behind `cap` that may be overwritten */
    INFLATE_ROOM = 512, /* INFLATE_OUTPUT is said when less than that is left */
    INFLATE_UNKNOWN = 0x8000
};

enum inflate_stop {
    INFLATE_INPUT,  /* more is needed */
    INFLATE_OUTPUT, /* more room is needed */
    INFLATE_BLOCK,  /* a block has ended, another one follows */
    INFLATE_END,    /* the last block has ended */
    INFLATE_BAD
};
enum inflate_problem { INFLATE_FINE, INFLATE_BAD_BLOCK, INFLATE_BAD_SYMBOL, INFLATE_BAD_DISTANCE };
enum inflate_place { INFLATE_BETWEEN, INFLATE_STORED, INFLATE_CODED, INFLATE_ENDED };

struct inflate {
    uint64_t pos; /* next bit, from in[0] on */
    enum inflate_place place;
    bool final;      /* the block is the last one */
    uint32_t stored; /* bytes left of a stored block */
    enum inflate_problem problem;
    struct inflate_lengths lengths; /* of the coded block */
    struct inflate_codes codes;     /* made of them */
};

struct inflate_bytes {
    uint8_t *at;           /* cap + INFLATE_SLACK of them */
    size_t n, cap, oldest; /* used; room; the first that matches may reach */
};
struct inflate_symbols {
    uint16_t *at;
    size_t n, cap; /* n begins at INFLATE_WINDOW, behind the unknown ones */
};

/* A stream's first block begins at bit pos. */
void inflate_block_begin(struct inflate *s, uint64_t pos);
enum inflate_stop inflate_block_bytes(struct inflate *s, const uint8_t *in, size_t n,
                                      struct inflate_bytes *out);
enum inflate_stop inflate_block_symbols(struct inflate *s, const uint8_t *in, size_t n,
                                        struct inflate_symbols *out);
