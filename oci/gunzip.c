/*
 * Whatever is incomplete at the end of the input (a header, a symbol, a sum) is left there, and read again from its
 * beginning when more has come: so there is no state but a position, and the block it is in.
 */
#include "oci/gunzip.h"

#include <isa-l/crc.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"
#include "oci/gunzip_inner.h"
#include "oci/inflate_crew.h"

enum {
    INPUT = 2560 * 1024,    /* room for it */
    HELD = 1536 * 1024,     /* so much is waited for before it is gone on with, */
    WORKED_OFF = 64 * 1024, /* by so much; the rest is what the crew looks ahead in */
    OUTPUT = 256 * 1024,
    SUMS = 8,
    WORTH_MOVING = 4096, /* so little left that moving it to the front costs nothing */
};

#define JUDGED_NS (5 * NS_PER_MS)

struct gunzip *gunzip_new(struct inflate_crew *crew, uint64_t max_output, gunzip_sink *sink,
                          void *arg)
{
    struct gunzip *g = mem_new(struct gunzip);

    g->sink = sink;
    g->arg = arg;
    g->max_output = max_output;
    g->ahead.crew = crew;
    g->ahead.share = crew ? inflate_crew_opts(crew)->search : 0;
    g->in = mem_alloc(INPUT);
    g->window.at = mem_alloc(INFLATE_WINDOW + OUTPUT + INFLATE_SLACK);
    g->window.cap = INFLATE_WINDOW + OUTPUT;
    g->stopped_ns = clock_now_ns();
    return g;
}

void gunzip_free(struct gunzip *g)
{
    if (!g)
        return;
    gunzip_ahead_free(g);
    free(g->window.at);
    free(g->in);
    free(g);
}

uint64_t gunzip_bytes_out(const struct gunzip *g)
{
    return g->out;
}

uint64_t gunzip_bytes_ahead(const struct gunzip *g)
{
    return g->ahead.bytes;
}

/* ---- output ---- */

int gunzip_write(struct gunzip *g, const void *data, size_t n, struct err *e)
{
    if (!n)
        return 0;
    if (g->max_output && n > g->max_output - g->out)
        return err_set(e, ERR_LIMIT, "more than %llu bytes when decompressed",
                       (unsigned long long)g->max_output);
    g->out += n;
    g->size += (uint32_t)n;
    g->crc = crc32_gzip_refl(g->crc, data, n);
    return g->sink(g->arg, data, n, e);
}

int gunzip_write_own(struct gunzip *g, struct err *e)
{
    struct inflate_bytes *w = &g->window;
    size_t n = w->n - g->written;

    if (!n)
        return 0;
    if (gunzip_ahead_write(g, e) < 0 || gunzip_write(g, w->at + g->written, n, e) < 0)
        return -1;
    if (w->n > INFLATE_WINDOW) {
        size_t moved = w->n - INFLATE_WINDOW;

        memmove(w->at, w->at + moved, INFLATE_WINDOW);
        w->n = INFLATE_WINDOW;
        w->oldest -= moved < w->oldest ? moved : w->oldest;
    }
    g->written = w->n;
    return 0;
}

static int write_all(struct gunzip *g, struct err *e)
{
    return gunzip_write_own(g, e) < 0 ? -1 : gunzip_ahead_write(g, e);
}

static int broken(struct gunzip *g, const char *why, struct err *e)
{
    if (write_all(g, e) < 0)
        return -1;
    return err_set(e, ERR_USER, "gzip stream: %s", why);
}

/* ---- members ---- */

/* Behind a field of the header that ends with NUL; 0 when it does not end. */
static size_t behind_text(const uint8_t *p, size_t n, size_t at)
{
    const uint8_t *end = at < n ? memchr(p + at, 0, n - at) : NULL;

    return end ? (size_t)(end - p) + 1 : 0;
}

enum { FHCRC = 2, FEXTRA = 4, FNAME = 8, FCOMMENT = 16, FIXED_PART = 10 };

/* How long the header is; 0: longer than what is there. n: its fixed part at least. */
static size_t header_length(const uint8_t *p, size_t n)
{
    size_t at = FIXED_PART;

    if (p[3] & FEXTRA) {
        if (n < at + 2)
            return 0;
        at += 2 + (p[at] | (size_t)p[at + 1] << 8);
    }
    if (p[3] & FNAME && !(at = behind_text(p, n, at)))
        return 0;
    if (p[3] & FCOMMENT && !(at = behind_text(p, n, at)))
        return 0;
    if (p[3] & FHCRC)
        at += 2;
    return at <= n ? at : 0;
}

