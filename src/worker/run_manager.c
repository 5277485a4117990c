#include "worker/run_manager.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "netns/network.h"
#include "oci/image.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/reply.h"
#include "worker/run_live.h"
#include "worker/run_store.h"
#include "worker/service.h"
#include "worker/upload.h"

/* ---- the list ---- */

struct live *live_ref(struct live *l)
{
    BUG_ON(!l->refs);
    l->refs++;
    return l;
}

void live_unref(struct live *l)
{
    if (--l->refs)
        return;
    live_unwatch(l);
    ctr_shim_free(l->shim);
    image_unref(l->image);
    free(l->digest);
    protocol_checkin_forget(&l->told);
    run_free(l->run);
    bundle_free(l->again);
    /* Counted: the analyser cannot follow who holds what, and takes a last but one for a last. */
#ifndef __clang_analyzer__
    free(l->again_killed);
    free(l);
#endif
}

void live_begin(struct live *l)
{
    l->m->busy++;
    live_ref(l);
}

void live_finish(struct live *l)
{
    l->m->busy--;
    live_unref(l);
}

struct live *live_add(struct run_manager *m, struct run *r)
{
    struct live *l = mem_new(struct live);

    l->m = m;
    l->run = r;
    l->refs = 1;
    l->meter = USAGE_METER_INIT;
    *m->last = l;
    m->last = &l->next;
    m->n++;
    return l;
}

bool live_is_leaving(const struct live *l)
{
    return l->silent || l->run->finalized || l->run->stage >= RUN_FINISHED;
}

static struct live *find(const struct run_manager *m, const char *uuid)
{
    for (struct live *l = m->first; l; l = l->next)
        if (str_eq(l->run->bundle.uuid, uuid))
            return l;
    return NULL;
}

/* The old one is gone. A kill that came while it went was meant for this one: the service has sent it and forgotten it. */
static void begin_anew(struct run_manager *m, struct bundle *b, const char *killed)
{
    AUTO_FREE char *uuid = mem_strdup(b->uuid);

    run_manager_add(m, b);
    struct live *l = killed ? find(m, uuid) : NULL;
    if (l)
        live_feed_text(l, EV_KILL, killed);
}

void live_drop(struct live *l)
{
    struct run_manager *m = l->m;
    struct live **at = &m->first;
    struct bundle *again = take_ptr(&l->again);
    AUTO_FREE char *killed = take_ptr(&l->again_killed);

    if (l->dropped)
        return;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    if (!l->next)
        m->last = at;
    l->next = NULL;
    l->dropped = true;
    m->n--;
    live_release_inputs(l);
    live_unref(l);
    if (again)
        begin_anew(m, again, killed);
    m->o.changed(m->o.changed_arg);
}

void manager_each_that(struct run_manager *m, bool (*is_meant)(const struct live *l),
                       void (*fn)(struct live *l, const void *arg), const void *arg)
{
    AUTO_FREE struct live **all = NULL;
    size_t n = 0, room = 0;

    for (struct live *l = m->first; l; l = l->next) {
        if (is_meant && !is_meant(l))
            continue;
        if (n == room)
            all = mem_realloc(all, room = 2 * room + 16, sizeof(struct live *));
        all[n++] = live_ref(l);
    }
    for (size_t i = 0; i < n; i++) {
        if (!all[i]->dropped)
            fn(all[i], arg);
        live_unref(all[i]);
    }
}

void manager_each(struct run_manager *m, void (*fn)(struct live *l, const void *arg),
                  const void *arg)
{
    manager_each_that(m, NULL, fn, arg);
}

bool run_manager_has(const struct run_manager *m, const char *uuid)
{
    return find(m, uuid) != NULL;
}

size_t run_manager_count(const struct run_manager *m)
{
    return m->n;
}

/* ---- the machine ---- */

static void save_failed(void *arg, const struct err *error)
{
    (void)arg;
    /* The next change saves again; meanwhile a crash would find the older state, and every stage can be re-entered. */
    if (error)
        log_err("save a run: %s", error->msg);
}

void live_save(struct live *l)
{
    run_store_save(l->m->o.store, l->run, save_failed, NULL);
}

static void stop_upload(struct live *l)
{
    if (l->upload)
        upload_cancel(l->upload);
    else
        live_feed_text(l, EV_UPLOAD_STOPPED, NULL);
}

static void forget(struct live *l)
{
    run_store_forget(l->m->o.store, l->run->bundle.uuid);
    live_drop(l);
}

/* What cannot be done again waits until the disk knows that it is to be done: the exit record goes with the container,
 * the results with the directory. A disk that takes nothing must not keep a container alive, though. */
