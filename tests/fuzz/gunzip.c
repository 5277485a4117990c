/*
 * Any bytes as a layer's gzip stream (S30): the decoder for several cores and the one for one say the same, and give the
 * same bytes; and what zlib takes, both take.
 *
 * The first byte says what the rest is: a whole stream, or (by far more often, as sums are hard to guess) the blocks of
 * one member, which gets its sums from zlib, maybe behind a beginning that fills the window, so that chunks are adopted.
 */
#include "oci/gunzip.h"

#include <string.h>
#include <zlib.h>

#include "base/bounds.h"
#include "base/codec.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"
#include "fuzz.h"
#include "oci/inflate_crew.h"

enum { OUTPUT_MAX = 4 * 1024 * 1024, BEGINNING = 40000 };
static const char head[] = "\x1f\x8b\x08\0\0\0\0\0\0\xff";

static void add(struct str *s, const void *data, size_t n)
{
    BUG_ON(str_append(s, data, n) < 0);
}

static int to_str(void *arg, const void *data, size_t n, struct err *e)
{
    return str_append(arg, data, n) == 0 ? 0 : err_set(e, ERR_LIMIT, "too much");
}

/* ---- the others ---- */

static int by_codec(const struct str *in, struct str *out, struct err *e)
{
    AUTO(codec) struct codec *c = codec_decoder(CODEC_GZIP, OUTPUT_MAX, to_str, out);

    return codec_feed(c, in->buf, in->len, e) < 0 ? -1 : codec_finish(c, e);
}

/* One member's blocks: 1 when they end; then their length too. */
static int by_zlib(const struct str *in, struct str *out, size_t *ret_used)
{
    AUTO_FREE unsigned char *buf = mem_alloc(65536);
    z_stream z = {.next_in = (unsigned char *)in->buf, .avail_in = (unsigned)in->len};
    int rc;

    BUG_ON(inflateInit2(&z, -15) != Z_OK);
    do {
        z.next_out = buf;
        z.avail_out = 65536;
        rc = inflate(&z, Z_NO_FLUSH);
        if (str_append(out, buf, 65536 - z.avail_out) < 0)
            rc = Z_BUF_ERROR;
    } while (rc == Z_OK);
    *ret_used = in->len - z.avail_in;
    inflateEnd(&z);
    return rc == Z_STREAM_END;
}

/* ---- ours ---- */

static int by_us(struct inflate_crew *crew, const struct str *in, size_t piece, size_t cut,
                 struct str *out, struct err *e)
{
    AUTO(str) struct str state = STR_INIT(BOUND_MIB);
    AUTO(gunzip) struct gunzip *g = gunzip_new(crew, OUTPUT_MAX, to_str, out);

    for (size_t at = 0; at < in->len; at += piece) {
        if (gunzip_feed(g, in->buf + at, in->len - at < piece ? in->len - at : piece, e) < 0)
            return -1;
        if (!cut || at / cut == (at + piece) / cut)
            continue;
        /* As a restarted worker would. */
        if (gunzip_settle(g, e) < 0)
            return -1;
        str_clear(&state);
        BUG_ON(!gunzip_save(g, &state));
        struct unpack u = {state.buf, state.len};

        gunzip_free(g);
        g = gunzip_new(crew, OUTPUT_MAX, to_str, out);
        BUG_ON(!gunzip_restore(g, &u) || u.n);
    }
    return gunzip_finish(g, e);
}

/* All ways end the same. Without a verdict of zlib's: 0 good, -1 bad, by the codec. */
static void compare(const struct str *in, int wanted, const struct str *wanted_out, struct err *why)
{
    static const struct inflate_crew_opts o = {
        .chunks = 6, .search = 300, .input = 1200, .memory = 160 * 1024, .dir = -1};
    static struct inflate_crew *crew; /* for all inputs: it remembers nothing of them */

    if (!crew)
        crew = inflate_crew_new(&o);
    for (int way = 0; way < 3; way++) {
        AUTO(str) struct str out = STR_INIT(OUTPUT_MAX);
        struct err e = ERR_INIT;
        int rc = by_us(way ? crew : NULL, in, way == 1 ? in->len + 1 : 61, way == 2 ? 4000 : 0,
                       &out, &e);
        size_t same = out.len < wanted_out->len ? out.len : wanted_out->len;

        BUG_ON(rc != wanted || e.kind != why->kind);
        BUG_ON(rc == 0 && out.len != wanted_out->len);
        BUG_ON(same && memcmp(out.buf, wanted_out->buf, same) != 0);
    }
}

static void check(const struct str *in)
{
    AUTO(str) struct str out = STR_INIT(OUTPUT_MAX);
    struct err e = ERR_INIT;
    int rc = by_codec(in, &out, &e);

    compare(in, rc, &out, &e);
}

/* Text, of some blocks, that ends at a byte's edge with more to follow. */
static void make_beginning(struct str *out)
{
    AUTO_FREE unsigned char *text = mem_alloc(BEGINNING), *buf = mem_alloc(BEGINNING);
    z_stream z = {0};
    uint32_t seed = 1;

    for (int i = 0; i < BEGINNING; i++) {
        seed = seed * 1664525 + 1013904223;
        text[i] =
            i % 7 ? (unsigned char)"layer of an image"[seed >> 28] : (unsigned char)(seed >> 24);
    }
    BUG_ON(deflateInit2(&z, 6, Z_DEFLATED, -15, 3, Z_DEFAULT_STRATEGY) != Z_OK);
    z.next_in = text;
    z.avail_in = BEGINNING;
    z.next_out = buf;
    z.avail_out = BEGINNING;
    BUG_ON(deflate(&z, Z_SYNC_FLUSH) != Z_OK || z.avail_in || !z.avail_out);
    add(out, buf, BEGINNING - z.avail_out);
    deflateEnd(&z);
}

static void put_beginning(struct str *out)
{
    static struct str made = {.max = BOUND_MIB};

    if (!made.len)
        make_beginning(&made);
    add(out, made.buf, made.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTO(str)
    struct str in = STR_INIT(2 * BOUND_MIB), blocks = STR_INIT(2 * BOUND_MIB),
               out = STR_INIT(OUTPUT_MAX);
    size_t used;

    if (!n || n > BOUND_MIB)
        return 0;
    if (data[0] % 8 == 0) {
        add(&in, data + 1, n - 1);
        check(&in);
        return 0;
    }
    if (data[0] % 2)
        put_beginning(&blocks);
    add(&blocks, data + 1, n - 1);
    add(&in, head, sizeof(head) - 1);
    if (!by_zlib(&blocks, &out, &used)) {
        add(&in, blocks.buf, blocks.len);
        check(&in);
        return 0;
    }
    uint32_t sums[2] = {(uint32_t)crc32(0, (unsigned char *)str_text(&out), (unsigned)out.len),
                        (uint32_t)out.len};
    struct err none = ERR_INIT;

    add(&in, blocks.buf, used);
    add(&in, sums, sizeof(sums));
    compare(&in, 0, &out, &none);
    return 0;
}
