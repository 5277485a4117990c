/*
 * What containers that do not die hold: a process stuck in the kernel (a file server that is gone, a driver that hangs) keeps
 * its CPU busy or its GPU open, so nobody else gets them until it is gone. Nothing announces that to a worker that has given
 * the run up, so there is a look every few seconds as long as there is one.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "runtime/gpu.h"
#include "worker/container.h"
#include "worker/run_live.h"

#define LOOK_NS (5 * NS_PER_S)

struct quarantine {
    struct job job; /* first */
    struct quarantine *next;
    struct run_manager *m;
    struct loop_watch *timer;
    char *uuid;
    struct cpu_set cpus;
    struct str_list gpus; /* withdrawn for this reason, none that was before */
    bool looking, gone;
};

static void quarantine_free(struct quarantine *q)
{
    loop_watch_free(q->timer);
    str_list_free(&q->gpus);
    free(q->uuid);
    free(q);
}

static void look(struct job *job)
{
    struct quarantine *q = (struct quarantine *)job;

    q->gone = container_is_gone(q->m->o.env, q->uuid, &q->gpus);
}

static void looked(struct job *job)
{
    struct quarantine *q = (struct quarantine *)job;
    struct run_manager *m = q->m;

    m->busy--;
    q->looking = false;
    if (!q->gone) {
        loop_arm(q->timer, LOOK_NS);
        return;
    }
    log_warn("run=%s the container that did not die is gone; its CPUs and GPUs are free again",
             q->uuid);
    for (struct quarantine **at = &m->quarantined; *at; at = &(*at)->next) {
        if (*at == q) {
            *at = q->next;
            break;
        }
    }
    quarantine_free(q);
    manager_place_waiting(m);
}

static void on_timer(void *arg)
{
    struct quarantine *q = arg;

    if (q->m->stopped || q->looking)
        return;
    q->looking = true;
    q->m->busy++;
    q->job = (struct job){.run = look, .done = looked};
    lane_submit(q->m->o.launch_lane, &q->job);
}

void manager_quarantine(struct live *l)
{
    struct quarantine *q = mem_new(struct quarantine);

    q->m = l->m;
    q->uuid = mem_strdup(l->run->bundle.uuid);
    q->cpus = l->held;
    for (size_t i = 0; i < l->run->gpus.n; i++) {
        if (ctr_gpu_is_withdrawn(l->run->gpus.items[i]))
            continue;
        ctr_gpu_withdraw(l->run->gpus.items[i]); /* not offered any more, either */
        str_list_add(&q->gpus, l->run->gpus.items[i]);
    }
    q->next = q->m->quarantined;
    q->m->quarantined = q;
    q->timer = loop_add_timer(q->m->o.loop, on_timer, q);
    loop_arm(q->timer, LOOK_NS);
}

void manager_quarantined_cpus(const struct run_manager *m, struct cpu_set *to)
{
    for (const struct quarantine *q = m->quarantined; q; q = q->next)
        cpu_set_or(to, &q->cpus);
}

void manager_quarantine_end(struct run_manager *m)
{
    while (m->quarantined) {
        struct quarantine *q = m->quarantined;

        m->quarantined = q->next;
        quarantine_free(q);
    }
}
