/*
 * Cancel tokens. A file of its own, so that small programs that only ask them need no event loop.
 */
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"

struct cancel {
    atomic_uint refs;
    atomic_bool fired;
    int fd;
};

struct cancel *cancel_new(void)
{
    struct cancel *c = mem_new(struct cancel);

    atomic_init(&c->refs, 1);
    atomic_init(&c->fired, false);
    c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    BUG_ON(c->fd < 0);
    return c;
}

struct cancel *cancel_ref(struct cancel *c)
{
    if (c)
        atomic_fetch_add(&c->refs, 1);
    return c;
}

void cancel_unref(struct cancel *c)
{
    if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    close(c->fd);
    free(c);
}

void cancel_fire(struct cancel *c)
{
    if (!c || atomic_exchange(&c->fired, true))
        return;
    BUG_ON(eventfd_write(c->fd, 1) < 0);
}

bool cancel_fired(const struct cancel *c)
{
    return c && atomic_load(&c->fired);
}

int cancel_fd(const struct cancel *c)
{
    return c ? c->fd : -1;
}
