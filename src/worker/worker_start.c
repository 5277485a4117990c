/*
 * Bundles the service offers: asked for (start_bundle, B055-B058), and taken when it says that they are ours. What is being
 * asked for is noted on disk, so that a crash between question and answer loses none.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "worker/options.h"
#include "worker/protocol.h"
#include "worker/run_manager.h"
#include "worker/run_store.h"
#include "worker/service.h"
#include "worker/worker_parts.h"

struct start_job {
    struct job job; /* first */
    struct worker *w;
    struct start_job *next; /* of the worker's */
    struct bundle *bundle;
    char *killed; /* message of a kill that came meanwhile: the service will not send it again */
    bool ours, ok;
    struct err error;
};

static void forget_start(struct worker *w, const struct start_job *j)
{
    struct start_job **at = &w->start_jobs;

    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    w->starting--;
}

void worker_start_kill(struct worker *w, const struct action *a)
{
    for (struct start_job *j = w->start_jobs; j; j = j->next)
        if (str_eq(j->bundle->uuid, a->uuid)) {
            log_info("run=%s is killed before it is ours", a->uuid);
            mem_replace(&j->killed, a->kill_message);
        }
}

/* The bundle is ours. */
static void take_bundle(struct worker *w, struct start_job *j)
{
    AUTO_FREE char *uuid = mem_strdup(j->bundle->uuid);
    const struct action kill = {.type = ACTION_KILL, .uuid = uuid, .kill_message = j->killed};

    if (!run_manager_has(w->runs, uuid))
        w->runs_started++;
    run_manager_add(w->runs, take_ptr(&j->bundle));
    if (j->killed)
        run_manager_act(w->runs, &kill);
}

static void ask_for_bundle(struct job *job)
{
    struct start_job *j = (struct start_job *)job;

    if (run_store_note(j->w->store, j->bundle, &j->error) < 0)
        return; /* no room for its state: it is not ours to take */
    crash_point("bundle: noted");
    j->ok = service_start_bundle(j->w->service, j->bundle->uuid, j->w->hostname,
                                 (int64_t)clock_epoch(), job->cancel, &j->ours, &j->error) == 0;
    crash_point("bundle: confirmed");
}

static void asked_for_bundle(struct job *job)
{
    struct start_job *j = (struct start_job *)job;
    struct worker *w = j->w;
    const char *uuid = j->bundle->uuid;

    forget_start(w, j);
    if (!job->ran || w->phase != PHASE_WORKING) {
        log_info("run=%s dropped: the worker is ending", uuid);
    } else if (!j->ok) {
        log_warn("run=%s %s", uuid, j->error.msg);
    } else if (!j->ours) {
        log_info("Bundle %s no longer assigned to this worker", uuid);
    } else {
        take_bundle(w, j);
    }
    /* What was taken loses its note with its first save; what came too late is asked for at the next start. */
    if (j->bundle && !(job->ran && j->ok && j->ours))
        run_store_unnote(w->store, uuid);
    bundle_free(j->bundle);
    free(j->killed);
    free(j);
}

static void submit_start(struct worker *w, struct bundle *b)
{
    struct start_job *j = mem_new(struct start_job);

    j->job.run = ask_for_bundle;
    j->job.done = asked_for_bundle;
    j->w = w;
    j->bundle = b;
    w->starting++;
    j->next = w->start_jobs;
    w->start_jobs = j;
    lane_submit(w->lanes[LANE_SERVICE], &j->job);
}

void worker_start_again(struct worker *w)
{
    AUTO_FREE struct bundle **notes = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    if (run_store_load_notes(w->store, &notes, &n, &e) < 0)
        log_warn("bundles that were being asked for: %s", e.msg);
    for (size_t i = 0; i < n; i++) {
        log_info("run=%s is asked for once more", notes[i]->uuid);
        submit_start(w, notes[i]);
    }
}

void worker_start_bundle(struct worker *w, struct action *a)
{
    log_debug("run=%s offered", a->bundle->uuid);
    if (w->runs_started + (int64_t)w->starting >= w->o->exit_after_num_runs) {
        log_info(
            "Worker has finished starting the number of jobs allowed to run on: %lld. Stop starting further runs.",
            (long long)w->o->exit_after_num_runs);
        return;
    }
    submit_start(w, take_ptr(&a->bundle));
}
