#include "base/tube.h"

#include <pthread.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct tube {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
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
    pthread_cond_init(&t->changed, NULL);
    return t;
}

void tube_free(struct tube *t)
{
    if (!t)
        return;
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

int tube_write(struct tube *t, const void *data, size_t n, struct err *e)
{
    const char *p = data;
    int rc = 0;

    pthread_mutex_lock(&t->lock);
    while (n && !t->broken) {
        size_t at = (t->head + t->used) % t->size;
        size_t part = least(least(n, t->size - t->used), t->size - at);

        if (!part) {
            pthread_cond_wait(&t->changed, &t->lock);
            continue;
        }
        memcpy(t->buf + at, p, part);
        t->used += part;
        p += part;
        n -= part;
        pthread_cond_signal(&t->changed);
    }
    if (n) {
        *e = t->read_error;
        rc = e->kind == ERR_NONE ? err_set(e, ERR_CANCELLED, "nobody reads any more") : -1;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

long tube_peek(struct tube *t, const void **ret, struct err *e)
{
    long got = 0;

    pthread_mutex_lock(&t->lock);
    while (!t->used && !t->closed)
        pthread_cond_wait(&t->changed, &t->lock);
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
    pthread_cond_signal(&t->changed);
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
    pthread_cond_signal(&t->changed);
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
