#include "worker/nudge.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "worker/service.h"

/* A check-in that is not held has returned by then. */
#define FIRST_NS (20 * NS_PER_MS)
#define PAUSE_NS (NS_PER_S / 2)

struct nudge {
    struct nudge_opts o;
    struct loop_watch *timer;
    struct cancel *cancel; /* of the question in flight */
    bool active, stopped;
    uint64_t not_before_ns;
};

struct question {
    struct job job; /* first */
    struct nudge *n;
    char *uuid;
};

/* What is answered is of no interest: that it was asked has made the server send the message. */
static void ask(struct job *job)
{
    struct question *q = (struct question *)job;
    struct err e = ERR_INIT;

    if (service_look_at(q->n->o.service, q->uuid, job->cancel, &e) < 0)
        log_debug("run=%s looked at, to be let out of a check-in: %s", q->uuid, e.msg);
}

static void asked(struct job *job)
{
    struct question *q = (struct question *)job;
    struct nudge *n = q->n;

    n->active = false;
    cancel_unref(n->cancel);
    n->cancel = NULL;
    free(q->uuid);
    free(q);
    if (!n->stopped)
        nudge_soon(n); /* what came meanwhile; nobody is asked when there is nothing */
}

static void on_timer(void *arg)
{
    struct nudge *n = arg;
    const char *uuid = n->o.whom(n->o.arg);

    if (!uuid)
        return;
    struct question *q = mem_new(struct question);
    n->active = true;
    n->not_before_ns = clock_in_ns(PAUSE_NS);
    n->cancel = cancel_new();
    q->job.run = ask;
    q->job.done = asked;
    q->job.cancel = n->cancel;
    q->n = n;
    q->uuid = mem_strdup(uuid);
    lane_submit(n->o.lane, &q->job);
}

struct nudge *nudge_new(const struct nudge_opts *o)
{
    struct nudge *n = mem_new(struct nudge);

    n->o = *o;
    n->timer = loop_add_timer(o->loop, on_timer, n);
    return n;
}

void nudge_soon(struct nudge *n)
{
    uint64_t now = clock_now_ns(), at = now + FIRST_NS;

    if (n->stopped || n->active)
        return;
    if (at < n->not_before_ns)
        at = n->not_before_ns;
    loop_arm(n->timer, at - now);
}

void nudge_stop(struct nudge *n)
{
    n->stopped = true;
    loop_disarm(n->timer);
    cancel_fire(n->cancel);
}

bool nudge_is_active(const struct nudge *n)
{
    return n->active;
}

void nudge_free(struct nudge *n)
{
    if (!n)
        return;
    BUG_ON(n->active);
    loop_watch_free(n->timer);
    free(n);
}
