/*
 * What a crash, a kill or a restart left, put together again before the first check-in: state files, shims, links
 * of the network, writable layers. Each run is entered anew in the stage it was saved in; what belongs to no run is
 * removed. Everything found here is matched by uuid and by the owner written into the container's config.json, because
 * several workers may share the directories (protocol 7.1).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/tree.h"
#include "netns/network.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/deps.h"
#include "worker/images.h"
#include "worker/run_live.h"
#include "worker/run_store.h"

/* What a run that goes on uses stays where it is. */
static void hold_inputs(struct live *l)
{
    const struct bundle *b = &l->run->bundle;
    struct err ignored = ERR_INIT;

    if (l->run->stage > RUN_CLEANING_UP)
        return;
    for (size_t i = 0; l->m->o.deps && i < b->n_deps; i++)
        deps_hold(l->m->o.deps, b->deps[i].parent_uuid, b->deps[i].parent_path, b->uuid);
    if (l->run->stage == RUN_PREPARING)
        return; /* asks for its image again */
    images_hold(l->m->o.images, l->run->docker_image ? l->run->docker_image : b->image, b->uuid);
    if (b->cpus > 0 && l->run->cpus && cpu_set_parse(l->run->cpus, &l->held, &ignored) < 0)
        log_warn("run=%s its CPU set cannot be read: %s", b->uuid, ignored.msg);
}

/* Chosen before the crash for a container that was never saved as created: chosen again. */
static void forget_placement(struct run *r)
{
    mem_replace(&r->cpus, NULL);
    mem_replace(&r->mems, NULL);
    str_list_free(&r->gpus);
    r->userns_first_id = 0;
}

static void sweep_containers(struct run_manager *m)
{
    AUTO(str_list) struct str_list ids = {0};
    struct err e = ERR_INIT;

    if (ctr_shim_list(m->o.env->runtime_dir, &ids, &e) < 0) {
        log_warn("list containers: %s", e.msg);
        return;
    }
    for (size_t i = 0; i < ids.n; i++) {
        if (run_manager_has(m, ids.items[i]))
            continue;
        AUTO_FREE char *owner = container_owner(m->o.env->runtime_dir, ids.items[i]);
        if (!str_eq(owner, m->o.env->owner))
            continue; /* another worker's, maybe alive */
        log_warn("run=%s a container without a run is removed", ids.items[i]);
        if (container_sweep(m->o.env, ids.items[i], &e) < 0)
            log_err("run=%s remove the container: %s", ids.items[i], e.msg);
    }
}

