/*
 * An ask is one question about one image, put to the registry by a job and shared by all the runs that came while it
 * was being answered; it lives as long as one of them, or its job. A user is a run's claim on an ask. So the answer a
 * run got stays its answer (D30), and a run that comes later, when the job is over, makes a new ask (B147).
 *
 *   run a ──user──┐
 *   run b ──user──┴► ask ──job──► pull lane: size, pull, else what is here
 *
 * A cancelled ask takes no more runs. The store keeps images from eviction by leases, which the image of an ask
 * holds; eviction is looked at when something may have changed: a pull ended, a run is over.
 */
#include "worker/images.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/image.h"
#include "oci/pull.h"
#include "oci/ref.h"
#include "oci/store.h"
#include "worker/images_room.h"
#include "worker/images_text.h"

#define TELL_NS (500 * NS_PER_MS)
/* While the cache is above its limit, because what is in it is in use (8.6). */
#define PRUNE_AGAIN_NS (10 * NS_PER_S)

struct ask {
    struct job job; /* first */
    struct images *m;
    struct ask *next;
    char *image, *name;  /* as the bundle names it · with ":latest" */
    struct oci_ref *ref; /* NULL: the text is no reference */
    bool local;          /* for images_hold: no registry is asked */
    unsigned users;
    bool in_flight, given_up;

    /* Filled by the job, read when it is done. */
    struct image *found;
    char *message;
    struct err error;
    enum images_state state;
    char *digest, *shown; /* what the last images_get lent out */

    pthread_mutex_t lock; /* guards the rest */
    struct oci_progress progress;
    bool posted;
    uint64_t told_ns;
};

struct user {
    struct user *next;
    struct ask *ask;
    char *run, *image;
};

struct prune_job {
    struct job job; /* first */
    struct images *m;
    struct str_list touch; /* references of images whose use ends now */
    bool above;
};

struct images {
    struct images_opts o;
    struct images_room room;
    struct ask *asks;
    struct user *users;
    size_t active;
    bool stopped, pruning, prune_again;
    struct str_list touch;
    struct loop_watch *prune_timer;
};

/* ---- an ask: on the lane ---- */

static void note_progress(void *arg);

/* Any thread of the pull. What is posted arrives before the job's end, so the ask is still there. */
static void on_progress(void *arg, const struct oci_progress *p)
{
    struct ask *a = arg;
    uint64_t now = clock_now_ns();

    pthread_mutex_lock(&a->lock);
    bool tell = !a->posted && (p->phase != a->progress.phase || now - a->told_ns >= TELL_NS);
    a->progress = *p;
    if (tell) {
        a->posted = true;
        a->told_ns = now;
    }
    pthread_mutex_unlock(&a->lock);
    if (tell)
        loop_post(a->m->o.loop, note_progress, a);
}

/* The image as it is here; for a new run only if the trust policy lets it be used without asking a registry. */
static int find_here(struct ask *a, struct err *e)
{
    if (!a->local && oci_registries_admit(a->m->o.registries, a->ref, e) < 0)
        return -1;
    return oci_store_find(a->m->o.store, a->ref, &a->found, e);
}

/* Whatever made the pull fail: an image of that name from before is good enough (B148). */
static void fall_back(struct ask *a, const struct err *why, const char *failure)
{
    struct err e = ERR_INIT;

    if (find_here(a, &e) == 0) {
        a->message = mem_printf(
            "Image %s can not be downloaded from the cloud but it is found locally", a->name);
        a->error = *why;
        return;
    }
    a->error = *why;
    a->message =
        failure ? mem_strdup(failure) : mem_printf("Can't download image: %s: %s", why->msg, e.msg);
}

/* 0: go on to pull; 1: the ask is answered. */
static int check_size(struct ask *a, const struct oci_pull_opts *o)
{
    struct err e = ERR_INIT;
    uint64_t size = 0;

    if (!o->max_compressed_size)
        return 0;
    if (oci_pull_size(a->ref, o, &size, &e) < 0) {
        if (e.kind == ERR_ABSENT || e.kind == ERR_CANCELLED)
            return fall_back(a, &e, NULL), 1;
        AUTO_FREE char *text = mem_printf(
            "Cannot fetch image size before pulling Docker image: %s from Docker Hub: %s.", a->name,
            e.msg);
        return fall_back(a, &e, text), 1;
    }
    if (size <= o->max_compressed_size)
        return 0;
    a->message = images_text_too_big(a->name, size, o->max_compressed_size);
    (void)err_set(&a->error, ERR_LIMIT, "%s", a->message);
    return 1;
}

