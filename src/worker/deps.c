/*
 * Records live on the main thread; what touches disk or network is a job that carries copies. A record's job is the only one
 * that changes its place, and a run's wish is a name in `dependents` plus a mark on disk, so that its contents stay even
 * while this worker is down.
 */
#include "worker/deps.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/path.h"
#include "worker/cache.h"
#include "worker/deps_fetch.h"
#include "worker/deps_place.h"
#include "worker/protocol.h"
#include "worker/service.h"

#define FAILED_S       10.0
#define BACKOFF_CAP_NS (30 * NS_PER_S)
#define PROGRESS_NS    NS_PER_S

struct dep {
    struct dep *next;
    char *uuid, *path;
    enum deps_state state;
    struct str_list dependents;
    double last_used;
    struct deps_place *place; /* READY; lock held while there are dependents */
    char *message;            /* FAILED */
    struct download *job;     /* DOWNLOADING */
};

struct download {
    struct job job;
    struct deps *d;
    char *uuid, *path;
    atomic_uint_fast64_t received;
    atomic_uint_fast64_t next_post_ns;
    struct deps_place *place;
    struct err error; /* ERR_NONE: it is there */
};

struct removal {
    struct job job;
    struct deps *d;
    char *name;
};

struct deps {
    struct deps_opts o;
    struct deps_dirs dirs;
    struct dep *list;
    size_t active;
    bool stopped;
    bool looking, look_again; /* at what others have put into the cache */
    char *shown_path;         /* of the last status */
    char *keys;               /* as check-ins tell them; NULL: to be made anew */
};

static struct dep *find(struct deps *d, const char *uuid, const char *path)
{
    for (struct dep *x = d->list; x; x = x->next)
        if (str_eq(x->uuid, uuid) && str_eq(x->path, path))
            return x;
    return NULL;
}

static void forget_keys(struct deps *d)
{
    free(d->keys);
    d->keys = NULL;
}

static struct dep *add(struct deps *d, const char *uuid, const char *path)
{
    struct dep *x = mem_new(struct dep);

    x->uuid = mem_strdup(uuid);
    x->path = mem_strdup(path);
    x->last_used = clock_epoch();
    x->next = d->list;
    d->list = x;
    forget_keys(d);
    return x;
}

static void drop(struct deps *d, struct dep *x)
{
    struct dep **at = &d->list;

    while (*at && *at != x)
        at = &(*at)->next;
    BUG_ON(!*at);
    *at = x->next;
    forget_keys(d);
    deps_place_free(x->place);
    str_list_free(&x->dependents);
    free(x->message);
    free(x->uuid);
    free(x->path);
    free(x);
}

/* --- the download, on its lane ----------------------------------------------------------------------------------- */

static void tell_progress(void *arg)
{
    struct download *j = arg;

    j->d->o.changed(j->d->o.changed_arg, j->uuid, j->path);
}

/* Any thread; posts come before the job's done. */
static void note_progress(void *arg)
{
    struct download *j = arg;

    if (!clock_passed(atomic_load(&j->next_post_ns)))
        return;
    atomic_store(&j->next_post_ns, clock_in_ns(PROGRESS_NS));
    loop_post(j->d->o.loop, tell_progress, j);
}

static int fetch_with_retries(struct download *j, struct err *e)
{
    unsigned attempts = j->d->o.attempts ? j->d->o.attempts : 3;
    struct backoff b =
        BACKOFF_INIT(j->d->o.backoff_ns ? j->d->o.backoff_ns : NS_PER_S, BACKOFF_CAP_NS);
    struct deps_partial partial = {0};
    const struct deps_fetch f = {
        .partial = &partial,
        .dirs = &j->d->dirs,
        .service = j->d->o.service,
        .uuid = j->uuid,
        .path = j->path,
        .cancel = j->job.cancel,
        .received = &j->received,
        .progress = note_progress,
        .progress_arg = j,
    };

    for (unsigned n = 1;; n++) {
        if (deps_fetch(&f, j->place, e) == 0)
            return deps_place_commit(&j->d->dirs, j->place, j->uuid, j->path, e);
        /* What will not get better is not asked again (D45); B134 counts attempts at what might. */
        if (cancel_fired(j->job.cancel))
            return err_set(e, ERR_CANCELLED, "Aborted by user");
        if (n >= attempts || !service_is_transient(e))
            return -1;
        if (fd_wait(cancel_fd(j->job.cancel), POLLIN, clock_in_ns(backoff_next(&b))) != 0)
            return err_set(e, ERR_CANCELLED, "Aborted by user");
    }
}

static void give_up(struct download *j)
{
    deps_fetch_discard(&j->d->dirs, j->place);
    deps_place_give_up(&j->d->dirs, j->place);
}