static void sweep_scratch(struct run_manager *m)
{
    AUTO_CLOSE int fd = open(m->o.env->scratch_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    struct err e = ERR_INIT;

    if (!d)
        return;
    take_fd(&fd);
    while ((entry = readdir(d)))
        if (protocol_is_uuid(entry->d_name) && !run_manager_has(m, entry->d_name) &&
            tree_remove_at(dirfd(d), entry->d_name, &e) < 0)
            log_warn("remove %s/%s: %s", m->o.env->scratch_dir, entry->d_name, e.msg);
    closedir(d);
}

static void reconcile_network(struct run_manager *m)
{
    AUTO_FREE const char **ids = mem_array(m->n + 1, sizeof(*ids));
    struct err e = ERR_INIT;
    size_t n = 0;

    for (const struct live *l = m->first; l; l = l->next)
        if (l->run->stage == RUN_RUNNING)
            ids[n++] = l->run->bundle.uuid;
    if (net_reconcile(m->o.env->net, ids, n, &e) < 0)
        log_err("put the network right: %s", e.msg);
}

static void keep_dependents(struct run_manager *m)
{
    AUTO(str_list) struct str_list uuids = {0};

    for (const struct live *l = m->first; l; l = l->next)
        str_list_add(&uuids, l->run->bundle.uuid);
    if (m->o.deps)
        deps_keep_runs(m->o.deps, &uuids);
}

static void enter(struct live *l, const void *arg)
{
    (void)arg;
    log_info("run=%s found stage=%s", l->run->bundle.uuid, run_stage_name(l->run->stage));
    live_feed_text(l, EV_ENTER, NULL);
}

/* A bundle this worker lost may run under another one by now, in the same directories (6.7): its container says so. */
static bool is_elsewhere(const struct run_manager *m, const char *uuid)
{
    AUTO_FREE char *owner = container_owner(m->o.env->runtime_dir, uuid);

    return owner && !str_eq(owner, m->o.env->owner);
}

static void take_up(struct run_manager *m, struct run *r)
{
    if (is_elsewhere(m, r->bundle.uuid)) {
        log_warn("run=%s another worker has it now", r->bundle.uuid);
        run_store_forget(m->o.store, r->bundle.uuid);
        run_free(r);
        return;
    }
    if (r->stage == RUN_PREPARING)
        forget_placement(r);
    hold_inputs(live_add(m, r));
}

/* ---- damaged state (B192, D69) ---- */

/* All that is left of it is its name. */
static void take_up_damaged(struct run_manager *m, const char *uuid)
{
    AUTO_FREE char *dir = mem_printf("%s/%s", m->o.runs_dir, uuid);
    struct bundle *b = mem_new(struct bundle);

    if (is_elsewhere(m, uuid)) {
        bundle_free(b);
        return;
    }
    b->uuid = mem_strdup(uuid);
    b->command = mem_strdup("");
    b->image = mem_strdup("");
    b->store = mem_strdup("");
    struct run *r = run_new(b, dir, clock_epoch());
    r->stage = RUN_CLEANING_UP;
    r->times[RUN_PREPARING].end = r->times[RUN_CLEANING_UP].start = r->bundle_start;
    r->has_contents = access(dir, F_OK) == 0;
    r->failure_message =
        mem_strdup("The worker's record of this run was damaged: its container was ended, and what "
                   "it had written was kept");
    live_add(m, r);
}

/* Its end is told like that of any other run; the record of its container knows the times. */
static void end_damaged(struct run_manager *m, const char *uuid)
{
    struct container_end end = {.bytes = -1};
    struct err e = ERR_INIT;
    struct live *l = m->first;

    while (l && !str_eq(l->run->bundle.uuid, uuid))
        l = l->next;
    if (!l)
        return;
    if (container_remove(m->o.env, l->run, NULL, &end, &e) < 0)
        log_err("run=%s clean up: %s", uuid, e.msg);
    const struct run_event ev = {.kind = EV_CLEANED,
                                 .now = clock_epoch(),
                                 .number = end.bytes,
                                 .record = end.has_record ? &end.record : NULL};
    live_feed(l, &ev);
}

static void enter_unless_damaged(struct live *l, const void *arg)
{
    const struct str_list *damaged = arg;

    if (!str_list_has(damaged, l->run->bundle.uuid))
        enter(l, NULL);
}

int run_manager_recover(struct run_manager *m, struct err *e)
{
    AUTO(str_list) struct str_list notes = {0}, damaged = {0};
    AUTO_FREE struct run **runs = NULL;
    size_t n = 0;

    if (run_store_load(m->o.store, &runs, &n, &notes, &damaged, e) < 0)
        return -1;
    for (size_t i = 0; i < notes.n; i++)
        log_err("%s", notes.items[i]);
    for (size_t i = 0; i < n; i++)
        take_up(m, runs[i]);
    for (size_t i = 0; i < damaged.n; i++)
        take_up_damaged(m, damaged.items[i]);
    keep_dependents(m);
    sweep_containers(m);
    sweep_scratch(m);
    reconcile_network(m);
    manager_each(m, enter_unless_damaged, &damaged);
    for (size_t i = 0; i < damaged.n; i++)
        end_damaged(m, damaged.items[i]);
    return 0;
}