static bool make_room(void *arg, uint64_t missing)
{
    struct images *m = arg;
    bool above;

    return images_room_make(m->o.store, &m->room, missing, &above) > 0;
}

/* Lane thread. Leaves found and message; no image means that it failed. */
static void run_ask(struct job *job)
{
    struct ask *a = (struct ask *)job;
    const struct oci_pull_opts o = {
        .registries = a->m->o.registries,
        .http = a->m->o.http,
        .cancel = job->cancel,
        .max_compressed_size = a->m->o.max_image_size,
        .progress = on_progress,
        .progress_arg = a,
        .reserve = a->m->o.min_free,
        .make_room = make_room,
        .make_room_arg = a->m,
    };
    struct err e = ERR_INIT;

    /* What a digest names cannot have moved: here is here. */
    if ((a->local || a->ref->digest) && find_here(a, &e) == 0)
        return;
    if (a->local) {
        a->error = e;
        return;
    }
    if (check_size(a, &o) != 0)
        return;
    if (oci_pull(a->m->o.store, a->ref, &o, &a->found, &e) < 0)
        fall_back(a, &e, NULL);
}

/* ---- an ask: on the main thread ---- */

static void tell(struct ask *a)
{
    if (a->m->o.changed && a->users && !a->m->stopped)
        a->m->o.changed(a->m->o.changed_arg, a->image);
}

static void note_progress(void *arg)
{
    struct ask *a = arg;

    pthread_mutex_lock(&a->lock);
    a->posted = false;
    pthread_mutex_unlock(&a->lock);
    tell(a);
}

static void ask_free(struct ask *a)
{
    struct ask **at = &a->m->asks;

    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    oci_ref_free(a->ref);
    image_unref(a->found);
    cancel_unref(a->job.cancel);
    pthread_mutex_destroy(&a->lock);
    free(a->image);
    free(a->name);
    free(a->message);
    free(a->digest);
    free(a->shown);
    free(a);
}

static void prune_soon(struct images *m);
/* The name by which images asked for in advance are used: no uuid looks so. */
#define PREPULL "(prepull)"
static void drop_prepull(struct ask *a);
static void let_go(struct ask *a);

static void log_answer(const struct ask *a)
{
    if (a->state == IMAGES_READY && a->error.kind)
        log_warn("image=%s used as it is here: %s", a->name, a->error.msg);
    else if (a->state == IMAGES_READY)
        log_debug("image=%s ready digest=%s", a->name, a->digest ? a->digest : "-");
    else
        log_warn("image=%s %s", a->name, a->error.msg);
}

static void ask_done(struct job *job)
{
    struct ask *a = (struct ask *)job;
    struct images *m = a->m;
    bool cancelled = !job->ran || (!a->found && cancel_fired(job->cancel));

    a->in_flight = false;
    m->active--;
    /* The runs of a cancelled ask are not failed: they are gone, or the worker ends and hands them back. */
    if (!cancelled) {
        a->state = a->found ? IMAGES_READY : IMAGES_FAILED;
        if (a->found)
            mem_replace(&a->digest, a->found->repo_digest);
        if (!a->message)
            a->message = mem_strdup(a->found ? "Image ready" : a->error.msg);
        log_answer(a);
    }
    a->users++; /* whoever is told may let go of it at once */
    if (!cancelled)
        tell(a);
    drop_prepull(a);
    let_go(a);
    prune_soon(m);
}

static struct ask *ask_new(struct images *m, const char *image, bool local)
{
    struct ask *a = mem_new(struct ask);
    struct err e = ERR_INIT;

