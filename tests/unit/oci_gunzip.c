/* threads: yes */
/* timeout: 240 */
/* rows: S30 */
#include <pthread.h>
#include <zlib.h>

#include "base/bounds.h"
#include "base/codec.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"
#include "oci/gunzip.h"
#include "oci/gunzip_inner.h"
#include "oci/inflate_chunk.h"
#include "oci/inflate_crew.h"
#include "oci/inflate_find.h"
#include "test.h"

/* Small, so that a stream of some hundred KiB is many chunks. */
static const struct inflate_crew_opts small = {
    .threads = 3, .chunks = 5, .search = 16384, .input = 24576, .memory = 160 * 1024, .dir = -1};
static const struct inflate_crew_opts at_once = {
    .threads = 0, .chunks = 5, .search = 16384, .input = 24576, .memory = 160 * 1024, .dir = -1};

static uint64_t seed = 1;

static uint32_t number(uint32_t below)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % below;
}

/* ---- data and streams ---- */

static void add(struct str *s, const void *data, size_t n)
{
    assert_int_equal(str_append(s, data, n), 0);
}

enum { TEXT, NOISE, ZEROS, RECORDS, MIXED, DATA_KINDS };

static void put_word(struct str *out)
{
    static const char *words[] = {"the ", "layer ",    "of ", "an ", "image ",
                                  "is ",  "unpacked ", "\n",  "0x",  "sha256:"};
    const char *word = words[number(ARRAY_SIZE(words))];
    char odd[16];

    if (number(6) == 0)
        add(out, odd, (size_t)snprintf(odd, sizeof(odd), "%x ", number(1 << 20)));
    else
        add(out, word, strlen(word));
}

static void put_data(struct str *out, int kind, size_t n)
{
    size_t end = out->len + n;

    while (out->len < end) {
        uint32_t v = number(1 << 30);
        char record[16] = {(char)v, 0, 0, 7, 0, (char)(v >> 20 & 3), 0, 0, (char)(v >> 9 & 15)};

        switch (kind) {
        case TEXT: put_word(out); break;
        case NOISE: add(out, (const char *)&v, 3); break;
        case ZEROS: add(out, "\0\0\0\0\0\0\0", 8); break;
        case RECORDS: add(out, record, sizeof(record)); break;
        default: put_data(out, (int)number(MIXED), 1 + number(60000)); break;
        }
    }
}

struct way {
    int level, strategy, memory, flush; /* flush: each `every` bytes */
    size_t every;
    bool apart; /* no window from one piece to the next, as pigz -i */
};

static void raw_deflate(const struct str *data, const struct way *w, struct str *out)
{
    z_stream z = {0};
    size_t every = w->every ? w->every : data->len;
    AUTO_FREE unsigned char *buf = mem_alloc(1 << 16);

    assert_int_equal(deflateInit2(&z, w->level, Z_DEFLATED, -15, w->memory, w->strategy), Z_OK);
    for (size_t at = 0; at <= data->len; at += every) {
        bool last = data->len - at <= every;

        z.next_in = (unsigned char *)data->buf + at;
        z.avail_in = (unsigned)(last ? data->len - at : every);
        do {
            z.next_out = buf;
            z.avail_out = 1 << 16;
            deflate(&z, last ? Z_FINISH : w->flush);
            add(out, (char *)buf, (size_t)((1 << 16) - z.avail_out));
        } while (!z.avail_out);
        if (last)
            break;
        if (w->apart) {
            /* A stream of its own, joined where both are at a byte's edge. */
            assert_int_equal(deflateReset(&z), Z_OK);
        }
    }
    deflateEnd(&z);
}

static void put_trailer(const struct str *data, struct str *out)
{
    uint32_t sums[2] = {(uint32_t)crc32(0, (const unsigned char *)data->buf, (unsigned)data->len),
                        (uint32_t)data->len};

    add(out, (const char *)sums, sizeof(sums));
}

