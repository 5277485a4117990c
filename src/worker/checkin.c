#include "worker/checkin.h"

#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "worker/service.h"

#define FAILURE_PAUSE_NS (5 * NS_PER_S)

struct checkin {
    struct checkin_opts o;
    struct loop_watch *timer;
    struct cancel *cancel; /* of the one in flight */
    bool in_flight, again, stopped, succeeded;
    bool news;         /* came after the one in flight, which is why it is wanted again */
    unsigned failures; /* in a row; a worker that never succeeded has one */
    uint64_t last_success_ns;
    uint64_t next_in_ns; /* 0: after the usual pause */
};

struct checkin_job {
    struct job job; /* first */
    struct checkin *c;
    char *body;
    cJSON *answer;
    bool ok;
    struct err error;
};

static void call(struct job *job)
{
    struct checkin_job *j = (struct checkin_job *)job;

    j->ok = service_checkin(j->c->o.service, j->body, strlen(j->body), job->cancel, &j->answer,
                            &j->error) == 0;
}

static void take_answer(struct checkin *c, const struct checkin_job *j)
{
    if (!c->succeeded)
        log_info("Connected! Successful check in!");
    c->succeeded = true;
    c->failures = 0;
    c->last_success_ns = clock_now_ns();
    c->o.accepted(c->o.arg, j->answer);
}

/* Returns the extra pause. */
static uint64_t take_failure(struct checkin *c, const struct checkin_job *j)
{
    log_warn("Disconnected from server! Failed check in: %s", j->error.msg);
    c->succeeded = false;
    c->failures++;
    c->o.failed(c->o.arg);
    if (c->failures < 2)
        return 0;
    log_info("Checkin failed twice in a row, sleeping 5 seconds");
    return FAILURE_PAUSE_NS;
}

static void start(struct checkin *c);

static void returned(struct job *job)
{
    struct checkin_job *j = (struct checkin_job *)job;
    struct checkin *c = j->c;
    uint64_t extra = 0;

    c->next_in_ns = 0;
    cancel_unref(c->cancel);
    c->cancel = NULL;
    /* Whoever wants the next one while this is being taken has it afterwards: its body must know all that this told. */
    if (j->ok)
        take_answer(c, j);
    else if (!c->stopped)
        extra = take_failure(c, j);
    c->in_flight = false;
    cJSON_Delete(j->answer);
    free(j->body);
    free(j);
    if (c->stopped)
        return;
    if (c->again && !extra)
        start(c);
    else
        loop_arm(c->timer, (c->next_in_ns ? c->next_in_ns : c->o.pause_ns) + extra);
}

static void start(struct checkin *c)
{
    if (c->stopped)
        return;
    if (c->in_flight) {
        c->again = true;
        return;
    }
    struct checkin_job *j = mem_new(struct checkin_job);
    c->again = c->news = false;
    c->in_flight = true;
    c->cancel = cancel_new();
    j->job.run = call;
    j->job.done = returned;
    j->job.cancel = c->cancel;
    j->c = c;
    j->body = c->o.body(c->o.arg);
    loop_disarm(c->timer);
    lane_submit(c->o.lane, &j->job);
}

static void on_timer(void *arg)
{
    start(arg);
}

struct checkin *checkin_new(const struct checkin_opts *o)
{
    struct checkin *c = mem_new(struct checkin);

    c->o = *o;
    c->failures = 1;
    c->timer = loop_add_timer(o->loop, on_timer, c);
    return c;
}

void checkin_wake(struct checkin *c)
{
    start(c);
}

void checkin_tell(struct checkin *c)
{
    c->news = c->in_flight;
    if (c->in_flight || c->failures < 2)
        start(c);
}

void checkin_next_in(struct checkin *c, uint64_t ns)
{
    c->next_in_ns = ns < c->o.pause_ns ? ns : c->o.pause_ns;
}

void checkin_stop(struct checkin *c)
{
    c->stopped = true;
    loop_disarm(c->timer);
    cancel_fire(c->cancel);
}

bool checkin_is_in_flight(const struct checkin *c)
{
    return c->in_flight;
}

bool checkin_is_waited_for(const struct checkin *c)
{
    return c->in_flight && c->news;
}

bool checkin_has_succeeded(const struct checkin *c)
{
    return c->succeeded;
}

uint64_t checkin_last_success_ns(const struct checkin *c)
{
    return c->last_success_ns;
}

void checkin_free(struct checkin *c)
{
    if (!c)
        return;
    BUG_ON(c->in_flight);
    loop_watch_free(c->timer);
    free(c);
}
