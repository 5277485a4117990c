/*
 * The stream is cut into shares by bytes. The decoder goes through the first one itself while the crew has the next ones;
 * from then on it steps from chunk to chunk, if they are right, and decodes what is between them. If it had to wait for one, more
 * is left between the next ones.
 */
#include "base/err.h"
#include "oci/gunzip_inner.h"
#include "oci/inflate_chunk.h"
#include "oci/inflate_crew.h"
#include "oci/inflate_find.h"

enum {
    SHARE_MIN = 32 * 1024,
    ADOPTED_MAX = 2, /* decoded, being filled in, while the one before is written */
    MISSES = 4,      /* then it is left for a while: the stream has no blocks that can be found */
    PAUSE = 1 << 20, /* bytes of it; doubled */
    PAUSE_DOUBLED = 6,
};

static struct inflate_chunk *shift(struct chunk_queue *q)
{
    struct inflate_chunk *first = q->each[0];

    q->n--;
    memmove(q->each, q->each + 1, q->n * sizeof(struct inflate_chunk *));
    return first;
}

static uint64_t here(const struct gunzip *g)
{
    return g->origin * 8 + g->state.pos;
}

/* ---- guessing ---- */

static bool may_guess(const struct gunzip *g)
{
    const struct ahead *a = &g->ahead;

    return a->joined && !g->waits && g->place == GUNZIP_BODY && a->guessed.n < GUNZIP_CHUNKS &&
           here(g) / 8 >= a->pause_until;
}

void gunzip_ahead_guess(struct gunzip *g)
{
    struct ahead *a = &g->ahead;

    while (may_guess(g)) {
        const struct inflate_crew_opts *o = inflate_crew_opts(a->crew);
        uint64_t end = g->origin + g->n, first = here(g) / 8 + a->share;
        size_t share = a->share;

        if (a->next < here(g) / 8 || (a->next < first && !a->guessed.n))
            a->next = first;
        if (a->next + o->input > end && !(g->ended && a->next + share <= end))
            return;
        struct inflate_chunk *c = inflate_crew_take(a->crew);

        if (!c)
            return;
        size_t n = end - a->next < o->input ? (size_t)(end - a->next) : o->input;

        inflate_chunk_fill(c, g->in + (a->next - g->origin), n, a->next, share);
        inflate_crew_post(a->crew, c, false);
        a->guessed.each[a->guessed.n++] = c;
        a->next += share + a->gap;
    }
}

/* begun: somebody has worked on it. */
static void drop_first(struct gunzip *g, bool begun)
{
    struct ahead *a = &g->ahead;

    inflate_crew_give(a->crew, shift(&a->guessed));
    a->misses += begun;
    if (begun && a->misses % MISSES == 0) {
        unsigned doubled = a->misses / MISSES - 1;

        a->pause_until =
            here(g) / 8 + ((uint64_t)PAUSE << (doubled < PAUSE_DOUBLED ? doubled : PAUSE_DOUBLED));
    }
}

/* ---- adopting ---- */

/* So much of the stream that a chunk's memory is nearly full. */
static void learn_share(struct ahead *a, const struct inflate_chunk *c)
{
    const struct inflate_crew_opts *o = inflate_crew_opts(a->crew);
    uint64_t bits = inflate_chunk_end(c) - inflate_chunk_start(c);
    uint64_t fits = bits / 8 * (o->memory / 8 * 7) / (inflate_chunk_used(c) + 1);

    fits = fits < SHARE_MIN ? SHARE_MIN : fits;
    fits = fits > o->search ? o->search : fits;
    a->share = (size_t)((3 * a->share + fits) / 4);
}

/* Who waits for a chunk could have decoded meanwhile; what is there early could have been more. */
static void learn_gap(struct ahead *a, bool late)
{
    if (!late)
        a->gap -= a->gap / 8;
    else if (a->gap < 2 * a->share)
        a->gap += a->share / 4;
}

static int write_first(struct gunzip *g, struct err *e)
{
    struct ahead *a = &g->ahead;
    struct inflate_chunk *c = shift(&a->adopted);
    struct inflate_part parts[2];
    int rc = 0;

    if (!inflate_crew_wait(a->crew, c))
        inflate_chunk_resolve(c);
    inflate_chunk_parts(c, parts);
    for (int i = 0; i < 2 && rc == 0; i++) {
        a->bytes += parts[i].n;
        rc = gunzip_write(g, parts[i].data, parts[i].n, e);
    }
    inflate_crew_give(a->crew, c);
    return rc;
}

int gunzip_ahead_write(struct gunzip *g, struct err *e)
{
    while (g->ahead.adopted.n)
        if (write_first(g, e) < 0)
            return -1;
    return 0;
}

/* The window is where it is expected: in front of what this decoder writes next. */
static int take_over(struct gunzip *g, struct inflate_chunk *c, struct err *e)
{
    struct ahead *a = &g->ahead;

    if (gunzip_write_own(g, e) < 0)
        return -1;
    if (a->adopted.n == ADOPTED_MAX && write_first(g, e) < 0)
        return -1;
    learn_share(a, c);
    a->misses = 0;
    inflate_chunk_window(c, g->window.at);
    g->state = *inflate_chunk_state(c);
    g->state.pos += (inflate_chunk_origin(c) - g->origin) * 8;
    a->adopted.each[a->adopted.n++] = shift(&a->guessed);
    inflate_crew_post(a->crew, c, true);
    return 1;
}

/* What stands here can be known by its beginning: not the last block, and all of its window is there. */
static bool is_adoptable(const struct gunzip *g)
{
    return g->state.place == INFLATE_BETWEEN && g->state.problem == INFLATE_FINE &&
           g->window.n - g->window.oldest >= INFLATE_WINDOW &&
           !(inflate_code_peek(g->in, g->n, g->state.pos) & 1);
}

int gunzip_ahead_adopt(struct gunzip *g, struct err *e)
{
    struct ahead *a = &g->ahead;

    while (a->guessed.n && inflate_chunk_origin(a->guessed.each[0]) * 8 <= here(g)) {
        struct inflate_chunk *c = a->guessed.each[0];

        /* Something to do while it is not there yet. */
        if (a->adopted.n && !inflate_crew_is_done(a->crew, c) && write_first(g, e) < 0)
            return -1;
        bool late = !inflate_crew_is_done(a->crew, c), begun = inflate_crew_wait(a->crew, c);
        uint64_t name = g->origin * 8 + inflate_find_name(g->in, g->n, g->state.pos);
        uint64_t start = begun ? inflate_chunk_start(c) : INFLATE_NOWHERE;

        if (is_adoptable(g) && start == name) {
            learn_gap(a, late);
            return take_over(g, c, e);
        }
        if (start != INFLATE_NOWHERE && start > name)
            return 0; /* further on */
        drop_first(g, begun);
    }
    return 0;
}

bool gunzip_ahead_joins(struct gunzip *g)
{
    struct ahead *a = &g->ahead;

    if (a->crew && !a->joined)
        a->joined = inflate_crew_join(a->crew);
    return a->joined;
}

void gunzip_ahead_free(struct gunzip *g)
{
    struct ahead *a = &g->ahead;

    while (a->guessed.n)
        inflate_crew_give(a->crew, shift(&a->guessed));
    while (a->adopted.n)
        inflate_crew_give(a->crew, shift(&a->adopted));
    if (a->joined)
        inflate_crew_leave(a->crew);
    a->joined = false;
    a->crew = NULL;
}