static void put_member(const struct str *data, const struct way *w, struct str *out)
{
    add(out, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
    raw_deflate(data, w, out);
    put_trailer(data, out);
}

/* ---- decoding ---- */

static int to_str(void *arg, const void *data, size_t n, struct err *e UNUSED)
{
    return str_append(arg, data, n);
}

static int feed(struct gunzip *g, const struct str *in, size_t from, size_t piece, struct err *e)
{
    for (size_t at = from; at < in->len;) {
        size_t n = piece ? piece : 1 + number(100000);

        n = n < in->len - at ? n : in->len - at;
        if (gunzip_feed(g, in->buf + at, n, e) < 0)
            return -1;
        at += n;
    }
    return 0;
}

/* ret_ahead: bytes that chunks gave. */
static int decode(const struct inflate_crew_opts *o, const struct str *in, size_t piece,
                  struct str *out, uint64_t *ret_ahead, struct err *e)
{
    AUTO(inflate_crew) struct inflate_crew *crew = o ? inflate_crew_new(o) : NULL;
    AUTO(gunzip) struct gunzip *g = gunzip_new(crew, 0, to_str, out);
    int rc = feed(g, in, 0, piece, e) < 0 ? -1 : gunzip_finish(g, e);

    if (ret_ahead)
        *ret_ahead = gunzip_bytes_ahead(g);
    return rc;
}

/* On one core, as other machines would. */
static int decode_alone(const struct str *in, struct str *out, struct err *e)
{
    AUTO(codec) struct codec *c = codec_decoder(CODEC_GZIP, 0, to_str, out);

    return codec_feed(c, in->buf, in->len, e) < 0 ? -1 : codec_finish(c, e);
}

static void check_same(const struct str *got, const struct str *wanted)
{
    assert_int_equal(got->len, wanted->len);
    assert_memory_equal(got->buf, wanted->buf, wanted->len);
}

static uint64_t check(const struct str *blob, const struct str *data)
{
    static const struct inflate_crew_opts *const crews[] = {NULL, &small, &at_once};
    uint64_t ahead = 0;

    for (size_t i = 0; i < ARRAY_SIZE(crews); i++) {
        AUTO(str) struct str out = STR_INIT(64 * BOUND_MIB);
        struct err e = ERR_INIT;

        assert_ok(decode(crews[i], blob, 0, &out, &ahead, &e), &e);
        check_same(&out, data);
    }
    return ahead;
}

/* ---- tests ---- */

static void every_kind_and_level(void **state UNUSED)
{
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB);

        put_data(&data, kind, 200000);
        for (int level = 0; level <= 9; level += kind == MIXED || kind == TEXT ? 1 : 3) {
            AUTO(str) struct str blob = STR_INIT(8 * BOUND_MIB);

            put_member(&data, &(struct way){.level = level, .memory = 8}, &blob);
            uint64_t ahead = check(&blob, &data);

            if (level && (kind == TEXT || kind == NOISE || kind == MIXED))
                assert_true(ahead > 0);
        }
    }
}

static void every_strategy_and_flush(void **state UNUSED)
{
    static const int strategies[] = {Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE,
                                     Z_FIXED};
    static const int flushes[] = {Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_PARTIAL_FLUSH, Z_BLOCK};

    for (size_t s = 0; s < ARRAY_SIZE(strategies); s++) {
        for (size_t f = 0; f < ARRAY_SIZE(flushes); f++) {
            AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
            const struct way w = {.level = 6,
                                  .strategy = strategies[s],
                                  .memory = 1 + (int)(s + f) % 9,
                                  .flush = flushes[f],
                                  .every = 1 + number(50000)};

            put_data(&data, MIXED, 150000);
            put_member(&data, &w, &blob);
            check(&blob, &data);
        }
    }
}

