#pragma once
/*
 * inflate_chunk.h - a piece from the middle of a deflate stream, decoded before what is in front of it.
 *
 * It is a guess until the decoder of what is in front comes to the very bit where it begins. Then its window is known
 * (inflate_chunk_window gives the next one's, soon), and what it could not know is filled in (inflate_chunk_resolve). Where
 * it stopped, and why, does not matter: its decoder is taken over in whatever state it is.
 *
 * Order: inflate_chunk_fill, inflate_chunk_decode, then if it is adopted inflate_chunk_window, inflate_chunk_resolve,
 * inflate_chunk_parts. Threads: one at a time.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "oci/inflate_block.h"

struct inflate_chunk;

struct inflate_part {
    const uint8_t *data;
    size_t n;
};

/* input: bytes it may be given; memory: of what it decodes, 64 KiB more are taken for its window. */
struct inflate_chunk *inflate_chunk_new(size_t input, size_t memory);
void inflate_chunk_free(struct inflate_chunk *c);
DEFINE_AUTO(inflate_chunk, inflate_chunk_free)
/* Bytes of the stream from `origin` on; a block is looked for in the first `search` of them, and decoding ends with the
 * first block that begins behind these. Copied. */
void inflate_chunk_fill(struct inflate_chunk *c, const uint8_t *in, size_t n, uint64_t origin,
                        size_t search);
void inflate_chunk_decode(struct inflate_chunk *c);
/* In bits of the stream; INFLATE_NOWHERE when no block was found, or nothing came of those that were. */
uint64_t inflate_chunk_start(const struct inflate_chunk *c);
uint64_t inflate_chunk_end(const struct inflate_chunk *c);
/* First byte of it. */
uint64_t inflate_chunk_origin(const struct inflate_chunk *c);
/* Memory that was used. */
size_t inflate_chunk_used(const struct inflate_chunk *c);
/* The decoder where it stopped, its pos counted from the origin. */
const struct inflate *inflate_chunk_state(const struct inflate_chunk *c);
/* window: INFLATE_WINDOW bytes in front of the chunk; afterwards those in front of what comes after it. */
void inflate_chunk_window(struct inflate_chunk *c, uint8_t *window);
/* Fills in what was not known, from the window that it was given. Then there are: */
void inflate_chunk_resolve(struct inflate_chunk *c);
void inflate_chunk_parts(const struct inflate_chunk *c, struct inflate_part ret[2]);
