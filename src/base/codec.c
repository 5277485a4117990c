/*
 * A codec is a push pipe: bytes in, bytes to the sink. One buffer of output is reused, so memory is
 * constant whatever the stream says; the output cap is checked before each call of the sink (S30).
 */
#include "base/codec.h"

#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <string.h>
#include <zstd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"

enum { OUTPUT_BUFFER = 256 * 1024 };

struct codec {
    enum codec_kind kind;
    int (*feed)(struct codec *c, const uint8_t *data, size_t n, struct err *e);
    int (*finish)(struct codec *c, struct err *e);
    codec_sink *sink;
    void *arg;
    uint64_t max_output, in, out;
    uint8_t *buf; /* OUTPUT_BUFFER bytes; NULL for plain */

    struct inflate_state *inflate;
    uint64_t header_bytes; /* of the gzip member being read, until its first block */
    bool between;          /* gzip: a member has ended; zstd: a frame has ended or none begun */

    ZSTD_DStream *zstd;

    struct isal_zstream *deflate;
    uint8_t *deflate_level;
};

static int give(struct codec *c, const void *data, size_t n, struct err *e)
{
    if (!n)
        return 0;
    if (c->max_output && n > c->max_output - c->out)
        return err_set(e, ERR_LIMIT, "more than %llu bytes when decompressed",
                       (unsigned long long)c->max_output);
    c->out += n;
    return c->sink(c->arg, data, n, e);
}

static int plain_feed(struct codec *c, const uint8_t *data, size_t n, struct err *e)
{
    return give(c, data, n, e);
}

static int plain_finish(struct codec *c UNUSED, struct err *e UNUSED)
{
    return 0;
}

static const char *inflate_problem(int rc)
{
    switch (rc) {
    case ISAL_INVALID_BLOCK: return "invalid block";
    case ISAL_INVALID_SYMBOL: return "invalid symbol";
    case ISAL_INVALID_LOOKBACK: return "reference before the start";
    case ISAL_INVALID_WRAPPER: return "not a gzip header";
    case ISAL_UNSUPPORTED_METHOD: return "unknown compression method";
    case ISAL_INCORRECT_CHECKSUM: return "wrong checksum";
    default: return "broken";
    }
}

static bool in_gzip_header(const struct inflate_state *s)
{
    return s->wrapper_flag == 0;
}

static int gzip_feed(struct codec *c, const uint8_t *data, size_t n, struct err *e)
{
    struct inflate_state *s = c->inflate;

    while (n) {
        uint32_t part = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;

        if (c->between) {
            isal_inflate_reset(s);
            s->crc_flag = ISAL_GZIP;
            c->between = false;
            c->header_bytes = 0;
        }
        s->next_in = (uint8_t *)data;
        s->avail_in = part;
        do {
            s->next_out = c->buf;
            s->avail_out = OUTPUT_BUFFER;
            int rc = isal_inflate(s);

            if (rc < 0 || rc == ISAL_NEED_DICT)
                return err_set(e, ERR_USER, "gzip stream: %s", inflate_problem(rc));
            if (give(c, c->buf, OUTPUT_BUFFER - s->avail_out, e) < 0)
                return -1;
        } while (s->block_state != ISAL_BLOCK_FINISH && (s->avail_in || !s->avail_out));
        uint32_t used = part - s->avail_in;

        if (in_gzip_header(s) && (c->header_bytes += used) > BOUND_GZIP_HEADER)
            return err_set(e, ERR_LIMIT, "gzip stream: header above %llu bytes", BOUND_GZIP_HEADER);
        data += used;
        n -= used;
        c->between = s->block_state == ISAL_BLOCK_FINISH;
        if (!used && !c->between)
            return err_set(e, ERR_USER, "gzip stream: broken");
    }
    return 0;
}

static int gzip_finish(struct codec *c, struct err *e)
{
    return c->between ? 0 : err_set(e, ERR_USER, "gzip stream: ends early");
}

static int zstd_feed(struct codec *c, const uint8_t *data, size_t n, struct err *e)
{
    ZSTD_inBuffer in = {.src = data, .size = n};
    bool full = false;

    while (in.pos < in.size || full) {
        ZSTD_outBuffer out = {.dst = c->buf, .size = OUTPUT_BUFFER};
        size_t rc = ZSTD_decompressStream(c->zstd, &out, &in);

        if (ZSTD_isError(rc))
            return err_set(e, ERR_USER, "zstd stream: %s", ZSTD_getErrorName(rc));
        c->between = rc == 0;
        if (give(c, c->buf, out.pos, e) < 0)
            return -1;
        full = out.pos == out.size && rc != 0;
    }
    return 0;
}

static int zstd_finish(struct codec *c, struct err *e)
{
    return c->between ? 0 : err_set(e, ERR_USER, "zstd stream: ends early");
}