static void pieces_that_stand_alone(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
    const struct way w = {
        .level = 6, .memory = 9, .flush = Z_FULL_FLUSH, .every = 40000, .apart = true};

    put_data(&data, TEXT, 500000);
    put_member(&data, &w, &blob);
    assert_true(check(&blob, &data) > 0);
}

static void many_members(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);

    for (int i = 0; i < 60; i++) {
        AUTO(str) struct str some = STR_INIT(8 * BOUND_MIB);

        if (i % 7)
            put_data(&some, i % DATA_KINDS, number(i % 5 ? 3000 : 100000));
        put_member(&some, &(struct way){.level = i % 10, .memory = 8}, &blob);
        add(&data, some.buf, some.len);
    }
    check(&blob, &data);
}

/* A layer may hold gzip files, and hold them stored: headers that are none of this stream's. */
static void a_stream_in_a_stream(void **state UNUSED)
{
    AUTO(str)
    struct str data = STR_INIT(8 * BOUND_MIB), inner = STR_INIT(8 * BOUND_MIB),
               blob = STR_INIT(8 * BOUND_MIB);

    put_data(&data, MIXED, 300000);
    put_member(&data, &(struct way){.level = 1, .memory = 2}, &inner);
    put_data(&inner, TEXT, 100000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &inner);
    put_member(&inner, &(struct way){.level = 0, .memory = 8}, &blob);
    check(&blob, &inner);
    str_clear(&blob);
    put_member(&inner, &(struct way){.level = 6, .memory = 8}, &blob);
    check(&blob, &inner);
}

static void headers_with_everything(void **state UNUSED)
{
    static const char all[] = "\x1f\x8b\x08\x1e\1\2\3\4\2\3\5\0extraa name\0a comment";
    AUTO(str) struct str data = STR_INIT(BOUND_MIB), head = STR_INIT(BOUND_MIB);
    struct err e = ERR_INIT;

    put_data(&data, TEXT, 3000);
    add(&head, all, sizeof(all)); /* with the comment's NUL */
    uint16_t sum = (uint16_t)crc32(0, (unsigned char *)head.buf, (unsigned)head.len);

    for (int wrong = 0; wrong < 2; wrong++) {
        AUTO(str) struct str blob = STR_INIT(BOUND_MIB), out = STR_INIT(BOUND_MIB);
        uint16_t put = (uint16_t)(sum + wrong);

        add(&blob, head.buf, head.len);
        add(&blob, (char *)&put, 2);
        raw_deflate(&data, &(struct way){.level = 6, .memory = 8}, &blob);
        put_trailer(&data, &blob);
        for (size_t piece = 1; piece < 4 && !wrong; piece++) {
            str_clear(&out);
            assert_ok(decode(&small, &blob, piece, &out, NULL, &e), &e);
            check_same(&out, &data);
        }
        if (!wrong)
            continue;
        assert_int_equal(decode(NULL, &blob, 1, &out, NULL, &e), -1);
        assert_string_equal(e.msg, "gzip stream: wrong checksum");
    }
}

/* What is wrong is said as the decoder for one core says it. */
static void says_what_is_wrong(void **state UNUSED)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *wanted;
    } cases[] = {
        {"", 0, "ends early"},
        {"\x1f", 1, "ends early"},
        {"plain text", 10, "not a gzip header"},
        {"\x1f\x8b\x07\0\0\0\0\0\0\xff", 10, "unknown compression method"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x07", 11, "invalid block"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\1\0\0\0", 15, "invalid block"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\2\0\0\0\0\0\0\0\0\0", 21, "reference before the start"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\1\0\0\0\0\0\0\0", 20, "wrong checksum"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\1\0\0\0", 20, "wrong checksum"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0\0", 21, "ends early"},
        {"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0\x1f\x8b", 22, "ends early"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(str) struct str blob = STR_INIT(BOUND_MIB), out = STR_INIT(BOUND_MIB);
        struct err e = ERR_INIT, alone = ERR_INIT;

        add(&blob, cases[i].bytes, cases[i].n);
        assert_int_equal(decode(&small, &blob, 3, &out, NULL, &e), -1);
        assert_has(e.msg, cases[i].wanted);
        assert_int_equal(decode_alone(&blob, &out, &alone), -1);
        assert_string_equal(e.msg, alone.msg);
        assert_int_equal(e.kind, alone.kind);
    }
}