static void saved_before_clean(void *arg, const struct err *error)
{
    struct live *l = arg;

    save_failed(NULL, error);
    if (!l->dropped && l->run->stage == RUN_CLEANING_UP)
        live_remove(l);
    live_finish(l);
}

static void saved_before_forget(void *arg, const struct err *error)
{
    struct live *l = arg;

    save_failed(NULL, error);
    if (!l->dropped)
        live_remove_dir(l); /* then forgets */
    live_finish(l);
}

/* Reported before, and then lost in a crash, it would be running again for a server that has taken leave of it. */
static void saved_end(void *arg, const struct err *error)
{
    struct live *l = arg;

    save_failed(NULL, error);
    l->untold = false;
    if (!l->dropped && !l->silent)
        l->m->o.news(l->m->o.changed_arg, true);
    live_finish(l);
}

static void save_then(struct live *l, void (*then)(void *arg, const struct err *error))
{
    live_begin(l);
    run_store_save(l->m->o.store, l->run, then, l);
}

static void carry_out(struct live *l, unsigned wants)
{
    static const struct {
        unsigned want;
        void (*fn)(struct live *l);
    } table[] = {
        {WANT_INPUTS, live_ask_inputs}, {WANT_PLACE, live_place},        {WANT_CREATE, live_create},
        {WANT_START, live_start},       {WANT_WATCH, live_watch},        {WANT_CLEAN, live_remove},
        {WANT_UPLOAD, live_upload},     {WANT_STOP_UPLOAD, stop_upload},
    };

    if (wants & WANT_FORGET) {
        if (wants & WANT_REMOVE_DIR)
            save_then(l, saved_before_forget);
        else
            forget(l);
        return;
    }
    /* A start saves by itself: it has to wait for the disk. */
    if ((wants & WANT_SAVE) && (wants & WANT_CLEAN)) {
        save_then(l, saved_before_clean);
        wants &= ~(unsigned)WANT_CLEAN;
    } else if ((wants & WANT_SAVE) && l->untold) {
        save_then(l, saved_end);
    } else if ((wants & WANT_SAVE) && !(wants & WANT_START)) {
        live_save(l);
    }
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (wants & table[i].want)
            table[i].fn(l);
    if (wants & WANT_TELL)
        l->m->o.changed(l->m->o.changed_arg);
}

/* Ended here without a word to the service, which has decided about it meanwhile. */
static void leave_silently(struct live *l)
{
    if (l->discard && !l->m->o.env->shared_fs)
        live_remove_dir(l); /* then forgets */
    else
        forget(l);
}

void live_feed(struct live *l, const struct run_event *ev)
{
    enum run_stage before = l->run->stage;
    bool had_begun = l->run->started;

    if (l->dropped)
        return;
    live_ref(l);
    unsigned wants = run_stage_step(l->run, ev, l->m->o.env->shared_fs);
    if (l->run->stage != before)
        log_info("run=%s stage=%s from=%s", l->run->bundle.uuid, run_stage_name(l->run->stage),
                 run_stage_name(before));
    /* What leaves PREPARING has no more use for answers. */
    if (l->run->stage != RUN_PREPARING)
        l->asking = l->wants_place = false;
    if (l->run->stage == RUN_FINALIZING && before < RUN_FINALIZING)
        l->untold = true;
    carry_out(l, wants);
    if (l->silent && l->run->stage == RUN_RESTAGED && !l->dropped)
        leave_silently(l);
    else if (!l->dropped && l->run->started && !had_begun && !l->silent)
        l->m->o.news(l->m->o.changed_arg, false);
    live_unref(l);
}

void live_feed_text(struct live *l, enum run_event_kind kind, const char *text)
{
    const struct run_event ev = {.kind = kind, .now = clock_epoch(), .text = text};

    live_feed(l, &ev);
}

void live_feed_number(struct live *l, enum run_event_kind kind, int64_t number)
{
    const struct run_event ev = {.kind = kind, .now = clock_epoch(), .number = number};

    live_feed(l, &ev);
}

/* ---- runs and actions ---- */

/* The same bundle once more: ours goes on, unless its time here is over (D20). */
static void add_again(struct live *l, struct bundle *b)
{
    if (live_is_leaving(l)) {
        log_info("run=%s is given to us again: it begins anew when the old one is gone", b->uuid);
        bundle_free(l->again);
        l->again = b;
        mem_replace(&l->again_killed, NULL);
        return;
    }
    log_info("run=%s is held already: it goes on", b->uuid);
    bundle_free(b);
}

