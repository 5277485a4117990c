#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/tree.h"
#include "netns/network.h"
#include "oci/store.h"
#include "runtime/cgroup.h"
#include "runtime/doctor.h"
#include "runtime/gpu.h"
#include "runtime/shim.h"
#include "worker/checkin.h"
#include "worker/deps.h"
#include "worker/gpuset.h"
#include "worker/images.h"
#include "worker/nudge.h"
#include "worker/options.h"
#include "worker/reply.h"
#include "worker/run_manager.h"
#include "worker/run_store.h"
#include "worker/service.h"
#include "worker/worker_parts.h"

#define LOGIN_ATTEMPTS 5
#define MADE           "made" /* in the state directory: what was not there before the first of us */
#define LANE_STOP_NS   (10 * NS_PER_S)
#define DAEMON_JSON    "/etc/docker/daemon.json"

/* ---- before any thread ---- */

/* A peer that hangs up is an error of that write, not the end of the worker. */
static void ignore_broken_pipes(void)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL);
}

static int check_host(const struct options *o, struct err *e)
{
    if (geteuid() != 0)
        return err_set(e, ERR_HOST,
                       "cworkerd makes containers and networks: it must be started as root");
    if (str_eq(o->cgroup, "partial"))
        return 0;
    return ctr_doctor_cgroup(e) < 0
               ? err_wrap(e, "no limits can be set on this host (--cgroup=partial goes on without)")
               : 0;
}

static void gpu_skipped(const struct ctr_gpu *g)
{
    log_warn("GPU %s is not offered: %s", g->uuid, g->why_not);
}

/* Only those that open are offered (B204). */
static int choose_gpus(struct worker *w, struct err *e)
{
    AUTO_FREE struct ctr_gpu *all = NULL;
    struct err why = ERR_INIT;
    size_t n = 0;

    if (gpuset_is_empty(w->o->gpuset))
        return 0;
    if (ctr_gpu_list(&all, &n, &why) < 0)
        log_warn("no GPU support: %s", why.msg);
    return gpuset_choose(w->o->gpuset, all, n, &w->gpus, &w->n_gpus, gpu_skipped, e);
}

static const char *const shared_dirs[] = {"dependencies", "dependencies-state", "images",
                                          "containers"};

/* --work-dir may be /tmp (Azure): what is there before us under a name of ours is not ours to delete (D74). */
static int note_made(const struct worker *w, struct err *e)
{
    AUTO(str) struct str made = STR_INIT(1024);
    AUTO_FREE char *dir = mem_printf("%s/state", w->o->work_dir);
    AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open %s", dir);
    if (faccessat(fd, MADE, F_OK, 0) == 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(shared_dirs); i++) {
        AUTO_FREE char *path = mem_printf("%s/%s", w->o->work_dir, shared_dirs[i]);
        if (access(path, F_OK) < 0 && str_appendf(&made, "%s\n", shared_dirs[i]) < 0)
            return err_set(e, ERR_BUG, "names of directories");
    }
    return statefile_replace(fd, MADE, str_text(&made), made.len, 0600, true, e);
}

/* The least of what the machine has, what the allocation we were started in leaves, and --max-memory (B025). */
static int64_t memory_offered(const struct worker *w)
{
    uint64_t memory = topology_memory();
    uint64_t allowed = ctr_cgroup_memory_allowed(w->cgroup_runs);

    if (allowed < memory)
        memory = allowed;
    if (w->o->max_memory > 0 && (uint64_t)w->o->max_memory < memory)
        memory = (uint64_t)w->o->max_memory;
    return (int64_t)memory;
}

static int open_host(struct worker *w, struct err *e)
{
    struct options *o = w->o;
    char host[65] = "";

    if (check_host(o, e) < 0 || path_mkdirs(o->work_dir, 0770, e) < 0 ||
        path_mkdirs(o->runtime_dir, 0700, e) < 0 ||
        run_store_open(o->work_dir, o->id, &w->store, e) < 0 || note_made(w, e) < 0 ||
        ctr_cgroup_service_open(o->cgroup_parent, str_eq(o->cgroup, "partial"), &w->cgroup_runs,
                                e) < 0 ||
        topology_read("/sys", &w->topology, e) < 0 ||
        topology_cpuset(&w->topology, o->cpuset, &w->cpus, e) < 0 || choose_gpus(w, e) < 0)
        return -1;
    gethostname(host, sizeof(host) - 1);
    w->hostname = mem_strdup(host);
    w->runs_dir = mem_printf("%s/runs", o->work_dir);
    w->scratch_dir = mem_printf("%s/%s", o->scratch_dir, run_store_name(w->store));
    w->owner = mem_printf("%s %s", run_store_id(w->store), o->work_dir);
    w->memory = memory_offered(w);
    return path_mkdirs(w->runs_dir, 0770, e);
}