static void a_header_has_an_end(void **state UNUSED)
{
    AUTO(str) struct str blob = STR_INIT(BOUND_MIB), out = STR_INIT(BOUND_MIB);
    struct err e = ERR_INIT;

    add(&blob, "\x1f\x8b\x08\x08\0\0\0\0\0\xff", 10);
    while (blob.len < BOUND_GZIP_HEADER + 1)
        add(&blob, "n", 1);
    assert_int_equal(decode(NULL, &blob, 0, &out, NULL, &e), -1);
    assert_has(e.msg, "header above");
    assert_int_equal(e.kind, ERR_LIMIT);
}

static void output_has_an_end(void **state UNUSED)
{
    AUTO(str)
    struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB),
               out = STR_INIT(8 * BOUND_MIB);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&small);
    struct err e = ERR_INIT;

    put_data(&data, TEXT, 1000000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    for (int less = 0; less < 2; less++) {
        AUTO(gunzip) struct gunzip *g = gunzip_new(crew, data.len - (size_t)less, to_str, &out);

        str_clear(&out);
        int rc = feed(g, &blob, 0, 0, &e) < 0 ? -1 : gunzip_finish(g, &e);

        assert_int_equal(rc, -less);
        assert_true(out.len <= data.len - (size_t)less);
    }
    assert_has(e.msg, "when decompressed");
}

static int stops_at(void *arg, const void *data UNUSED, size_t n, struct err *e)
{
    size_t *left = arg;

    if (n > *left)
        return err_set(e, ERR_HOST, "the disk is full");
    *left -= n;
    return 0;
}

/* Whatever is at work then: nothing hangs, nothing is lost. */
static void a_sink_may_fail_anywhere(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&small);

    put_data(&data, MIXED, 500000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    for (int i = 0; i < 20; i++) {
        size_t left = number((uint32_t)data.len - 1);
        AUTO(gunzip) struct gunzip *g = gunzip_new(crew, 0, stops_at, &left);
        struct err e = ERR_INIT;
        int rc = feed(g, &blob, 0, 0, &e) < 0 ? -1 : gunzip_finish(g, &e);

        assert_int_equal(rc, -1);
        assert_has(e.msg, "the disk is full");
    }
}

/* step: bytes from one place to the next. */
static void cut_off(size_t size, size_t step)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);

    put_data(&data, TEXT, size);
    put_data(&data, ZEROS, size / 2);
    put_member(&data, &(struct way){.level = 9, .memory = 3}, &blob);
    for (size_t n = 0; n < blob.len; n += step) {
        AUTO(str) struct str cut = STR_INIT(8 * BOUND_MIB), out = STR_INIT(8 * BOUND_MIB);
        struct err e = ERR_INIT;

        add(&cut, blob.buf, n);
        assert_int_equal(decode(n % 2 ? &at_once : NULL, &cut, 0, &out, NULL, &e), -1);
        assert_string_equal(e.msg, "gzip stream: ends early");
        assert_true(out.len <= data.len);
        assert_memory_equal(out.buf ? out.buf : "", data.buf, out.len);
    }
}

static void cut_off_at_every_byte(void **state UNUSED)
{
    cut_off(3000, 1);
    cut_off(150000, 511);
}