static void run_download(struct job *job)
{
    struct download *j = (struct download *)job;
    struct err e = ERR_INIT;

    int rc = deps_place_lock(&j->d->dirs, j->uuid, j->path, job->cancel, &j->place, &e);

    if (rc == 0 && !j->place->whole) {
        rc = fetch_with_retries(j, &e);
        if (rc < 0)
            give_up(j); /* while its lock is held */
    }
    if (rc == 0) {
        deps_place_share(j->place);
        return;
    }
    j->error = e;
    deps_place_free(j->place);
    j->place = NULL;
}

/* --- main thread ------------------------------------------------------------------------------------------------- */

static void evict(struct deps *d);
static void look_around(struct deps *d);

static void become_ready(struct deps *d, struct dep *x, struct download *j)
{
    x->state = DEPS_READY;
    x->place = take_ptr(&j->place);
    for (size_t i = 0; i < x->dependents.n; i++)
        deps_place_mark(&d->dirs, x->place->name, x->dependents.items[i]);
    if (!x->dependents.n)
        close_fd(&x->place->lock);
}

static void become_failed(struct dep *x, const struct err *e)
{
    x->state = DEPS_FAILED;
    x->last_used = clock_epoch();
    x->message = mem_printf("Dependency download failed: %s ", e->msg);
    log_info("dependency %s/%s: %s", x->uuid, x->path, e->msg);
}

static void download_done(struct job *job)
{
    struct download *j = (struct download *)job;
    struct deps *d = j->d;
    struct dep *x = find(d, j->uuid, j->path);

    d->active--;
    if (!job->ran)
        err_set(&j->error, ERR_CANCELLED, "Aborted by user");
    BUG_ON(!x || x->job != j);
    x->job = NULL;
    if (j->error.kind == ERR_NONE)
        become_ready(d, x, j);
    else if (j->error.kind == ERR_CANCELLED && !x->dependents.n)
        drop(d, x);
    else if (j->error.kind != ERR_CANCELLED || !d->stopped)
        become_failed(x, &j->error);
    if (!d->stopped) /* the worker ends: its runs wait for their dependencies when it is back */
        d->o.changed(d->o.changed_arg, j->uuid, j->path);
    cancel_unref(job->cancel);
    free(j->uuid);
    free(j->path);
    free(j);
    evict(d);
    look_around(d);
}

static void start_download(struct deps *d, struct dep *x)
{
    struct download *j = mem_new(struct download);

    j->d = d;
    j->uuid = mem_strdup(x->uuid);
    j->path = mem_strdup(x->path);
    j->job = (struct job){.run = run_download, .done = download_done, .cancel = cancel_new()};
    x->state = DEPS_DOWNLOADING;
    x->job = j;
    free(x->message);
    x->message = NULL;
    d->active++;
    lane_submit(d->o.lane, &j->job);
}

/* A READY record that nobody used has no lock: get it again, or find that another worker took the contents away. */
static void take_lease(struct deps *d, struct dep *x)
{
    struct deps_place *p = NULL;
    struct err e = ERR_INIT;

    if (x->place->lock >= 0)
        return;
    if (deps_place_use(&d->dirs, x->place->name, x->uuid, x->path, &p, &e) < 0) {
        deps_place_free(x->place);
        x->place = NULL;
        start_download(d, x);
        return;
    }
    deps_place_free(x->place);
    x->place = p;
}

static void add_dependent(struct deps *d, struct dep *x, const char *run)
{
    x->last_used = clock_epoch();
    if (str_list_has(&x->dependents, run))
        return;
    str_list_add(&x->dependents, run);
    if (x->state == DEPS_READY)
        take_lease(d, x);
    if (x->state == DEPS_READY)
        deps_place_mark(&d->dirs, x->place->name, run);
}

static void fill_status(struct deps *d, const struct dep *x, struct deps_status *ret)
{
    *ret = (struct deps_status){.state = x->state, .message = x->message};
    if (x->job)
        ret->bytes = atomic_load(&x->job->received);
    if (x->state != DEPS_READY)
        return;
    free(d->shown_path);
    d->shown_path = mem_printf("%s/%s", d->dirs.contents_path, x->place->name);
    ret->path = d->shown_path;
    ret->is_dir = x->place->is_dir;
    ret->bytes = x->place->bytes;
}

int deps_get(struct deps *d, const char *uuid, const char *path, const char *run,
             struct deps_status *ret, struct err *e)
{
    AUTO_FREE char *plain = path_normalize(path);