void run_manager_add(struct run_manager *m, struct bundle *b)
{
    AUTO_FREE char *dir = m->o.env->shared_fs && b->location
                              ? mem_strdup(b->location)
                              : mem_printf("%s/%s", m->o.runs_dir, b->uuid);
    struct live *old = find(m, b->uuid);

    if (m->stopped) {
        bundle_free(b);
        return;
    }
    if (old) {
        add_again(old, b);
        return;
    }
    struct live *l = live_add(m, run_new(b, dir, clock_epoch()));
    log_info("run=%s accepted image=%s", l->run->bundle.uuid, l->run->bundle.image);
    live_feed_text(l, EV_ENTER, NULL);
}

static void bundle_of(const struct live *l, int dirfd, struct reply_bundle *ret)
{
    struct stat st = {0};

    (void)!fstat(dirfd, &st);
    *ret = (struct reply_bundle){
        .uuid = l->run->bundle.uuid,
        .dirfd = dirfd,
        .dependencies = &l->run->links,
        .uid = st.st_uid,
        .gid = st.st_gid,
    };
}

static void read_or_write(struct run_manager *m, struct live *l, const struct action *a)
{
    AUTO_CLOSE int dir = open(l->run->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct reply_bundle b;

    if (dir < 0) {
        if (a->type == ACTION_READ)
            reply_error(m->o.replies, a->socket_id, 500, "Bundle no longer running");
        return;
    }
    bundle_of(l, dir, &b);
    if (a->type == ACTION_READ)
        reply_read(m->o.replies, &b, a->socket_id, a->path, a->read_args);
    else
        reply_write(m->o.replies, &b, a->path, a->text);
}

static void netcat(struct run_manager *m, struct live *l, const struct action *a)
{
    AUTO(net_lease) struct net_lease *lease = NULL;
    struct err e = ERR_INIT;
    int ns = l->shim ? ctr_shim_netns(l->shim) : -1;

    if (ns < 0 || net_lease_get(m->o.env->net, a->uuid, &lease, &e) < 0) {
        reply_error(m->o.replies, a->socket_id, 500, "Bundle no longer running");
        return;
    }
    /* Addresses may be kept with their prefix length. */
    char *slash = strchr(lease->general4, '/');
    if (slash)
        *slash = '\0';
    reply_netcat(m->o.replies, a->uuid, a->socket_id, ns, lease->general4, a->port, a->text);
}

void run_manager_act(struct run_manager *m, const struct action *a)
{
    struct live *l = find(m, a->uuid);

    if (l && l->again && a->type == ACTION_KILL)
        mem_replace(&l->again_killed, a->kill_message);
    if (!l || l->silent) {
        if (a->type == ACTION_READ || a->type == ACTION_NETCAT)
            reply_error(m->o.replies, a->socket_id, 500, "Bundle no longer running");
        return;
    }
    switch (a->type) {
    case ACTION_KILL:
        log_info("run=%s kill", a->uuid);
        live_feed_text(l, EV_KILL, a->kill_message);
        break;
    case ACTION_MARK_FINALIZED: live_feed_text(l, EV_MARK_FINALIZED, NULL); break;
    case ACTION_READ:
    case ACTION_WRITE: read_or_write(m, l, a); break;
    case ACTION_NETCAT: netcat(m, l, a); break;
    case ACTION_RUN: break;
    }
}

/* ---- reports ---- */

static void report_of(struct live *l, struct run_report *ret)
{
    const struct run *r = l->run;
    bool running = r->stage == RUN_RUNNING;

    live_refresh_old(l);
    *ret = (struct run_report){
        .kept = &l->told,
        .uuid = r->bundle.uuid,
        .run_status = r->status,
        .docker_image = r->docker_image,
        .state = run_stage_state(r->stage),
        .remote = l->m->o.remote,
        .failure_message = run_failure_text(r),
        .bundle_start_time = r->bundle_start,
        .container_time_total = r->time_total,
        .container_time_user = r->time_user,
        .container_time_system = r->time_system,
        .has_exitcode = r->has_exitcode,
        .exitcode = r->exitcode,
        .cpu_usage = running ? l->meter.cpu : -1,
        .memory_usage = running ? l->meter.memory : -1,
        .disk_utilization = r->disk_utilization,
    };
    memcpy(ret->times, r->times, sizeof(ret->times));
}

static void forget_reports(struct run_manager *m)
{
    for (size_t i = 0; i < m->n_reports; i++)
        free((char *)m->reports[i].failure_message);
    m->n_reports = 0;
}

void run_manager_reports(struct run_manager *m, const struct run_report **ret, size_t *ret_n)
{
    forget_reports(m);
    if (m->room_reports < m->n) {
        m->room_reports = 2 * m->n;
        m->reports = mem_realloc(m->reports, m->room_reports, sizeof(*m->reports));
    }
    for (struct live *l = m->first; l; l = l->next)
        if (!l->silent && !l->untold && !l->run->finalized && l->run->stage != RUN_FINISHED)
            report_of(l, &m->reports[m->n_reports++]);
    *ret = m->reports;
    *ret_n = m->n_reports;
}

void run_manager_handed_back(struct run_manager *m, const char *uuid)
{
    struct live *l = find(m, uuid);

    if (l)
        forget(l);
}

static void restage(struct live *l, const void *arg)
{
    (void)arg;
    live_feed_text(l, EV_RESTAGE, NULL);
}

void run_manager_restage(struct run_manager *m)
{
    manager_each(m, restage, NULL);
}

/* ---- does the service still know our runs? ---- */

struct ask_job {
    struct job job; /* first */
    struct live *live;
    struct service *service;
    char *uuid, *state, *remote; /* NULL: not told */
    bool absent, after_outage;
};

static void ask(struct job *job)
{
    struct ask_job *j = (struct ask_job *)job;
    struct err e = ERR_INIT;

    if (service_bundle_state(j->service, j->uuid, job->cancel, &j->state, &j->remote, &e) < 0)
        j->absent = e.kind == ERR_ABSENT;
}

/* Where the bundle is, as the service sees it. remote is a worker id, or a host name until the first check-in. */
static bool may_be_ours(const struct run_manager *m, const char *state, const char *remote)
{
    if (str_eq(state, "worker_offline"))
        return true;
    if (!str_eq(state, "preparing") && !str_eq(state, "running") && !str_eq(state, "finalizing"))
        return false;
    return !remote || !*remote || str_eq(remote, m->o.remote) || str_eq(remote, m->o.hostname);
}

static bool is_final(const char *state)
{
    return str_eq(state, "ready") || str_eq(state, "failed") || str_eq(state, "killed");
}

static void asked(struct job *job)
{
    struct ask_job *j = (struct ask_job *)job;
    struct live *l = j->live;

    if (job->ran && j->absent) {
        log_warn("run=%s its bundle does not exist any more", j->uuid);
        live_feed_text(l, EV_BUNDLE_GONE, NULL);
    } else if (j->after_outage && j->state && !l->dropped &&
               !may_be_ours(l->m, j->state, j->remote)) {
        log_warn("run=%s is not ours any more: state=%s remote=%s", j->uuid, j->state,
                 j->remote ? j->remote : "");
        l->silent = true;
        l->discard = is_final(j->state);
        restage(l, NULL);
    }
    if (j->after_outage && --l->m->asking == 0)
        l->m->o.changed(l->m->o.changed_arg);
    free(j->uuid);
    free(j->state);
    free(j->remote);
    free(j);
    live_finish(l);
}

static void ask_about(struct live *l, const void *arg)
{
    const bool *after_outage = arg;
    struct ask_job *j = mem_new(struct ask_job);

    j->job.run = ask;
    j->job.done = asked;
    j->live = l;
    j->service = l->m->o.service;
    j->uuid = mem_strdup(l->run->bundle.uuid);
    j->after_outage = *after_outage;
    l->m->asking += j->after_outage;
    live_begin(l);
    lane_submit(l->m->o.service_lane, &j->job);
}

void run_manager_ask_after_outage(struct run_manager *m)
{
    bool after_outage = true;

    if (!m->asking && !m->stopped)
        manager_each(m, ask_about, &after_outage);
}

bool run_manager_is_asking(const struct run_manager *m)
{
    return m->asking > 0;
}

static void on_gone_timer(void *arg)
{
    struct run_manager *m = arg;
    bool after_outage = false;

    if (!m->stopped && m->n)
        manager_each(m, ask_about, &after_outage);
    loop_arm(m->gone_timer, m->o.gone_check_ns);
}

/* ---- life of the manager ---- */

struct run_manager *run_manager_new(const struct run_manager_opts *o)
{
    struct run_manager *m = mem_new(struct run_manager);

    m->o = *o;
    m->last = &m->first;
    m->gone_timer = loop_add_timer(o->loop, on_gone_timer, m);
    loop_arm(m->gone_timer, m->o.gone_check_ns);
    return m;
}

static void stop_one(struct live *l, const void *arg)
{
    (void)arg;
    live_unwatch(l);
    if (l->create_cancel)
        cancel_fire(l->create_cancel);
    if (l->upload)
        upload_cancel(l->upload);
}

void run_manager_stop(struct run_manager *m)
{
    m->stopped = true;
    manager_each(m, stop_one, NULL);
}

size_t run_manager_busy(const struct run_manager *m)
{
    return m->busy;
}

void run_manager_free(struct run_manager *m)
{
    if (!m)
        return;
    BUG_ON(m->busy);
    for (struct live *l = m->first, *next; l; l = next) {
        next = l->next;
        live_unref(l);
    }
    manager_quarantine_end(m);
    loop_watch_free(m->gone_timer);
    forget_reports(m);
    free(m->reports);
    free(m);
}
