/* The blocking parts of a run's life as jobs: container made, container removed, results uploaded, directory gone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/quota.h"
#include "base/tree.h"
#include "oci/image.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/deps.h"
#include "worker/run_live.h"
#include "worker/run_store.h"
#include "worker/upload.h"

#define DIR_LOOK_NS NS_PER_S

/* A copy for a lane; the state file's form is the definition of all that a run is. */
static struct run *copy_run(const struct run *r)
{
    AUTO(cJSON) cJSON *written = run_to_json(r), *v = NULL;
    AUTO_FREE char *text =
        json_text(written); /* whole numbers are exact in the text only (json_add_int) */
    struct run *copy = NULL;
    struct err e = ERR_INIT;

    if (json_parse(text, strlen(text), &v, &e) < 0 || run_from_json(v, &copy, &e) < 0)
        BUG_ON(true);
    return copy;
}

/* ---- create ---- */

struct create_job {
    struct job job; /* first */
    struct live *live;
    const struct container_env *env;
    struct run *run;
    struct image *image;
    struct str_list paths; /* of dependencies; on a shared file system made on the lane */
    struct container_made made;
    bool ok;
    struct err error;
};

/* What a dependency is on a shared file system: a path beneath its bundle's directory, links staying inside. */
static int shared_path(const struct bundle_dep *d, struct str_list *paths, struct err *e)
{
    char *real;

    if (!d->location || d->location[0] != '/')
        return err_set(e, ERR_USER, "dependency %s has no place on the shared file system",
                       d->child_path);
    AUTO_CLOSE int top = open(d->location, O_PATH | O_CLOEXEC);
    if (top < 0)
        return err_sys(e, "%s", d->location);
    AUTO_FREE char *plain = path_normalize(d->parent_path);
    if (!plain)
        return err_set(e, ERR_USER, "%s/%s is not inside the bundle.", d->parent_uuid,
                       d->parent_path);
    if (path_real_beneath_links(top, plain, &real, e) < 0)
        return -1;
    str_list_take(paths, real);
    return 0;
}

static void create(struct job *job)
{
    struct create_job *j = (struct create_job *)job;
    int rc = 0;

    for (size_t i = 0; rc == 0 && j->env->shared_fs && i < j->run->bundle.n_deps; i++)
        rc = shared_path(&j->run->bundle.deps[i], &j->paths, &j->error);
    if (rc == 0)
        rc =
            container_create(j->env, j->run, j->image, &j->paths, job->cancel, &j->made, &j->error);
    j->ok = rc == 0;
}

static void create_free(struct create_job *j)
{
    run_free(j->run);
    image_unref(j->image);
    str_list_free(&j->paths);
    str_list_free(&j->made.links);
    ctr_shim_free(j->made.shim);
    free(j);
}

static void look_again(void *arg)
{
    live_create(arg);
}

/* The server's directory on a shared file system is not to be seen. True: it is waited for (B144). */
static bool waits_for_dir(struct live *l, const struct create_job *j)
{
    if (!j->made.no_dir)
        return false;
    if (!l->dir_until_ns)
        l->dir_until_ns = clock_in_ns(j->env->shared_dir_wait_ns);
    if (clock_passed(l->dir_until_ns))
        return false;
    if (!l->dir_timer)
        l->dir_timer = loop_add_timer(l->m->o.loop, look_again, l);
    loop_arm(l->dir_timer, DIR_LOOK_NS);
    live_feed_text(l, EV_STATUS, "Waiting for bundle directory to be created by the server");
    return true;
}

static void create_done(struct job *job)
{
    struct create_job *j = (struct create_job *)job;
    struct live *l = j->live;

    l->creating = false;
    cancel_unref(l->create_cancel);
    l->create_cancel = NULL;
    str_list_free(&l->run->links);
    str_list_copy(&l->run->links, &j->made.links);
    if (j->ok)
        l->shim = take_ptr(&j->made.shim);
    if (l->remove_wanted) {
        l->remove_wanted = false;
        live_remove(l);
    } else if (l->run->stage == RUN_PREPARING && j->ok) {
        live_feed_text(l, EV_CREATED, l->digest);
    } else if (l->run->stage == RUN_PREPARING && job->ran && !l->m->stopped &&
               !waits_for_dir(l, j)) {
        log_warn("run=%s %s", l->run->bundle.uuid, j->error.msg);
        live_feed_text(l, EV_START_FAILED, j->error.msg);
    }
    create_free(j);
    live_finish(l);
}

/* Paths of the dependencies, which are all there: asked once more, as strings of deps live only until the next call. */
static int collect_paths(struct live *l, struct str_list *paths, struct err *e)
{
    const struct bundle *b = &l->run->bundle;

    for (size_t i = 0; l->m->o.deps && i < b->n_deps; i++) {
        struct deps_status s = {0};
        if (deps_get(l->m->o.deps, b->deps[i].parent_uuid, b->deps[i].parent_path, b->uuid, &s, e) <
            0)
            return -1;
        if (s.state != DEPS_READY)
            return err_set(e, ERR_HOST, "dependency %s is not there any more",
                           b->deps[i].child_path);
        str_list_add(paths, s.path);
    }
    return 0;
}

void live_create(struct live *l)
{
    struct create_job *j = mem_new(struct create_job);

    if (l->m->stopped || l->creating || collect_paths(l, &j->paths, &j->error) < 0) {
        if (!l->m->stopped && !l->creating)
            live_feed_text(l, EV_START_FAILED, j->error.msg);
        create_free(j);
        return;
    }
    l->create_cancel = cancel_new();
    j->job.run = create;
    j->job.done = create_done;
    j->job.cancel = l->create_cancel;
    j->live = l;
    j->env = l->m->o.env;
    j->run = copy_run(l->run);
    j->image = image_ref(l->image);
    l->creating = true;
    live_begin(l);
    lane_submit(l->m->o.launch_lane, &j->job);
}

