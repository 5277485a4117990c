#include "base/tube.h"

#include <pthread.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct tube {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t filled, emptied;
    size_t size, head, used;
    bool closed, broken;
    struct err write_error, read_error;
    char buf[];
};

struct tube *tube_new(size_t bytes)
{
    struct tube *t = mem_zalloc(sizeof(*t) + bytes);

    t->size = bytes;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->filled, NULL);
    pthread_cond_init(&t->emptied, NULL);
    return t;
}

void tube_free(struct tube *t)
{
    if (!t)
        return;
    pthread_cond_destroy(&t->filled);
    pthread_cond_destroy(&t->emptied);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Half of it at a time: a writer that is woken for every few bytes sleeps and wakes more than it writes. */
static bool is_roomy(const struct tube *t)
{
    return t->used <= t->size / 2;
}

/* Wants the lock. Bytes that can be written at once, at *ret; 0 when the reader is gone. */
static size_t await_room(struct tube *t, char **ret)
{
    if (t->used == t->size)
        while (!t->broken && !is_roomy(t))
            pthread_cond_wait(&t->emptied, &t->lock);
    size_t at = (t->head + t->used) % t->size;

    *ret = t->buf + at;
    return t->broken ? 0 : least(t->size - t->used, t->size - at);
}

static int refused(const struct tube *t, struct err *e)
{
    *e = t->read_error;
    return e->kind == ERR_NONE ? err_set(e, ERR_CANCELLED, "nobody reads any more") : -1;
}

int tube_write(struct tube *t, const void *data, size_t n, struct err *e)
{
    const char *p = data;
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    while (n && rc == 0) {
        char *to;
        size_t part = least(n, await_room(t, &to));

        if (!part) {
            rc = refused(t, e);
            break;
        }
        memcpy(to, p, part);
        p += part;
        n -= part;
        if (!t->used)
            pthread_cond_signal(&t->filled);
        t->used += part;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

long tube_peek(struct tube *t, const void **ret, struct err *e)
{
    long got = 0;

    pthread_mutex_lock(&t->lock);
    while (!t->used && !t->closed)
        pthread_cond_wait(&t->filled, &t->lock);
    if (t->used) {
        *ret = t->buf + t->head;
        got = (long)least(t->used, t->size - t->head);
    } else if (t->write_error.kind != ERR_NONE) {
        *e = t->write_error;
        got = -1;
    }
    pthread_mutex_unlock(&t->lock);
    return got;
}

void tube_consume(struct tube *t, size_t n)
{
    pthread_mutex_lock(&t->lock);
    t->head = (t->head + n) % t->size;
    t->used -= n;
    if (is_roomy(t))
        pthread_cond_signal(&t->emptied);
    pthread_mutex_unlock(&t->lock);
}

long tube_read(struct tube *t, void *buf, size_t n, struct err *e)
{
    const void *data;
    long got = tube_peek(t, &data, e);

    if (got <= 0)
        return got;
    got = (long)least((size_t)got, n);
    memcpy(buf, data, (size_t)got);
    tube_consume(t, (size_t)got);
    return got;
}

static void end(struct tube *t, bool *flag, struct err *slot, const struct err *why)
{
    pthread_mutex_lock(&t->lock);
    if (!*flag && why)
        *slot = *why;
    *flag = true;
    pthread_cond_signal(&t->filled);
    pthread_cond_signal(&t->emptied);
    pthread_mutex_unlock(&t->lock);
}

void tube_close(struct tube *t, const struct err *why)
{
    end(t, &t->closed, &t->write_error, why);
}

void tube_break(struct tube *t, const struct err *why)
{
    end(t, &t->broken, &t->read_error, why);
}
