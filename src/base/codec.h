#pragma once
/*
 * codec.h - gzip (ISA-L), zstd and plain streams, as push decoders and a gzip encoder (S30).
 *
 * A decoder is fed compressed bytes and gives plain ones to a sink as they come. Multi-member gzip and
 * multi-frame or skippable zstd are whole; truncation, checksum errors and trailing garbage are errors
 * (at codec_finish). Threads: one at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct str;
struct unpack;
struct codec;

enum codec_kind { CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD };

typedef int codec_sink(void *arg, const void *data, size_t n, struct err *e);

struct codec *codec_decoder(enum codec_kind kind, uint64_t max_output, codec_sink *sink, void *arg);
/* Compressing; level 1..3 (ISA-L). Output goes to the sink; finish writes the trailer. */
struct codec *codec_gzip_encoder(int level, codec_sink *sink, void *arg);
int codec_feed(struct codec *c, const void *data, size_t n, struct err *e) MUST_CHECK;
int codec_finish(struct codec *c, struct err *e) MUST_CHECK;
/*
 * A decoder's state between two calls of codec_feed, for one of the same kind in a later process of this very program.
 * Save is false where there is none to be had (zstd: within a frame) or the buffer is full; restore, of a new decoder,
 * when it is no such state.
 */
enum codec_kind codec_kind(const struct codec *c);
bool codec_save(const struct codec *c, struct str *out);
bool codec_restore(struct codec *c, struct unpack *in);
uint64_t codec_bytes_in(const struct codec *c);
uint64_t codec_bytes_out(const struct codec *c);
void codec_free(struct codec *c);
DEFINE_AUTO(codec, codec_free)
