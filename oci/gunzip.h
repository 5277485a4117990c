#pragma once
/*
 * gunzip.h - one gzip stream, decoded on several cores when there are any idle.
 *
 * What base/codec.h does for CODEC_GZIP on one, with the same verdicts in the same words (S30): several members, headers
 * with all their fields, both sums of each member; anything behind the last one is an error.
 *
 *   bytes come ─► up to 1.5 MiB are kept ─► the decoder, from block to block ──────────────► sink, in order
 *                        └─ copies of what is far ahead ─► crew: chunks, guessed ─► adopted ─┘
 *
 * The decoder knows exactly where it is, and what it says is the truth. A chunk decoded ahead is taken over when the
 * decoder stands at the very bit where it began, and dropped otherwise: a wrong guess costs time, never correctness.
 * When input is what is waited for, nothing is guessed.
 *
 * Memory: 2.8 MiB, and the crew's; 0.6 where the crew helps another stream. Threads: one at a time; the crew's do what they do on copies.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct gunzip;
struct inflate_crew;
struct str;
struct unpack;

typedef int gunzip_sink(void *arg, const void *data, size_t n, struct err *e);

/* crew: borrowed until gunzip_finish or gunzip_free, or NULL: then this thread decodes alone. max_output: 0 for any. */
struct gunzip *gunzip_new(struct inflate_crew *crew, uint64_t max_output, gunzip_sink *sink,
                          void *arg);
void gunzip_free(struct gunzip *g);
DEFINE_AUTO(gunzip, gunzip_free)
/* Takes all; may leave some of it for later. Errors: ERR_USER broken, ERR_LIMIT a bound, the sink's. */
int gunzip_feed(struct gunzip *g, const void *data, size_t n, struct err *e) MUST_CHECK;
/* Decodes whatever can be of what was fed. */
int gunzip_settle(struct gunzip *g, struct err *e) MUST_CHECK;
int gunzip_finish(struct gunzip *g, struct err *e) MUST_CHECK;
uint64_t gunzip_bytes_out(const struct gunzip *g);
/* Right after gunzip_settle: the state, for a later process of this very program. As codec_save and codec_restore. */
bool gunzip_save(const struct gunzip *g, struct str *out);
bool gunzip_restore(struct gunzip *g, struct unpack *in);
/* For tests and benchmarks: bytes that came from chunks. */
uint64_t gunzip_bytes_ahead(const struct gunzip *g);
