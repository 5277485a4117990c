/* What a run needs before its container: dependencies, image, CPUs and GPUs (protocol 6.1 steps 1-4). */
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "oci/image.h"
#include "runtime/gpu.h"
#include "worker/container.h"
#include "worker/deps.h"
#include "worker/images.h"
#include "worker/placement.h"
#include "worker/run_live.h"
#include "worker/topology.h"

/* Ids nobody else hands out: the range systemd keeps free, 4096 times 65536 of them. */
#define IDS_FIRST  0x70000000u
#define IDS_RANGES 4096u

struct pending {
    char *last_dep; /* status of the last dependency that is not there */
    char *image;
    unsigned n;
    char *failure;
};

static void look_at_deps(struct live *l, struct pending *p)
{
    const struct bundle *b = &l->run->bundle;
    char size[UNITS_TEXT_MAX];

    for (size_t i = 0; i < b->n_deps && !p->failure; i++) {
        const struct bundle_dep *dep = &b->deps[i];
        struct deps_status s = {0};
        struct err e = ERR_INIT;

        if (protocol_check_child_path(dep->child_path, &e) < 0) {
            p->failure = mem_strdup(e.msg);
        } else if (deps_get(l->m->o.deps, dep->parent_uuid, dep->parent_path, b->uuid, &s, &e) <
                   0) {
            p->failure = mem_printf("Failed to download dependency %s: %s", dep->child_path, e.msg);
        } else if (s.state == DEPS_FAILED) {
            p->failure =
                mem_printf("Failed to download dependency %s: %s", dep->child_path, s.message);
        } else if (s.state == DEPS_DOWNLOADING) {
            const char *text = units_size_str(size, (double)s.bytes, false);
            free(p->last_dep);
            p->last_dep = mem_printf("Downloading dependency %s: %s done (archived size)",
                                     dep->child_path, text ? text : "");
            p->n++;
        }
    }
}

static void look_at_image(struct live *l, struct pending *p)
{
    const struct bundle *b = &l->run->bundle;
    struct images_status s = {0};

    images_get(l->m->o.images, b->image, b->uuid, &s);
    if (s.state == IMAGES_FAILED && !p->failure) {
        p->failure = mem_printf("Failed to download Docker image: %s", s.message);
    } else if (s.state == IMAGES_DOWNLOADING) {
        p->image = mem_printf("Pulling docker image %s. %s", b->image, s.message);
        p->n++;
    } else if (s.state == IMAGES_READY && !l->image) {
        l->image = image_ref(s.image);
        mem_replace(&l->digest, s.digest);
    }
}

/* Also called whenever an answer may have changed. */
void live_ask_inputs(struct live *l)
{
    struct pending p = {0};

    l->asking = true;
    if (l->m->o.deps)
        look_at_deps(l, &p);
    if (!p.failure)
        look_at_image(l, &p);
    if (p.failure) {
        l->asking = false;
        live_feed_text(l, EV_INPUT_FAILED, p.failure);
    } else if (p.n) {
        const char *first = p.image ? p.image : p.last_dep;
        AUTO_FREE char *status =
            p.n > 1 ? mem_printf("%s(and downloading %u other dependencies and docker images)",
                                 first, p.n - 1)
                    : mem_strdup(first);
        live_feed_text(l, EV_STATUS, status);
    } else {
        l->asking = false;
        live_feed_text(l, EV_INPUTS_READY, NULL);
    }
    free(p.failure);
    free(p.last_dep);
    free(p.image);
}

static bool is_waiting(const struct live *l)
{
    return l->asking;
}

static void ask_if_waiting(struct live *l, const void *arg)
{
    (void)arg;
    if (l->asking)
        live_ask_inputs(l);
}

void run_manager_dep_changed(void *manager, const char *uuid, const char *path)
{
    (void)uuid, (void)path;
    manager_each_that(manager, is_waiting, ask_if_waiting, NULL);
}

void run_manager_image_changed(void *manager, const char *image)
{
    (void)image;
    manager_each_that(manager, is_waiting, ask_if_waiting, NULL);
}

void live_release_inputs(struct live *l)
{
    const char *uuid = l->run->bundle.uuid;

    l->asking = false;
    image_unref(l->image);
    l->image = NULL;
    images_release(l->m->o.images, uuid);
    if (l->m->o.deps)
        deps_release(l->m->o.deps, uuid);
}

/* ---- CPUs, GPUs, ids ---- */