/* ---- remove ---- */

struct remove_job {
    struct job job; /* first */
    struct live *live;
    const struct container_env *env;
    struct run *run;
    struct ctr_shim *shim;
    struct container_end end;
    bool ok;
    struct err error;
};

static void remove_container(struct job *job)
{
    struct remove_job *j = (struct remove_job *)job;

    j->ok = container_remove(j->env, j->run, take_ptr(&j->shim), &j->end, &j->error) == 0;
}

static void remove_done(struct job *job)
{
    struct remove_job *j = (struct remove_job *)job;
    struct live *l = j->live;
    struct run_event ev = {.kind = EV_CLEANED, .now = clock_epoch(), .number = j->end.bytes};

    l->removing = false;
    if (job->ran && !j->ok) {
        /* What cannot die is not waited for; its CPUs and GPUs are not given to anybody (DESIGN §5). */
        log_err("run=%s clean up: %s", l->run->bundle.uuid, j->error.msg);
        manager_quarantine(l);
    }
    if (job->ran) {
        ev.record = j->end.has_record ? &j->end.record : NULL;
        live_release_inputs(l);
        l->held = (struct cpu_set){0};
        live_feed(l, &ev);
        manager_place_waiting(l->m);
    }
    ctr_shim_free(j->shim);
    run_free(j->run);
    free(j);
    live_finish(l);
}

void live_remove(struct live *l)
{
    if (l->m->stopped || l->removing)
        return;
    live_unwatch(l);
    l->wants_place = l->asking = false;
    if (l->creating) {
        cancel_fire(l->create_cancel);
        l->remove_wanted = true;
        return;
    }
    struct remove_job *j = mem_new(struct remove_job);
    j->job.run = remove_container;
    j->job.done = remove_done;
    j->live = l;
    j->env = l->m->o.env;
    j->run = copy_run(l->run);
    j->shim = take_ptr(&l->shim);
    l->removing = true;
    live_begin(l);
    lane_submit(l->m->o.launch_lane, &j->job);
}

/* ---- upload ---- */

static void upload_progress(void *arg, const char *status)
{
    live_feed_text(arg, EV_UPLOAD_STATUS, status);
}

static void upload_done(void *arg, const struct err *error, bool had_server_error)
{
    struct live *l = arg;
    struct run_event ev = {.kind = EV_UPLOADED, .now = clock_epoch(), .flag = had_server_error};

    l->upload = NULL;
    crash_point("run: uploaded");
    if (error) {
        ev.kind = error->kind == ERR_CANCELLED ? EV_UPLOAD_STOPPED : EV_UPLOAD_FAILED;
        ev.text = error->msg;
        log_warn("run=%s upload: %s", l->run->bundle.uuid, error->msg);
    }
    live_feed(l, &ev);
    live_finish(l);
}

void live_upload(struct live *l)
{
    struct run *r = l->run;
    AUTO_CLOSE int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (l->upload || l->m->stopped)
        return;
    if (dir < 0) {
        AUTO_FREE char *text = mem_printf("%s: %s", r->dir, strerror(errno));
        live_feed_text(l, EV_UPLOAD_FAILED, text);
        return;
    }
    const struct upload_opts o = {
        .loop = l->m->o.loop,
        .lane = l->m->o.upload_lane,
        .service = l->m->o.service,
        .uuid = r->bundle.uuid,
        .store = *r->bundle.store ? r->bundle.store : NULL,
        .dirfd = dir,
        .exclude = &r->bundle.exclude_patterns,
        .progress = upload_progress,
        .done = upload_done,
        .arg = l,
    };
    live_feed_text(l, EV_UPLOAD_STATUS, "Upload started.");
    live_begin(l);
    l->upload = upload_start(&o);
}

/* ---- the directory, and the end ---- */

struct dir_job {
    struct job job; /* first */
    struct live *live;
    char *runs_dir, *uuid;
    bool ok;
    struct err error;
};

static void remove_dir(struct job *job)
{
    struct dir_job *j = (struct dir_job *)job;
    AUTO_CLOSE int dir = open(j->runs_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    AUTO_CLOSE int gone = openat(dir, j->uuid, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (gone >= 0)
        quota_lift(gone);
    crash_point("run: directory to be removed");
    j->ok = dir >= 0 ? tree_remove_at(dir, j->uuid, &j->error) == 0
                     : err_sys(&j->error, "open %s", j->runs_dir) == 0;
}

static void remove_dir_done(struct job *job)
{
    struct dir_job *j = (struct dir_job *)job;
    struct live *l = j->live;

    crash_point("run: directory removed");
    if (job->ran) {
        if (!j->ok)
            log_err("run=%s remove its directory: %s", j->uuid, j->error.msg);
        run_store_forget(l->m->o.store, j->uuid);
        live_drop(l);
    }
    free(j->runs_dir);
    free(j->uuid);
    free(j);
    live_finish(l);
}

void live_remove_dir(struct live *l)
{
    struct dir_job *j = mem_new(struct dir_job);

    j->job.run = remove_dir;
    j->job.done = remove_dir_done;
    j->live = l;
    j->runs_dir = mem_strdup(l->m->o.runs_dir);
    j->uuid = mem_strdup(l->run->bundle.uuid);
    live_begin(l);
    lane_submit(l->m->o.disk_lane, &j->job);
}