/* Same verdict as on one core, and what was given before is the same. */
static void damaged_anywhere(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);

    put_data(&data, MIXED, 200000);
    put_member(&data, &(struct way){.level = 6, .memory = 4}, &blob);
    for (int i = 0; i < 100; i++) {
        AUTO(str)
        struct str bad = STR_INIT(8 * BOUND_MIB), out = STR_INIT(64 * BOUND_MIB),
                   other = STR_INIT(64 * BOUND_MIB);
        struct err e = ERR_INIT, alone = ERR_INIT;

        add(&bad, blob.buf, blob.len);
        for (uint32_t flips = 1 + number(3); flips; flips--)
            bad.buf[number((uint32_t)bad.len)] ^= (char)(1 << number(8));
        int rc = decode(i % 3 ? &at_once : &small, &bad, 0, &out, NULL, &e);

        assert_int_equal(rc, decode_alone(&bad, &other, &alone));
        assert_int_equal(e.kind, alone.kind);
        size_t same = out.len < other.len ? out.len : other.len;

        assert_memory_equal(out.buf ? out.buf : "", other.buf ? other.buf : "", same);
        if (rc == 0)
            assert_int_equal(out.len, other.len);
    }
}

/* Its length is counted modulo 4 GiB. */
static void more_than_four_gib(void **state UNUSED)
{
    AUTO(str)
    struct str data = STR_INIT(BOUND_MIB), blob = STR_INIT(BOUND_MIB), out = STR_INIT(BOUND_MIB);
    AUTO(gunzip) struct gunzip *g = gunzip_new(NULL, 0, to_str, &out);
    const uint32_t before = UINT32_MAX - 1000;
    struct err e = ERR_INIT;

    put_data(&data, TEXT, 5000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    uint32_t wrapped = (uint32_t)(before + data.len);

    memcpy(blob.buf + blob.len - 4, &wrapped, 4);
    assert_true(wrapped < before);
    assert_ok(gunzip_feed(g, blob.buf, 11, &e), &e);
    g->size = before;
    assert_ok(feed(g, &blob, 11, 1000, &e), &e);
    assert_ok(gunzip_finish(g, &e), &e);
    check_same(&out, &data);
}

static void goes_on_in_another_process(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&small);

    put_data(&data, MIXED, 150000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    put_member(&data, &(struct way){.level = 0, .memory = 8}, &blob);
    AUTO_FREE char *once = mem_dup(data.buf, data.len);

    add(&data, once, data.len);
    for (int i = 0; i < 40; i++) {
        AUTO(str) struct str out = STR_INIT(8 * BOUND_MIB), state_text = STR_INIT(BOUND_MIB);
        size_t at = i < 20 ? (size_t)i : number((uint32_t)blob.len);
        struct str first = {.buf = blob.buf, .len = at};
        struct err e = ERR_INIT;
        AUTO(gunzip) struct gunzip *g = gunzip_new(i % 2 ? crew : NULL, 0, to_str, &out);
        AUTO(gunzip) struct gunzip *later = gunzip_new(i % 3 ? crew : NULL, 0, to_str, &out);

        assert_ok(feed(g, &first, 0, 0, &e), &e);
        assert_ok(gunzip_settle(g, &e), &e);
        assert_true(gunzip_save(g, &state_text));
        struct unpack u = {state_text.buf, state_text.len};

        assert_true(gunzip_restore(later, &u));
        assert_int_equal(u.n, 0);
        assert_int_equal(gunzip_bytes_out(later), out.len);
        assert_ok(feed(later, &blob, at, 0, &e), &e);
        assert_ok(gunzip_finish(later, &e), &e);
        check_same(&out, &data);
    }
}

/* S31: what was put aside may have been written by somebody who wants to get in. */
static void states_that_lie(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
    AUTO(str) struct str good = STR_INIT(8 * BOUND_MIB);
    AUTO(gunzip) struct gunzip *g = gunzip_new(NULL, 0, to_str, &data);
    struct err e = ERR_INIT;
    enum { NUMBERS = 8 + 12 * 8, LENGTHS = 8 + sizeof(struct inflate_lengths) };

    put_data(&data, MIXED, 150000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    data.len = 0;
    assert_ok(gunzip_feed(g, blob.buf, blob.len / 2, &e), &e);
    assert_ok(gunzip_settle(g, &e), &e);
    assert_true(gunzip_save(g, &good));
    for (int i = 0; i < 3000; i++) {
        AUTO(str) struct str out = STR_INIT(8 * BOUND_MIB);
        AUTO_FREE char *copy = mem_dup(good.buf, good.len);
        AUTO(gunzip) struct gunzip *later = gunzip_new(NULL, BOUND_MIB, to_str, &out);
        struct unpack u = {copy, good.len};

        for (int k = 0; k <= i % 4; k++)
            copy[number(i % 2 ? NUMBERS : NUMBERS + LENGTHS)] = (char)number(256);
        if (i < 100) { /* all that a table has room for, and more */
            const uint64_t place = INFLATE_CODED;

            memcpy(copy, good.buf, NUMBERS + LENGTHS);
            memcpy(copy + 8 + 7 * sizeof(place), &place, sizeof(place));
            memset(copy + NUMBERS + 8, i + 1, LENGTHS - 8);
        }
        err_clear(&e);
        if (gunzip_restore(later, &u) &&
            gunzip_feed(later, blob.buf + blob.len / 2, blob.len - blob.len / 2, &e) == 0 &&
            gunzip_finish(later, &e) == 0)
            assert_true(out.len <= BOUND_MIB);
    }
}

/* Several layers share the crew. */
struct layer {
    pthread_t thread;
    struct inflate_crew *crew;
    const struct str *blob;
    struct str out;
    struct err e;
};

static void *unpack_layer(void *arg)
{
    struct layer *l = arg;
    AUTO(gunzip) struct gunzip *g = gunzip_new(l->crew, 0, to_str, &l->out);

    inflate_crew_busy(l->crew, 1);
    if (feed(g, l->blob, 0, 50000, &l->e) == 0 && gunzip_finish(g, &l->e) == 0)
        err_clear(&l->e);
    inflate_crew_busy(l->crew, -1);
    return NULL;
}

static void several_at_once(void **state UNUSED)
{
    AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
    struct inflate_crew_opts o = small;
    struct layer layers[3];

    o.cores = 8;
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&o);

    put_data(&data, MIXED, 600000);
    put_member(&data, &(struct way){.level = 6, .memory = 8}, &blob);
    for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
        layers[i] = (struct layer){
            .crew = crew, .blob = &blob, .out = STR_INIT(8 * BOUND_MIB), .e = ERR_INIT};
        assert_int_equal(pthread_create(&layers[i].thread, NULL, unpack_layer, &layers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
        pthread_join(layers[i].thread, NULL);
        assert_string_equal(layers[i].e.msg, "");
        check_same(&layers[i].out, &data);
        str_free(&layers[i].out);
    }
}

/* Two cores are what a layer takes by itself; above that, memory is the bound. */
static void a_crew_is_small(void **state UNUSED)
{
    static const unsigned threads[] = {0, 0, 0, 1, 2, 3, 4, 4, 4};

    for (unsigned cores = 1; cores < ARRAY_SIZE(threads); cores++)
        assert_int_equal(inflate_crew_usual(cores, -1).threads, threads[cores]);
    struct inflate_crew_opts o = inflate_crew_usual(256, -1);

    assert_int_equal(o.threads, 4);
    assert_true(o.chunks * (o.input + o.memory + sizeof(struct inflate) + 4 * INFLATE_WINDOW) <
                9 * BOUND_MIB);
}

static void is_taken_only_when_cores_are_idle(void **state UNUSED)
{
    struct inflate_crew_opts o = inflate_crew_usual(4, -1);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&o);
    struct inflate_chunk *taken[8];
    unsigned n = 0;

    inflate_crew_busy(crew, 1);
    while (n < ARRAY_SIZE(taken) && (taken[n] = inflate_crew_take(crew)))
        n++;
    assert_int_equal(n, o.chunks);
    inflate_crew_give(crew, taken[0]);
    inflate_crew_busy(crew, 1);
    assert_null(inflate_crew_take(crew));
    inflate_crew_busy(crew, -1);
    assert_ptr_equal(inflate_crew_take(crew), taken[0]);
    while (n)
        inflate_crew_give(crew, taken[--n]);
    /* One stream at a time, and none among many layers: whoever holds input takes memory. */
    assert_true(inflate_crew_join(crew));
    assert_false(inflate_crew_join(crew));
    inflate_crew_leave(crew);
    inflate_crew_busy(crew, 1);
    assert_false(inflate_crew_join(crew));
    inflate_crew_busy(crew, -2);
}

static void many_layers_leave_no_room_for_it(void **state UNUSED)
{
    struct inflate_crew_opts o = inflate_crew_usual(64, -1);
    AUTO(inflate_crew) struct inflate_crew *crew = inflate_crew_new(&o);

    inflate_crew_busy(crew, 5);
    assert_false(inflate_crew_join(crew));
    assert_null(inflate_crew_take(crew));
    inflate_crew_busy(crew, -1);
    assert_true(inflate_crew_join(crew));
}

/* Each place that is found in what a compressor made, from the beginning on, is one where a block begins. */
static void blocks_are_found(void **state UNUSED)
{
    for (int kind = 0; kind < DATA_KINDS; kind++) {
        AUTO(str) struct str data = STR_INIT(8 * BOUND_MIB), blob = STR_INIT(8 * BOUND_MIB);
        AUTO_FREE struct inflate *s = mem_zalloc(sizeof(*s));
        AUTO_FREE uint8_t *out = mem_alloc(BOUND_MIB + INFLATE_SLACK);
        struct inflate_bytes o = {.at = out, .cap = BOUND_MIB};
        unsigned blocks = 0, found = 0;

        put_data(&data, kind, 300000);
        raw_deflate(&data, &(struct way){.level = kind == NOISE ? 0 : 6, .memory = 5}, &blob);
        const uint8_t *in = (const uint8_t *)blob.buf;

        inflate_block_begin(s, 0);
        for (enum inflate_stop why = INFLATE_BLOCK; why == INFLATE_BLOCK; blocks++) {
            uint64_t name = inflate_find_name(in, blob.len, s->pos);

            found += s->pos && inflate_find(in, blob.len, name, name + 1) == name;
            why = inflate_block_bytes(s, in, blob.len, &o);
            assert_true(why == INFLATE_BLOCK || why == INFLATE_END);
        }
        assert_true(blocks < 3 ||
                    found + 3 >= blocks); /* the first, the last, and maybe one that is fixed */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_found),
        cmocka_unit_test(every_kind_and_level),
        cmocka_unit_test(every_strategy_and_flush),
        cmocka_unit_test(pieces_that_stand_alone),
        cmocka_unit_test(many_members),
        cmocka_unit_test(a_stream_in_a_stream),
        cmocka_unit_test(headers_with_everything),
        cmocka_unit_test(says_what_is_wrong),
        cmocka_unit_test(a_header_has_an_end),
        cmocka_unit_test(output_has_an_end),
        cmocka_unit_test(a_sink_may_fail_anywhere),
        cmocka_unit_test(cut_off_at_every_byte),
        cmocka_unit_test(damaged_anywhere),
        cmocka_unit_test(more_than_four_gib),
        cmocka_unit_test(goes_on_in_another_process),
        cmocka_unit_test(states_that_lie),
        cmocka_unit_test(several_at_once),
        cmocka_unit_test(a_crew_is_small),
        cmocka_unit_test(is_taken_only_when_cores_are_idle),
        cmocka_unit_test(many_layers_leave_no_room_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