    a->m = m;
    a->image = mem_strdup(image);
    a->local = local;
    a->next = m->asks;
    m->asks = a;
    pthread_mutex_init(&a->lock, NULL);
    a->job.run = run_ask;
    a->job.done = ask_done;
    a->job.cancel = cancel_new();
    a->progress.phase = OCI_RESOLVING;
    if (oci_ref_parse(image, &a->ref, &e) < 0) {
        a->name = mem_strdup(image);
        a->state = IMAGES_FAILED;
        a->message = mem_printf("Can't download image: %s", e.msg);
        a->error = e;
        return a;
    }
    a->name = images_text_name(image, a->ref);
    a->state = IMAGES_DOWNLOADING;
    if (!m->stopped) {
        a->in_flight = true;
        m->active++;
        lane_submit(local ? m->o.disk_lane : m->o.lane, &a->job);
    }
    return a;
}

/* The ask a run may still join: same image, not yet answered, not being cancelled (B147). */
static struct ask *find_open(struct images *m, const char *image)
{
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    struct err ignored = ERR_INIT;

    if (oci_ref_parse(image, &ref, &ignored) < 0)
        return NULL;
    AUTO_FREE char *text = oci_ref_text(ref);

    for (struct ask *a = m->asks; a; a = a->next) {
        if (!a->in_flight || a->given_up || a->local)
            continue;
        AUTO_FREE char *other = oci_ref_text(a->ref);
        /* The names too: texts and digests are told in the form of the bundle. */
        if (str_eq(text, other) && str_eq(image, a->image))
            return a;
    }
    return NULL;
}

/* ---- users ---- */

static bool has_limit(const struct images *m)
{
    return m->room.max_bytes || m->room.min_free;
}

static void add_user(struct images *m, const char *image, const char *run, struct ask *a)
{
    struct user *u = mem_new(struct user);

    u->run = mem_strdup(run);
    u->image = mem_strdup(image);
    u->ask = a;
    a->users++;
    u->next = m->users;
    m->users = u;
}

static struct user **find_user(struct images *m, const char *image, const char *run)
{
    struct user **at = &m->users;

    while (*at && !(str_eq((*at)->run, run) && (!image || str_eq((*at)->image, image))))
        at = &(*at)->next;
    return at;
}

static void let_go(struct ask *a)
{
    struct images *m = a->m;

    if (--a->users > 0)
        return;
    a->given_up = true;
    if (a->found && !a->in_flight && has_limit(m))
        str_list_add(&m->touch, a->found->repo_digest ? a->found->repo_digest : a->name);
    if (a->in_flight)
        cancel_fire(a->job.cancel);
    else
        ask_free(a);
}

static void drop_user(struct user **at)
{
    struct user *u = *at;

    *at = u->next;
    let_go(u->ask);
    free(u->run);
    free(u->image);
    free(u);
}

/* Answered: whoever only wanted it to be here has no more claim. May free the ask. */
static void drop_prepull(struct ask *a)
{
    for (struct user **at = &a->m->users; *at; at = &(*at)->next)
        if ((*at)->ask == a && str_eq((*at)->run, PREPULL)) {
            drop_user(at);
            return;
        }
}

void images_prepull(struct images *m, const struct str_list *list)
{
    loop_assert_main(m->o.loop);
    for (size_t i = 0; i < list->n; i++) {
        const char *image = list->items[i];

        if (*find_user(m, image, PREPULL))
            continue;
        struct ask *a = ask_new(m, image, false);

        add_user(m, image, PREPULL, a);
        if (!a->in_flight) {
            log_warn("image=%s cannot be fetched in advance: %s", image,
                     a->message ? a->message : "");
            drop_prepull(a);
        }
    }
}

static void show(struct ask *a, struct images_status *ret)
{
    *ret = (struct images_status){.state = a->state};
    if (a->state == IMAGES_DOWNLOADING) {
        pthread_mutex_lock(&a->lock);
        struct oci_progress p = a->progress;
        pthread_mutex_unlock(&a->lock);
        free(a->shown);
        a->shown = a->local ? mem_strdup("") : images_text_progress(&p);
        ret->message = a->shown;
        return;
    }
    ret->message = a->message;
    if (a->state == IMAGES_READY) {
        ret->image = a->found;
        ret->digest = a->digest;
    }
}