/* ---- the service ---- */

static void say_refused(const struct options *o)
{
    log_err("Cannot log into the bundle service. Please check your worker credentials.");
    log_err("Username: \"%s\" , server \"%s\"", o->username, o->server);
}

/* Wrong credentials end it at once; a server that is only out of reach gets some time (D02). */
static int login(struct worker *w, struct err *e)
{
    struct backoff pause = BACKOFF_INIT(NS_PER_S, 8 * NS_PER_S);

    for (int i = 1; service_login(w->service, NULL, e) < 0; i++) {
        if (!service_is_transient(e)) {
            say_refused(w->o);
            return -1;
        }
        log_warn("The bundle service cannot be reached (attempt %d of %d): %s", i, LOGIN_ATTEMPTS,
                 e->msg);
        if (i == LOGIN_ATTEMPTS)
            return err_wrap(e, "the bundle service %s cannot be reached", w->o->server);
        poll(NULL, 0,
             (int)(backoff_next(&pause) /
                   NS_PER_MS)); /* nothing runs yet that could be kept waiting */
    }
    return 0;
}

static int open_service(struct worker *w, struct err *e)
{
    const struct http_tls tls = {.ca_file = w->o->ca_file};
    const struct service_opts o = {
        .server = w->o->server,
        .username = w->o->username,
        .password = w->o->password,
        .worker_id = run_store_id(w->store),
        .user_agent = "cworkerd/" CW_VERSION,
        .tls = w->o->ca_file ? &tls : NULL,
    };

    return service_new(&o, &w->service, e) < 0 ? -1 : login(w, e);
}

/* ---- images, network, managers ---- */

static int open_registries(struct worker *w, struct err *e)
{
    struct oci_registries *r = &w->registries;
    const struct options *o = w->o;

    for (size_t i = 0; i < o->registry_mirrors.n; i++)
        if (oci_registries_add_mirror(r, o->registry_mirrors.items[i], e) < 0)
            return -1;
    for (size_t i = 0; i < o->insecure_registries.n; i++)
        str_list_add(&r->insecure, o->insecure_registries.items[i]);
    mem_replace(&r->certs_dir, o->certs_dir);
    r->patience_ns = o->registry_timeout > 0 ? (uint64_t)o->registry_timeout * NS_PER_S : 0;
    oci_registries_credentials(r, o->docker_config);
    return oci_registries_load_trust(r, o->trust_policy, e) < 0
               ? -1
               : oci_registries_load(r, DAEMON_JSON, e);
}

static void open_lanes(struct worker *w)
{
    const struct {
        const char *name;
        unsigned threads;
    } lanes[LANE_COUNT] = {
        [LANE_STATE] = {"state", 1},
        [LANE_CHECKIN] = {"checkin", 1},
        [LANE_NUDGE] = {"nudge", 1},
        [LANE_SERVICE] = {"service", 4},
        [LANE_LAUNCH] = {"launch", 8},
        [LANE_DISK] = {"disk", 4},
        [LANE_UPLOAD] = {"upload", 4},
        [LANE_REPLY] = {"reply", 32},
        [LANE_STREAM] = {"stream", 32},
        [LANE_PULL] = {"pull", (unsigned)w->o->pulls},
        [LANE_DOWNLOAD] = {"download", (unsigned)w->o->downloads},
    };

    for (size_t i = 0; i < LANE_COUNT; i++)
        w->lanes[i] = lane_new(w->loop, lanes[i].name, lanes[i].threads);
    run_store_use_lane(w->store, w->lanes[LANE_STATE]);
}

static int open_network(struct worker *w, struct err *e)
{
    AUTO_FREE char *state = mem_printf("%s/net-%s", w->o->runtime_dir, run_store_name(w->store));
    const struct net_config c = {
        .prefix = w->o->network_prefix,
        .pool4 = w->o->ipv4_pool,
        .pool6 = w->o->ipv6_pool,
        .state_dir = state,
        .allow = w->o->network_allow,
        .deny = w->o->network_deny,
        .only = w->o->network_only,
        .out_rate = (uint64_t)w->o->network_egress,
        .in_rate = (uint64_t)w->o->network_ingress,
    };

    return net_open(&c, &w->net, e) < 0 ? err_wrap(e, "set up the networks") : 0;
}