    if (!protocol_is_uuid(uuid))
        return err_set(e, ERR_USER, "dependency: %.80s is not a bundle uuid", uuid);
    if (!plain)
        return err_set(e, ERR_USER, "dependency of %s: the path leads out of the bundle", uuid);
    struct dep *x = find(d, uuid, path);

    if (x && x->state == DEPS_FAILED && clock_epoch() - x->last_used > FAILED_S) {
        drop(d, x); /* B136: a new run tries again */
        x = NULL;
    }
    if (!x) {
        x = add(d, uuid, path);
        start_download(d, x);
    }
    if (x->state != DEPS_FAILED)
        add_dependent(d, x, run);
    fill_status(d, x, ret);
    return 0;
}

void deps_hold(struct deps *d, const char *uuid, const char *path, const char *run)
{
    struct dep *x = find(d, uuid, path);

    if (x && x->state == DEPS_READY)
        add_dependent(d, x, run);
}

void deps_keep_runs(struct deps *d, const struct str_list *runs)
{
    deps_place_keep_marks(&d->dirs, runs);
    evict(d);
    look_around(d);
}

static bool forget_dependent(struct dep *x, const char *run)
{
    for (size_t i = 0; i < x->dependents.n; i++) {
        if (!str_eq(x->dependents.items[i], run))
            continue;
        free(x->dependents.items[i]);
        x->dependents.items[i] = x->dependents.items[--x->dependents.n];
        x->dependents.items[x->dependents.n] = NULL;
        return true;
    }
    return false;
}

void deps_release(struct deps *d, const char *run)
{
    for (struct dep *x = d->list; x; x = x->next) {
        if (!forget_dependent(x, run))
            continue;
        x->last_used = clock_epoch();
        if (x->state == DEPS_READY)
            x->place->marked = deps_place_unmark(&d->dirs, x->place->name, run);
        if (x->state == DEPS_READY && !x->dependents.n)
            close_fd(&x->place->lock);
        if (x->job && !x->dependents.n)
            cancel_fire(x->job->job.cancel); /* B100 */
    }
    evict(d);
}

/* False: there is no room for it and the bracket behind it. */
static bool add_key(struct str *keys, const struct dep *x)
{
    AUTO(str) struct str pair = STR_INIT(BOUND_SERVICE_JSON);

    BUG_ON(json_put_open(&pair, NULL, '[') < 0 || json_put_str(&pair, NULL, x->uuid) < 0 ||
           json_put_str(&pair, NULL, x->path) < 0 || json_put_close(&pair, ']') < 0);
    return keys->len + 1 + pair.len < keys->max &&
           json_put_text(keys, NULL, str_text(&pair), pair.len) == 0;
}

const char *deps_keys(struct deps *d)
{
    struct str keys = STR_INIT(BOUND_CHECKIN_DEPENDENCIES);

    if (d->keys)
        return d->keys;
    BUG_ON(json_put_open(&keys, NULL, '[') < 0);
    for (const struct dep *x = d->list; x; x = x->next)
        if (!add_key(&keys, x))
            break;
    BUG_ON(json_put_close(&keys, ']') < 0);
    d->keys = str_take(&keys);
    return d->keys;
}

size_t deps_active(const struct deps *d)
{
    return d->active;
}

/* --- eviction (7.6) ---------------------------------------------------------------------------------------------- */

static void run_removal(struct job *job)
{
    struct removal *r = (struct removal *)job;
    struct err e = ERR_INIT;

    if (deps_place_remove(&r->d->dirs, r->name, &e) < 0)
        log_debug("dependency cache: %s", e.msg);
}

static void removal_done(struct job *job)
{
    struct removal *r = (struct removal *)job;

    r->d->active--;
    free(r->name);
    free(r);
}

static void remove_ready(struct deps *d, struct dep *x)
{
    struct removal *r = mem_new(struct removal);

    r->d = d;
    r->name = mem_strdup(x->place->name);
    r->job = (struct job){.run = run_removal, .done = removal_done};
    drop(d, x);
    d->active++;
    lane_submit(d->o.disk_lane, &r->job);
}

static void evict(struct deps *d)
{
    size_t n = 0, i = 0;

    for (struct dep *x = d->list; x; x = x->next)
        n++;
    if (!n || d->stopped)
        return;
    AUTO_FREE struct cache_item *items = mem_array(n, sizeof(*items));
    AUTO_FREE struct dep **records = mem_array(n, sizeof(*records));
    AUTO_FREE size_t *victims = mem_array(n, sizeof(*victims));

    for (struct dep *x = d->list; x; x = x->next, i++) {
        records[i] = x;
        items[i] = (struct cache_item){
            .bytes = x->place ? x->place->bytes : 0,
            .key_bytes = strlen(x->uuid) + strlen(x->path) + 8,
            .last_used = x->last_used,
            .failed = x->state == DEPS_FAILED,
            .in_use = x->dependents.n || x->job || (x->place && x->place->marked),
        };
    }
    size_t chosen = cache_evict(items, n, d->o.max_bytes, BOUND_CHECKIN_DEPENDENCIES, victims);

    for (i = 0; i < chosen; i++) {
        struct dep *x = records[victims[i]];

        if (x->state == DEPS_READY)
            remove_ready(d, x);
        else
            drop(d, x);
    }
}