void images_get(struct images *m, const char *image, const char *run, struct images_status *ret)
{
    loop_assert_main(m->o.loop);
    struct user **at = find_user(m, image, run);

    /* Held after a restart, but no longer here: asked for like any other. */
    if (*at && (*at)->ask->local && (*at)->ask->state == IMAGES_FAILED)
        drop_user(at);
    at = find_user(m, image, run);
    if (!*at) {
        struct ask *a = find_open(m, image);

        add_user(m, image, run, a ? a : ask_new(m, image, false));
        at = find_user(m, image, run);
    }
    show((*at)->ask, ret);
}

void images_hold(struct images *m, const char *image, const char *run)
{
    loop_assert_main(m->o.loop);
    if (!*find_user(m, image, run))
        add_user(m, image, run, ask_new(m, image, true));
}

void images_release(struct images *m, const char *run)
{
    struct user **at;
    bool any = false;

    loop_assert_main(m->o.loop);
    while (*(at = find_user(m, NULL, run))) {
        drop_user(at);
        any = true;
    }
    if (any)
        prune_soon(m);
}

/* ---- the cache's limit (8.6) ---- */

/* Last use is when the use ended, not when the image was fetched for it. */
static void touch(struct images *m, const char *name)
{
    AUTO(oci_ref) struct oci_ref *ref = NULL;
    AUTO(image) struct image *img = NULL;
    struct err e = ERR_INIT;

    if (oci_ref_parse(name, &ref, &e) < 0 || oci_store_find(m->o.store, ref, &img, &e) < 0)
        log_debug("image=%s last use: %s", name, e.msg);
}

static void run_prune(struct job *job)
{
    struct prune_job *p = (struct prune_job *)job;
    struct images *m = p->m;

    for (size_t i = 0; i < p->touch.n; i++)
        touch(m, p->touch.items[i]);
    images_room_make(m->o.store, &m->room, 0, &p->above);
}

static void prune_done(struct job *job)
{
    struct prune_job *p = (struct prune_job *)job;
    struct images *m = p->m;

    m->active--;
    m->pruning = false;
    if (m->prune_again)
        prune_soon(m);
    else if (p->above && !m->stopped)
        loop_arm(m->prune_timer, PRUNE_AGAIN_NS);
    str_list_free(&p->touch);
    cancel_unref(job->cancel);
    free(p);
}

/* One at a time; what happens meanwhile is looked at when it is done. */
static void prune_soon(struct images *m)
{
    if (!has_limit(m) || m->stopped)
        return;
    m->prune_again = m->pruning;
    if (m->pruning)
        return;
    struct prune_job *p = mem_new(struct prune_job);

    p->m = m;
    p->touch = m->touch;
    m->touch = (struct str_list){0};
    p->job.run = run_prune;
    p->job.done = prune_done;
    p->job.cancel = cancel_new();
    m->pruning = true;
    m->active++;
    loop_disarm(m->prune_timer);
    lane_submit(m->o.disk_lane, &p->job);
}

static void on_prune_timer(void *arg)
{
    prune_soon(arg);
}

/* ---- the manager ---- */

struct images *images_new(const struct images_opts *o)
{
    struct images *m = mem_new(struct images);

    m->o = *o;
    m->room = (struct images_room){o->max_cache_size, o->min_free};
    m->prune_timer = loop_add_timer(o->loop, on_prune_timer, m);
    return m;
}

size_t images_active(const struct images *m)
{
    return m->active;
}

void images_stop(struct images *m)
{
    loop_assert_main(m->o.loop);
    m->stopped = true;
    loop_disarm(m->prune_timer);
    for (struct ask *a = m->asks; a; a = a->next)
        if (a->in_flight)
            cancel_fire(a->job.cancel);
}

void images_free(struct images *m)
{
    if (!m)
        return;
    BUG_ON(m->active > 0);
    while (m->users)
        drop_user(&m->users);
    BUG_ON(m->asks != NULL);
    str_list_free(&m->touch);
    loop_watch_free(m->prune_timer);
    free(m);
}
