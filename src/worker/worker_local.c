/* What the worker answers on its local socket (local_api.h): its runs as they are now, and kills. */
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "netns/network.h"
#include "runtime/shim.h"
#include "worker/local_api.h"
#include "worker/options.h"
#include "worker/run_live.h"
#include "worker/run_store.h"
#include "worker/worker_parts.h"

struct listing {
    cJSON *list;
    const char *uuid;
    bool stats;
};

static void add_traffic(cJSON *o, struct live *l)
{
    struct err ignored = ERR_INIT;
    struct net_traffic t;

    if (net_traffic_get(l->m->o.env->net, l->run->bundle.uuid, &t, &ignored) < 0)
        return;
    json_add_int(o, "net_sent", (int64_t)t.sent);
    json_add_int(o, "net_received", (int64_t)t.received);
}

static void add_stats(cJSON *o, struct live *l)
{
    struct ctr_stats s = {0};
    struct err ignored = ERR_INIT;

    if (!l->shim || ctr_shim_stats(l->shim, &s, &ignored) < 0)
        return;
    live_refresh(l);
    local_api_add_figures(o, &s);
    if (l->meter.cpu >= 0)
        json_add_double(o, "cpu", l->meter.cpu);
    add_traffic(o, l);
}

static void add_run(struct live *l, const void *arg)
{
    const struct listing *t = arg;
    const struct run *r = l->run;

    if (t->uuid && !str_eq(t->uuid, r->bundle.uuid))
        return;
    cJSON *o = cJSON_CreateObject();
    json_add_str(o, "uuid", r->bundle.uuid);
    json_add_str(o, "stage", strchr(run_stage_name(r->stage), '.') + 1);
    json_add_str(o, "state", run_stage_state(r->stage));
    json_add_str(o, "status", r->status);
    json_add_str(o, "image", r->bundle.image);
    json_add_str(o, "command", r->bundle.command);
    json_add_str(o, "dir", r->dir);
    json_add_int(o, "pid", l->shim ? ctr_shim_pid(l->shim) : 0);
    json_add_double(o, "start", r->bundle_start);
    json_add_str(o, "cpus", r->cpus ? r->cpus : "");
    json_add_str_list(o, "gpus", &r->gpus);
    json_add_int(o, "memory_limit", r->bundle.memory);
    json_add_int(o, "disk", (int64_t)r->disk_utilization);
    if (t->stats)
        add_stats(o, l);
    cJSON_AddItemToArray(t->list, o);
}

static cJSON *runs(void *arg, const char *uuid, bool stats)
{
    const struct worker *w = arg;
    const struct listing t = {.list = cJSON_CreateArray(), .uuid = uuid, .stats = stats};

    manager_each(w->runs, add_run, &t);
    return t.list;
}

static int kill_run(void *arg, const char *uuid, const char *message, struct err *e)
{
    const struct worker *w = arg;
    AUTO_FREE char *id = mem_strdup(uuid);
    AUTO_FREE char *text = mem_strdup(message);
    const struct action a = {.type = ACTION_KILL, .uuid = id, .kill_message = text};

    if (!run_manager_has(w->runs, uuid))
        return err_set(e, ERR_ABSENT, "this worker has no run %s", uuid);
    run_manager_act(w->runs, &a);
    return 0;
}

static cJSON *about(void *arg)
{
    const struct worker *w = arg;
    cJSON *o = cJSON_CreateObject();

    json_add_str(o, "id", run_store_id(w->store));
    json_add_str(o, "version", CW_VERSION);
    json_add_str(o, "server", w->o->server);
    json_add_str(o, "work_dir", w->o->work_dir);
    json_add_int(o, "runs", (int64_t)run_manager_count(w->runs));
    json_add_bool(o, "terminating", w->phase != PHASE_WORKING);
    return o;
}

void worker_local_begin(struct worker *w)
{
    const struct local_api_hooks hooks = {
        .runs = runs, .kill = kill_run, .worker = about, .arg = w};
    struct err e = ERR_INIT;

    /* Several workers may share a runtime directory: the first has the socket, and the rest do well without. */
    if (local_api_open(w->loop, w->o->runtime_dir, &hooks, &w->local, &e) < 0)
        log_warn("cwrun ps and its like will not reach this worker: %s", e.msg);
}

void worker_local_end(struct worker *w)
{
    local_api_close(w->local);
    w->local = NULL;
}