static void begin_member(struct gunzip *g, size_t at)
{
    g->place = GUNZIP_BODY;
    g->crc = g->size = 0;
    g->window.oldest = g->window.n; /* what was before is not to be reached */
    inflate_block_begin(&g->state, (uint64_t)at * 8);
}

/* 1: gone on; 0: more is needed. */
static int header(struct gunzip *g, struct err *e)
{
    size_t at = (size_t)(g->state.pos / 8), n = g->n - at;
    const uint8_t *p = g->in + at;

    if (n < FIXED_PART)
        return 0;
    if (p[0] != 0x1f || p[1] != 0x8b)
        return broken(g, "not a gzip header", e);
    if (p[2] != 8)
        return broken(g, "unknown compression method", e);
    size_t len = header_length(p, n);

    if ((len ? len : n) > BOUND_GZIP_HEADER)
        return err_set(e, ERR_LIMIT, "gzip stream: header above %llu bytes", BOUND_GZIP_HEADER);
    if (!len)
        return 0;
    if (p[3] & FHCRC &&
        (crc32_gzip_refl(0, p, len - 2) & 0xffff) != (p[len - 2] | (uint32_t)p[len - 1] << 8))
        return broken(g, "wrong checksum", e);
    begin_member(g, at + len);
    return 1;
}

static int trailer(struct gunzip *g, struct err *e)
{
    size_t at = (size_t)(g->state.pos / 8);
    uint64_t sums = inflate_code_peek(g->in, g->n, g->state.pos);

    if (g->n - at < SUMS)
        return 0;
    if ((uint32_t)sums != g->crc || (uint32_t)(sums >> 32) != g->size)
        return broken(g, "wrong checksum", e);
    g->state.pos += (uint64_t)SUMS * 8;
    g->place = GUNZIP_HEADER;
    g->has_member = true;
    return 1;
}

static const char *problem(const struct gunzip *g)
{
    switch (g->state.problem) {
    case INFLATE_BAD_BLOCK: return "invalid block";
    case INFLATE_BAD_SYMBOL: return "invalid symbol";
    case INFLATE_BAD_DISTANCE: return "reference before the start";
    default: return "broken";
    }
}

static int body(struct gunzip *g, struct err *e)
{
    int rc = g->state.place == INFLATE_BETWEEN ? gunzip_ahead_adopt(g, e) : 0;

    if (rc)
        return rc;
    switch (inflate_block_bytes(&g->state, g->in, g->n, &g->window)) {
    case INFLATE_INPUT: return 0;
    case INFLATE_BLOCK: return 1;
    case INFLATE_OUTPUT: return gunzip_write_own(g, e) < 0 ? -1 : 1;
    case INFLATE_END:
        g->state.pos = (g->state.pos + 7) / 8 * 8;
        g->place = GUNZIP_TRAILER;
        return write_all(g, e) < 0 ? -1 : 1;
    case INFLATE_BAD: break;
    }
    return broken(g, problem(g), e);
}

static int step(struct gunzip *g, struct err *e)
{
    switch (g->place) {
    case GUNZIP_HEADER: return header(g, e);
    case GUNZIP_BODY: return body(g, e);
    case GUNZIP_TRAILER: return trailer(g, e);
    }
    return 0;
}

/* ---- input ---- */

static size_t held(const struct gunzip *g)
{
    return g->n - (size_t)(g->state.pos / 8);
}

/* Go on until not more than `keep` bytes are left, or what is left is not enough for a step. */
static int drive(struct gunzip *g, size_t keep, struct err *e)
{
    int rc = 1;

    while (rc == 1 && held(g) > keep) {
        gunzip_ahead_guess(g);
        rc = step(g, e);
    }
    gunzip_ahead_guess(g);
    return rc < 0 ? -1 : 0;
}

/* What has been decoded goes; what is left moves to the front. */
static void make_room(struct gunzip *g)
{
    size_t used = (size_t)(g->state.pos / 8);

    if (!used || (g->n < INPUT && held(g) > WORTH_MOVING))
        return;
    memmove(g->in, g->in + used, g->n - used);
    g->n -= used;
    g->origin += used;
    g->state.pos -= (uint64_t)used * 8;
}

