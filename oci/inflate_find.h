#pragma once
/*
 * inflate_find.h - where, in the middle of a deflate stream, may a block begin?
 *
 * Two kinds can be told from noise: dynamic blocks, whose header holds three complete codes, and stored ones, whose length
 * is written twice. Neither is proof: what comes of it counts only when the blocks before end exactly there. Blocks
 * with the fixed codes, and last ones, are not found. Threads: any.
 */
#include <stddef.h>
#include <stdint.h>

#define INFLATE_NOWHERE UINT64_MAX

/*
 * The first place from bit `from` on, and before `to`, with all of its header in `in`; INFLATE_NOWHERE when there is none.
 * A stored block's is the bit three before its length, where its header stands unless it is padded: see inflate_find_name.
 */
uint64_t inflate_find(const uint8_t *in, size_t n, uint64_t from, uint64_t to);
/* What begins at bit `pos`, which is certain: where would inflate_find have said that it is? */
uint64_t inflate_find_name(const uint8_t *in, size_t n, uint64_t pos);