static void fill_env(struct worker *w)
{
    w->env = (struct container_env){
        .runtime_dir = w->o->runtime_dir,
        .shim_path = w->shim_path,
        .scratch_dir = w->scratch_dir,
        .cgroup_runs = w->cgroup_runs,
        .owner = w->owner,
        .net = w->net,
        .shm_bytes = (uint64_t)w->o->shm_gb << 30,
        .pids_limit = w->o->pids_limit,
        .shared_fs = w->o->shared_file_system,
        .shared_dir_wait_ns = (uint64_t)w->o->shared_dir_seconds * NS_PER_S,
        .has_gpus = w->n_gpus > 0,
        .partial_cgroup = str_eq(w->o->cgroup, "partial"),
    };
}

static void dep_changed(void *arg, const char *uuid, const char *path)
{
    struct worker *w = arg;

    if (w->runs)
        run_manager_dep_changed(w->runs, uuid, path);
}

static void image_changed(void *arg, const char *image)
{
    struct worker *w = arg;

    if (w->runs)
        run_manager_image_changed(w->runs, image);
}

static int open_caches(struct worker *w, struct err *e)
{
    const struct deps_opts d = {
        .work_dir = w->o->work_dir,
        .owner = run_store_id(w->store),
        .loop = w->loop,
        .lane = w->lanes[LANE_DOWNLOAD],
        .disk_lane = w->lanes[LANE_DISK],
        .service = w->service,
        .max_bytes = w->o->max_work_dir_size > 0 ? (uint64_t)w->o->max_work_dir_size : 0,
        .attempts = w->o->max_retries > 0 ? (unsigned)w->o->max_retries : 1,
        .changed = dep_changed,
        .changed_arg = w,
    };
    const struct images_opts i = {
        .loop = w->loop,
        .lane = w->lanes[LANE_PULL],
        .disk_lane = w->lanes[LANE_DISK],
        .registries = &w->registries,
        .http = service_http(w->service),
        .max_image_size = (uint64_t)w->o->max_image_size,
        .max_cache_size = (uint64_t)w->o->max_image_cache_size,
        .min_free = w->o->min_free_space > 0 ? (uint64_t)w->o->min_free_space : 0,
        .changed = image_changed,
        .changed_arg = w,
    };
    struct images_opts opened = i;

    if (oci_store_open(w->o->image_store, &w->images_store, e) < 0 || open_registries(w, e) < 0 ||
        (!w->o->shared_file_system && deps_open(&d, &w->deps, e) < 0))
        return -1;
    opened.store = w->images_store;
    w->images = images_new(&opened);
    images_prepull(w->images, &w->o->prepull_images);
    return 0;
}

static void open_managers(struct worker *w)
{
    const struct replies_opts r = {.loop = w->loop,
                                   .lane = w->lanes[LANE_REPLY],
                                   .stream_lane = w->lanes[LANE_STREAM],
                                   .service = w->service};

    w->replies = replies_new(&r);
    fill_env(w);
    const struct run_manager_opts o = {
        .loop = w->loop,
        .launch_lane = w->lanes[LANE_LAUNCH],
        .disk_lane = w->lanes[LANE_DISK],
        .upload_lane = w->lanes[LANE_UPLOAD],
        .service_lane = w->lanes[LANE_SERVICE],
        .store = w->store,
        .service = w->service,
        .deps = w->deps,
        .images = w->images,
        .replies = w->replies,
        .env = &w->env,
        .topology = &w->topology,
        .cpus = w->cpus,
        .gpus = w->gpus,
        .n_gpus = w->n_gpus,
        .runs_dir = w->runs_dir,
        .remote = run_store_id(w->store),
        .hostname = w->hostname,
        .gone_check_ns = (uint64_t)w->o->bundle_check_seconds * NS_PER_S,
        .own_ids = !str_eq(w->o->userns, "none"),
        .changed = worker_life_changed,
        .news = worker_life_news,
        .changed_arg = w,
    };
    w->runs = run_manager_new(&o);
}

static int open_all(struct worker *w, struct err *e)
{
    if (ctr_shim_find(w->o->shim, &w->shim_path, e) < 0 || open_host(w, e) < 0 ||
        open_service(w, e) < 0 || loop_new(&w->loop, e) < 0)
        return -1;
    open_lanes(w);
    if (open_network(w, e) < 0 || open_caches(w, e) < 0)
        return -1;
    open_managers(w);
    return 0;
}