static void used_cpus(const struct run_manager *m, struct cpu_set *ret)
{
    *ret = (struct cpu_set){0};
    manager_quarantined_cpus(m, ret);
    for (const struct live *l = m->first; l; l = l->next)
        cpu_set_or(ret, &l->held);
}

static bool is_gpu_held(const struct run_manager *m, const char *uuid)
{
    for (const struct live *l = m->first; l; l = l->next)
        if (str_list_has(&l->run->gpus, uuid))
            return true;
    return false;
}

static uint32_t free_ids(const struct run_manager *m, const char *uuid)
{
    uint32_t hash = 2166136261u;

    for (const char *p = uuid; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    for (uint32_t i = 0; i < IDS_RANGES; i++) {
        uint32_t first = IDS_FIRST + (hash + i) % IDS_RANGES * 65536u;
        const struct live *l = m->first;
        while (l && l->run->userns_first_id != first)
            l = l->next;
        if (!l)
            return first;
    }
    return 0;
}

/* GPUs first, CPUs near them. A new text when something is short. */
static char *choose(struct live *l, size_t *gpu_index, struct cpu_set *cpus, struct cpu_set *nodes)
{
    struct run_manager *m = l->m;
    const struct bundle *b = &l->run->bundle;
    AUTO_FREE struct placement_gpu *gpus = mem_array(m->o.n_gpus + 1, sizeof(*gpus));
    struct cpu_set used, free_set = m->o.cpus;
    unsigned free_gpus = 0;
    int near = -1;

    for (size_t i = 0; i < m->o.n_gpus; i++) {
        const struct ctr_gpu *g = &m->o.gpus[i];
        gpus[i] = (struct placement_gpu){g->uuid, g->numa_node,
                                         !g->usable || ctr_gpu_is_withdrawn(g->uuid) ||
                                             is_gpu_held(m, g->uuid)};
        free_gpus += !gpus[i].used;
    }
    used_cpus(m, &used);
    cpu_set_minus(&free_set, &used);
    if (b->cpus > cpu_set_count(&free_set))
        return placement_shortage(b->uuid, "CPUs", b->cpus, cpu_set_count(&free_set),
                                  cpu_set_count(&m->o.cpus));
    if (b->gpus > free_gpus ||
        !placement_gpus(gpus, m->o.n_gpus, (unsigned)b->gpus, gpu_index, &near))
        return placement_shortage(b->uuid, "GPUs", b->gpus, free_gpus, (unsigned)m->o.n_gpus);
    if (!placement_cpus(m->o.topology, &m->o.cpus, &used, (unsigned)b->cpus, near, cpus, nodes))
        return placement_shortage(b->uuid, "CPUs", b->cpus, cpu_set_count(&free_set),
                                  cpu_set_count(&m->o.cpus));
    return NULL;
}

void live_place(struct live *l)
{
    struct run *r = l->run;
    AUTO_FREE size_t *gpu_index = mem_array((size_t)r->bundle.gpus + 1, sizeof(*gpu_index));
    struct cpu_set cpus, nodes;

    if (l->m->stopped)
        return;
    AUTO_FREE char *shortage = choose(l, gpu_index, &cpus, &nodes);
    l->wants_place = shortage != NULL;
    if (shortage) {
        live_feed_text(l, EV_STATUS, shortage);
        return;
    }
    l->held = cpus;
    free(r->cpus);
    free(r->mems);
    /* None asked for, as no server does: it has none of its own, and runs where the worker may. */
    r->cpus = cpu_set_text(r->bundle.cpus > 0 ? &cpus : &l->m->o.cpus);
    r->mems = r->bundle.cpus > 0 ? cpu_set_text(&nodes) : NULL;
    str_list_free(&r->gpus);
    for (int64_t i = 0; i < r->bundle.gpus; i++)
        str_list_add(&r->gpus, l->m->o.gpus[gpu_index[i]].uuid);
    r->userns_first_id = l->m->o.own_ids ? free_ids(l->m, r->bundle.uuid) : 0;
    live_feed_text(l, EV_PLACED, NULL);
}

static bool is_short(const struct live *l)
{
    return l->wants_place;
}

static void place_if_waiting(struct live *l, const void *arg)
{
    (void)arg;
    if (l->wants_place)
        live_place(l);
}

void manager_place_waiting(struct run_manager *m)
{
    manager_each_that(m, is_short, place_if_waiting, NULL);
}
