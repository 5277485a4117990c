/*
 * A fixed row of seats, each with a chunk made when it is first taken. Workers look for the first seat with a job, those to
 * be resolved first: somebody is about to need them.
 */
#include "oci/inflate_crew.h"

#include <pthread.h>
#include <stdint.h>

#include "base/confine.h"
#include "base/err.h"
#include "base/mem.h"
#include "oci/inflate_chunk.h"

/* LAYERS_MAX: what more of them take of a pull's memory leaves none for a crew. */
enum { THREADS_MAX = 4, LAYER_THREADS = 2, LAYERS_MAX = 4 };

enum stage { FREE, TAKEN, QUEUED, AT_WORK, DONE };

struct seat {
    struct inflate_chunk *chunk; /* NULL until it is first taken */
    enum stage stage;
    bool resolve;
    uint64_t order; /* of posting */
};

struct inflate_crew {
    struct inflate_crew_opts o;
    pthread_t *threads;
    unsigned started;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t posted, done;
    bool over, joined;
    unsigned layers;
    uint64_t posts;
    struct seat *seats;
};

struct inflate_crew_opts inflate_crew_usual(unsigned cores, int dir)
{
    struct inflate_crew_opts o = {.cores = cores, .dir = dir};

    o.threads = cores <= LAYER_THREADS ? 0 : cores - LAYER_THREADS;
    if (o.threads > THREADS_MAX)
        o.threads = THREADS_MAX;
    o.chunks = o.threads + 2; /* one being written, one waiting for its turn */
    o.search = (size_t)192 * 1024;
    o.input = (size_t)320 * 1024;
    o.memory = (size_t)896 * 1024;
    return o;
}

/* ---- workers ---- */

static struct seat *next_job(struct inflate_crew *c)
{
    struct seat *best = NULL;

    for (unsigned i = 0; i < c->o.chunks; i++) {
        struct seat *s = &c->seats[i];

        if (s->stage == QUEUED && (!best || s->resolve > best->resolve ||
                                   (s->resolve == best->resolve && s->order < best->order)))
            best = s;
    }
    return best;
}

static void work_on(struct inflate_crew *c, struct seat *s)
{
    bool resolve = s->resolve;

    s->stage = AT_WORK;
    pthread_mutex_unlock(&c->lock);
    if (resolve)
        inflate_chunk_resolve(s->chunk);
    else
        inflate_chunk_decode(s->chunk);
    pthread_mutex_lock(&c->lock);
    s->stage = DONE;
    pthread_cond_broadcast(&c->done);
}

static void *worker(void *arg)
{
    struct inflate_crew *c = arg;

    if (c->o.dir >= 0) {
        /* Without a table of descriptors of its own it would be everybody's. */
        if (confine_thread(c->o.dir, -1) & CONFINE_FILES)
            close(c->o.dir);
    }
    pthread_mutex_lock(&c->lock);
    while (!c->over) {
        struct seat *s = next_job(c);

        if (s)
            work_on(c, s);
        else
            pthread_cond_wait(&c->posted, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- doors ---- */

struct inflate_crew *inflate_crew_new(const struct inflate_crew_opts *o)
{
    struct inflate_crew *c = mem_new(struct inflate_crew);

    c->o = *o;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->posted, NULL);
    pthread_cond_init(&c->done, NULL);
    c->seats = mem_array(o->chunks, sizeof(*c->seats));
    c->threads = mem_array(o->threads, sizeof(*c->threads));
    while (c->started < o->threads && pthread_create(&c->threads[c->started], NULL, worker, c) == 0)
        c->started++;
    return c;
}

void inflate_crew_free(struct inflate_crew *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->over = true;
    pthread_cond_broadcast(&c->posted);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->started; i++)
        pthread_join(c->threads[i], NULL);
    for (unsigned i = 0; i < c->o.chunks; i++)
        inflate_chunk_free(c->seats[i].chunk);
    pthread_cond_destroy(&c->done);
    pthread_cond_destroy(&c->posted);
    pthread_mutex_destroy(&c->lock);
    free(c->seats);
    free(c->threads);
    free(c);
}

const struct inflate_crew_opts *inflate_crew_opts(const struct inflate_crew *c)
{
    return &c->o;
}

void inflate_crew_busy(struct inflate_crew *c, int layers)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->layers += (unsigned)layers;
    pthread_mutex_unlock(&c->lock);
}

/* A chunk taken is work for a core, or for the one who waits for it. */
static bool has_idle_core(const struct inflate_crew *c)
{
    unsigned busy = c->layers * LAYER_THREADS;

    return (c->started || !c->o.threads) &&
           (!c->o.cores || (busy < c->o.cores && c->layers <= LAYERS_MAX));
}

bool inflate_crew_join(struct inflate_crew *c)
{
    pthread_mutex_lock(&c->lock);
    bool may = !c->joined && has_idle_core(c);

    c->joined |= may;
    pthread_mutex_unlock(&c->lock);
    return may;
}

void inflate_crew_leave(struct inflate_crew *c)
{
    pthread_mutex_lock(&c->lock);
    c->joined = false;
    pthread_mutex_unlock(&c->lock);
}

struct inflate_chunk *inflate_crew_take(struct inflate_crew *c)
{
    struct seat *found = NULL;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->o.chunks && has_idle_core(c) && !found; i++)
        if (c->seats[i].stage == FREE)
            found = &c->seats[i];
    if (found)
        found->stage = TAKEN;
    if (found && !found->chunk)
        found->chunk = inflate_chunk_new(c->o.input, c->o.memory);
    pthread_mutex_unlock(&c->lock);
    return found ? found->chunk : NULL;
}

static struct seat *seat_of(struct inflate_crew *c, const struct inflate_chunk *chunk)
{
    unsigned i = 0;

    while (c->seats[i].chunk != chunk)
        i++;
    return &c->seats[i];
}

/* With the lock: what nobody has begun is taken back, what is at work is waited for. */
static bool wait_for(struct inflate_crew *c, struct seat *s)
{
    bool begun = s->stage != QUEUED;

    while (s->stage == AT_WORK)
        pthread_cond_wait(&c->done, &c->lock);
    if (!begun)
        s->stage = TAKEN;
    return begun;
}

void inflate_crew_give(struct inflate_crew *c, struct inflate_chunk *chunk)
{
    pthread_mutex_lock(&c->lock);
    struct seat *s = seat_of(c, chunk);

    wait_for(c, s);
    s->stage = FREE;
    pthread_mutex_unlock(&c->lock);
}

void inflate_crew_post(struct inflate_crew *c, struct inflate_chunk *chunk, bool resolve)
{
    pthread_mutex_lock(&c->lock);
    struct seat *s = seat_of(c, chunk);

    s->stage = QUEUED;
    s->resolve = resolve;
    s->order = c->posts++;
    if (!c->o.threads)
        work_on(c, s);
    else
        pthread_cond_signal(&c->posted);
    pthread_mutex_unlock(&c->lock);
}

bool inflate_crew_wait(struct inflate_crew *c, struct inflate_chunk *chunk)
{
    pthread_mutex_lock(&c->lock);
    bool begun = wait_for(c, seat_of(c, chunk));

    pthread_mutex_unlock(&c->lock);
    return begun;
}

bool inflate_crew_is_done(struct inflate_crew *c, struct inflate_chunk *chunk)
{
    pthread_mutex_lock(&c->lock);
    bool done = seat_of(c, chunk)->stage == DONE;

    pthread_mutex_unlock(&c->lock);
    return done;
}