static void begin_work(struct gunzip *g)
{
    uint64_t now = clock_now_ns();

    g->idle_ns += now - g->stopped_ns;
    g->stopped_ns = now;
}

/* Is input slower than this thread? Judged over a while. */
static void end_work(struct gunzip *g)
{
    uint64_t now = clock_now_ns();

    g->busy_ns += now - g->stopped_ns;
    g->stopped_ns = now;
    if (g->busy_ns + g->idle_ns < JUDGED_NS || !g->ahead.crew ||
        !inflate_crew_opts(g->ahead.crew)->cores)
        return;
    g->waits = g->idle_ns > g->busy_ns;
    g->idle_ns = g->busy_ns = 0;
}

int gunzip_feed(struct gunzip *g, const void *data, size_t n, struct err *e)
{
    const uint8_t *p = data;
    int rc = 0;

    begin_work(g);
    while (n && rc == 0) {
        make_room(g);
        size_t part = n < INPUT - g->n ? n : INPUT - g->n;

        memcpy(g->in + g->n, p, part);
        g->n += part;
        p += part;
        n -= part;
        if (!gunzip_ahead_joins(g))
            rc = drive(g, 0, e);
        else if (held(g) >= HELD)
            rc = drive(g, HELD - WORKED_OFF, e);
        else
            gunzip_ahead_guess(g);
    }
    end_work(g);
    return rc;
}

int gunzip_settle(struct gunzip *g, struct err *e)
{
    begin_work(g);
    g->ended = true;
    int rc = drive(g, 0, e) < 0 ? -1 : write_all(g, e);

    g->ended = false;
    make_room(g);
    end_work(g);
    return rc;
}

int gunzip_finish(struct gunzip *g, struct err *e)
{
    int rc = gunzip_settle(g, e);

    /* The crew may be gone before this object is. */
    gunzip_ahead_free(g);
    if (rc < 0)
        return -1;
    if (g->place == GUNZIP_HEADER && g->has_member && !held(g))
        return 0;
    return err_set(e, ERR_USER, "gzip stream: ends early");
}

/* ---- the state ---- */

bool gunzip_save(const struct gunzip *g, struct str *out)
{
    const struct inflate *s = &g->state;
    const struct inflate_bytes *w = &g->window;
    const uint64_t numbers[] = {g->out, g->place, g->has_member, g->crc,    g->size, g->origin,
                                s->pos, s->place, s->final,      s->stored, w->n,    w->oldest};
    bool ok = pack_bytes(out, numbers, sizeof(numbers));

    return ok && pack_bytes(out, &s->lengths, sizeof(s->lengths)) && pack_u64(out, g->n) &&
           pack_bytes(out, g->in, g->n) && pack_bytes(out, w->at, w->n);
}

/* Who wrote it may have been a thread that takes foreign bytes apart: nothing of it is believed (S31). */
bool gunzip_restore(struct gunzip *g, struct unpack *in)
{
    struct inflate *s = &g->state;
    struct inflate_bytes *w = &g->window;
    uint64_t v[12], n;

    if (!pack_read_bytes(in, v, sizeof(v)) ||
        !pack_read_bytes(in, &s->lengths, sizeof(s->lengths)) || !pack_read_u64(in, &n) ||
        n > INPUT || !pack_read_bytes(in, g->in, n) || v[6] > n * 8 || v[10] > INFLATE_WINDOW ||
        v[11] > v[10] || v[1] > GUNZIP_TRAILER || v[7] > INFLATE_ENDED ||
        (g->max_output && v[0] > g->max_output) || !pack_read_bytes(in, w->at, v[10]))
        return false;
    g->out = v[0], g->place = (enum gunzip_place)v[1], g->has_member = v[2];
    g->crc = (uint32_t)v[3], g->size = (uint32_t)v[4], g->origin = v[5];
    s->pos = v[6], s->place = (enum inflate_place)v[7], s->final = v[8];
    s->stored = (uint32_t)v[9];
    w->n = g->written = v[10], w->oldest = v[11];
    g->n = n;
    return s->place != INFLATE_CODED ||
           (inflate_code_is_readable(&s->lengths) && inflate_code_build(&s->lengths, &s->codes));
}