/* ---- the end ---- */

static int note_again(const struct worker *w, const struct str *text, struct err *e)
{
    AUTO_FREE char *dir = mem_printf("%s/state", w->o->work_dir);
    AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -1 : statefile_replace(fd, MADE, str_text(text), text->len, 0600, true, e);
}

/* What this worker made; what several workers share goes with the last of them (B195, D74). */
static void delete_work_dir(struct worker *w)
{
    AUTO_FREE char *state = mem_printf("%s/state", w->o->work_dir);
    AUTO_FREE char *note = mem_printf("%s/state/" MADE, w->o->work_dir);
    AUTO(str) struct str text = STR_INIT(1024);
    AUTO(str_list) struct str_list made = {0};
    struct err e = ERR_INIT;

    if (run_manager_count(w->runs) > 0) {
        log_warn("%zu runs still use the work directory: it is kept", run_manager_count(w->runs));
        return;
    }
    run_store_remove(w->store);
    if (fd_read_file_at(AT_FDCWD, note, &text, &e) == 0)
        str_list_split(&made, str_text(&text), '\n');
    unlink(note);
    if (rmdir(state) < 0) {
        (void)!note_again(w, &text, &e); /* other workers are still here: the last one deletes */
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(shared_dirs); i++) {
        AUTO_FREE char *path = mem_printf("%s/%s", w->o->work_dir, shared_dirs[i]);
        if (str_list_has(&made, shared_dirs[i]) && tree_remove_at(AT_FDCWD, path, &e) < 0)
            log_warn("remove %s: %s", path, e.msg);
    }
    rmdir(w->runs_dir); /* only when nothing of somebody else's is in it */
    rmdir(w->o->work_dir);
}

static void close_network(struct worker *w)
{
    struct err e = ERR_INIT;

    if (net_close(w->net, !w->runs || run_manager_count(w->runs) == 0, &e) < 0)
        log_warn("Cannot clear docker networks: %s", e.msg);
    if (w->cgroup_runs && (!w->runs || run_manager_count(w->runs) == 0) &&
        ctr_cgroup_service_close(w->cgroup_runs, &e) < 0)
        log_debug("cgroup: %s", e.msg);
}

/* False when some thread would not end: then nothing it may use is freed; the process ends anyway. */
static bool stop_lanes(struct worker *w)
{
    bool all = true;

    for (size_t i = 0; i < LANE_COUNT; i++)
        if (w->lanes[i] && !lane_stop(w->lanes[i], LANE_STOP_NS)) {
            log_warn("a thread of another lane than main does not end: lane=%zu", i);
            all = false;
        }
    if (w->loop)
        loop_drain(w->loop);
    return all;
}

static void free_all(struct worker *w)
{
    worker_local_end(w);
    worker_life_end(w);
    nudge_free(w->nudge);
    checkin_free(w->checkin);
    run_manager_free(w->runs);
    replies_free(w->replies);
    images_free(w->images);
    deps_free(w->deps);
    oci_store_close(w->images_store);
    oci_registries_free(&w->registries);
    for (size_t i = 0; i < LANE_COUNT; i++)
        lane_free(w->lanes[i]);
    loop_free(w->loop);
    service_free(w->service);
    run_store_close(w->store);
    topology_free(&w->topology);
    char *strings[] = {w->hostname, w->shim_path,   w->scratch_dir,
                       w->runs_dir, w->cgroup_runs, w->owner};
    for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
        free(strings[i]);
    free(w->gpus);
    free(w);
}

/* A thread that does not end still uses all of it: then the process ends with it unfreed. */
static void close_all(struct worker *w)
{
    bool quiet = stop_lanes(w);

    if (w->net)
        close_network(w);
    if (quiet && w->runs && run_manager_busy(w->runs) == 0)
        free_all(w);
}

int worker_run(struct options *o, struct err *e)
{
    struct worker *w = mem_new(struct worker);

    w->o = o;
    ignore_broken_pipes();
    umask(022);
    int rc = open_all(w, e);
    if (rc == 0 && (rc = run_manager_recover(w->runs, e)) == 0) {
        log_info("my id is: %s", run_store_id(w->store));
        log_info("Worker started!");
        worker_life_begin(w);
        worker_local_begin(w);
        loop_run(w->loop);
        if (o->delete_work_dir_on_exit)
            delete_work_dir(w);
        log_info("Stopped Worker. Exiting");
    }
    close_all(w);
    return rc;
}