static int deflate_run(struct codec *c, const uint8_t *data, size_t n, bool end, struct err *e)
{
    struct isal_zstream *z = c->deflate;

    do {
        uint32_t part = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;

        z->next_in = (uint8_t *)data;
        z->avail_in = part;
        z->end_of_stream = end && part == n;
        do {
            z->next_out = c->buf;
            z->avail_out = OUTPUT_BUFFER;
            if (isal_deflate(z) != COMP_OK)
                return err_set(e, ERR_BUG, "gzip encoder refuses its input");
            if (give(c, c->buf, OUTPUT_BUFFER - z->avail_out, e) < 0)
                return -1;
        } while (!z->avail_out || z->avail_in);
        data += part;
        n -= part;
    } while (n);
    return 0;
}

static int encoder_feed(struct codec *c, const uint8_t *data, size_t n, struct err *e)
{
    return n ? deflate_run(c, data, n, false, e) : 0;
}

static int encoder_finish(struct codec *c, struct err *e)
{
    return deflate_run(c, (const uint8_t *)"", 0, true, e);
}

static struct codec *codec_new(uint64_t max_output, codec_sink *sink, void *arg)
{
    struct codec *c = mem_new(struct codec);

    c->max_output = max_output;
    c->sink = sink;
    c->arg = arg;
    return c;
}

struct codec *codec_decoder(enum codec_kind kind, uint64_t max_output, codec_sink *sink, void *arg)
{
    struct codec *c = codec_new(max_output, sink, arg);

    c->kind = kind;
    switch (kind) {
    case CODEC_GZIP:
        c->feed = gzip_feed;
        c->finish = gzip_finish;
        c->inflate = mem_new(struct inflate_state);
        isal_inflate_init(c->inflate);
        c->inflate->crc_flag = ISAL_GZIP;
        break;
    case CODEC_ZSTD:
        c->feed = zstd_feed;
        c->finish = zstd_finish;
        c->zstd = ZSTD_createDStream();
        BUG_ON(!c->zstd);
        ZSTD_DCtx_setParameter(c->zstd, ZSTD_d_windowLogMax, BOUND_ZSTD_WINDOW_LOG);
        break;
    case CODEC_PLAIN:
        c->feed = plain_feed;
        c->finish = plain_finish;
        return c;
    }
    c->buf = mem_alloc(OUTPUT_BUFFER);
    return c;
}

static uint32_t level_buffer_size(int level)
{
    return level == 1   ? ISAL_DEF_LVL1_DEFAULT
           : level == 2 ? ISAL_DEF_LVL2_DEFAULT
                        : ISAL_DEF_LVL3_DEFAULT;
}

struct codec *codec_gzip_encoder(int level, codec_sink *sink, void *arg)
{
    struct codec *c = codec_new(0, sink, arg);

    BUG_ON(level < 1 || level > 3);
    c->feed = encoder_feed;
    c->finish = encoder_finish;
    c->buf = mem_alloc(OUTPUT_BUFFER);
    c->deflate = mem_new(struct isal_zstream);
    isal_deflate_init(c->deflate);
    c->deflate->gzip_flag = IGZIP_GZIP;
    c->deflate->level = (uint32_t)level;
    c->deflate->level_buf_size = level_buffer_size(level);
    c->deflate->level_buf = c->deflate_level = mem_alloc(c->deflate->level_buf_size);
    return c;
}

int codec_feed(struct codec *c, const void *data, size_t n, struct err *e)
{
    c->in += n;
    return c->feed(c, data, n, e);
}

int codec_finish(struct codec *c, struct err *e)
{
    return c->finish(c, e);
}

uint64_t codec_bytes_in(const struct codec *c)
{
    return c->in;
}

uint64_t codec_bytes_out(const struct codec *c)
{
    return c->out;
}

enum codec_kind codec_kind(const struct codec *c)
{
    return c->kind;
}

bool codec_save(const struct codec *c, struct str *out)
{
    if (c->kind == CODEC_ZSTD && !c->between)
        return false;
    return pack_u64(out, c->in) && pack_u64(out, c->out) && pack_u64(out, c->header_bytes) &&
           pack_u64(out, c->between) &&
           pack_bytes(out, c->inflate, c->inflate ? sizeof(*c->inflate) : 0);
}

bool codec_restore(struct codec *c, struct unpack *in)
{
    uint64_t between;

    if (!pack_read_u64(in, &c->in) || !pack_read_u64(in, &c->out) ||
        !pack_read_u64(in, &c->header_bytes) || !pack_read_u64(in, &between) ||
        !pack_read_bytes(in, c->inflate, c->inflate ? sizeof(*c->inflate) : 0))
        return false;
    c->between = between;
    if (c->inflate) {
        /* ISA-L keeps all history inside; only these two point out. */
        c->inflate->next_in = c->inflate->next_out = NULL;
        c->inflate->avail_in = c->inflate->avail_out = 0;
    }
    return true;
}

void codec_free(struct codec *c)
{
    if (!c)
        return;
    free(c->inflate);
    ZSTD_freeDStream(c->zstd);
    free(c->deflate);
    free(c->deflate_level);
    free(c->buf);
    free(c);
}
