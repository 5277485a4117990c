/*
 * A layer's bytes are decoded by base/codec, on one core; or, when they are gzip, many, and there is somebody to help, by
 * oci/gunzip. Both say the same.
 */
#include <string.h>

#include "base/bounds.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/pack.h"
#include "base/str.h"
#include "oci/gunzip.h"
#include "oci/layer_inner.h"

/* The bytes say what they are; media types lie now and then, and the digest vouches for the bytes. */
static enum codec_kind kind_of(const unsigned char *head, size_t n)
{
    if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b)
        return CODEC_GZIP;
    if (n >= 4 && !memcmp(head, "\x28\xb5\x2f\xfd", 4))
        return CODEC_ZSTD;
    if (n >= 4 && (head[0] & 0xf0) == 0x50 && !memcmp(head + 1, "\x2a\x4d\x18", 3))
        return CODEC_ZSTD; /* skippable frame */
    return CODEC_PLAIN;
}

bool oci_layer_decoder_is_there(const struct oci_layer *l)
{
    return l->codec || l->gunzip;
}

bool oci_layer_decoder_make(struct oci_layer *l, uint64_t kind)
{
    if (kind == LAYER_GUNZIP)
        l->gunzip = gunzip_new(l->crew, BOUND_UNPACKED, oci_layer_plain, l);
    else if (kind <= CODEC_ZSTD)
        l->codec = codec_decoder((enum codec_kind)kind, BOUND_UNPACKED, oci_layer_plain, l);
    return oci_layer_decoder_is_there(l);
}

void oci_layer_decoder_choose(struct oci_layer *l)
{
    enum codec_kind kind = kind_of(l->head, l->head_n);
    bool helped = kind == CODEC_GZIP && l->crew && l->desc.size >= OCI_LAYER_WORTH_HELP;

    oci_layer_decoder_make(l, helped ? LAYER_GUNZIP : (uint64_t)kind);
}

void oci_layer_decoder_free(struct oci_layer *l)
{
    codec_free(l->codec);
    gunzip_free(l->gunzip);
}

int oci_layer_decoder_feed(struct oci_layer *l, const void *data, size_t n, struct err *e)
{
    return l->gunzip ? gunzip_feed(l->gunzip, data, n, e) : codec_feed(l->codec, data, n, e);
}

int oci_layer_decoder_settle(struct oci_layer *l, struct err *e)
{
    return l->gunzip ? gunzip_settle(l->gunzip, e) : 0;
}

int oci_layer_decoder_finish(struct oci_layer *l, struct err *e)
{
    return l->gunzip ? gunzip_finish(l->gunzip, e) : codec_finish(l->codec, e);
}

uint64_t oci_layer_decoder_out(const struct oci_layer *l)
{
    return l->gunzip ? gunzip_bytes_out(l->gunzip) : codec_bytes_out(l->codec);
}

bool oci_layer_decoder_save(const struct oci_layer *l, struct str *out)
{
    if (l->gunzip)
        return pack_u64(out, LAYER_GUNZIP) && gunzip_save(l->gunzip, out);
    return pack_u64(out, codec_kind(l->codec)) && codec_save(l->codec, out);
}

bool oci_layer_decoder_restore(struct oci_layer *l, struct unpack *in)
{
    uint64_t kind;

    if (!pack_read_u64(in, &kind) || !oci_layer_decoder_make(l, kind))
        return false;
    return l->gunzip ? gunzip_restore(l->gunzip, in) : codec_restore(l->codec, in);
}