/* --- other workers on this cache ---------------------------------------------------------------------------------
 *
 * The limit is one for all that share the cache. So whenever we have put something into it, we look at what others have
 * put there and taken away meanwhile, and give up what is over the limit, whoever fetched it.
 */

struct seen {
    struct seen *next;
    char *uuid, *path;
    struct deps_place place;
};

struct look {
    struct job job; /* first */
    struct deps *d;
    struct seen *list;
    bool ok;
};

static void note_seen(void *arg, const char *uuid, const char *path, const struct deps_place *p)
{
    struct look *k = arg;
    struct seen *s = mem_new(struct seen);

    s->uuid = mem_strdup(uuid);
    s->path = mem_strdup(path);
    s->place = *p;
    s->place.name = mem_strdup(p->name);
    s->next = k->list;
    k->list = s;
}

static void run_look(struct job *job)
{
    struct look *k = (struct look *)job;
    struct err e = ERR_INIT;

    k->ok = deps_place_each(&k->d->dirs, note_seen, k, &e) == 0;
    if (!k->ok)
        log_debug("dependency cache: %s", e.msg);
}

static void found(void *arg, const char *uuid, const char *path, const struct deps_place *p);

static bool is_seen(const struct seen *s, const struct dep *x)
{
    for (; s; s = s->next)
        if (str_eq(s->uuid, x->uuid) && str_eq(s->path, x->path))
            return true;
    return false;
}

static void take_over(struct deps *d, const struct look *k)
{
    for (struct seen *s = k->list; s; s = s->next) {
        struct dep *x = find(d, s->uuid, s->path);

        if (!x)
            found(d, s->uuid, s->path, &s->place);
        else if (x->place)
            x->place->marked = s->place.marked;
    }
    for (struct dep *x = d->list, *next; x; x = next) {
        next = x->next;
        if (x->state == DEPS_READY && !x->dependents.n && !is_seen(k->list, x))
            drop(d, x);
    }
}

static void look_done(struct job *job)
{
    struct look *k = (struct look *)job;
    struct deps *d = k->d;

    d->active--;
    d->looking = false;
    if (k->ok && !d->stopped) {
        take_over(d, k);
        evict(d);
    }
    while (k->list) {
        struct seen *s = k->list;

        k->list = s->next;
        free(s->uuid);
        free(s->path);
        free(s->place.name);
        free(s);
    }
    free(k);
    if (d->look_again)
        look_around(d);
}

static void look_around(struct deps *d)
{
    if (!d->o.max_bytes || d->stopped)
        return;
    d->look_again = d->looking;
    if (d->looking)
        return;
    struct look *k = mem_new(struct look);

    k->d = d;
    k->job = (struct job){.run = run_look, .done = look_done};
    d->looking = true;
    d->active++;
    lane_submit(d->o.disk_lane, &k->job);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void found(void *arg, const char *uuid, const char *path, const struct deps_place *p)
{
    struct dep *x = add(arg, uuid, path);

    x->state = DEPS_READY;
    x->last_used = p->last_used;
    x->place = mem_dup(p, sizeof(*p));
    x->place->name = mem_strdup(p->name);
}

int deps_open(const struct deps_opts *o, struct deps **ret, struct err *e)
{
    AUTO(deps) struct deps *d = mem_new(struct deps);

    d->o = *o;
    d->dirs.contents = d->dirs.state = -1;
    if (deps_dirs_open(o->work_dir, o->owner, &d->dirs, e) < 0 ||
        deps_place_sweep(&d->dirs, e) < 0 || deps_place_each(&d->dirs, found, d, e) < 0)
        return err_wrap(e, "dependency cache");
    *ret = take_ptr(&d);
    return 0;
}

void deps_stop(struct deps *d)
{
    d->stopped = true;
    for (struct dep *x = d->list; x; x = x->next)
        if (x->job)
            cancel_fire(x->job->job.cancel);
}

void deps_free(struct deps *d)
{
    if (!d)
        return;
    BUG_ON(d->active);
    while (d->list)
        drop(d, d->list);
    deps_dirs_close(&d->dirs);
    free(d->shown_path);
    free(d->keys);
    free(d);
}
