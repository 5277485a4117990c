#include "worker/container.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/quota.h"
#include "base/tree.h"
#include "netns/network.h"
#include "oci/image.h"
#include "runtime/gpu.h"
#include "runtime/shim.h"
#include "runtime/spec.h"
#include "worker/bundle_spec.h"
#include "worker/container_stop.h"
#include "worker/dep_links.h"
#include "worker/run.h"
#include "worker/usage.h"

#define KILL_GRACE_NS   (5 * NS_PER_S) /* from SIGTERM to SIGKILL: time to write a checkpoint */
#define KILL_WAIT_NS    (20 * NS_PER_S)
#define GPU_PATIENCE_NS (5 * NS_PER_S) /* what a driver may take to clear up behind the killed */
#define START_TEXT      "Cannot start Docker container"

int container_record(const char *runtime_dir, const char *uuid, struct exit_record *ret,
                     struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s", runtime_dir, uuid);
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "open %s", path);
    return ctr_exit_read(dir, ret, e);
}

char *container_owner(const char *runtime_dir, const char *uuid)
{
    AUTO_FREE char *path = mem_printf("%s/%s/config.json", runtime_dir, uuid);
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);
    AUTO(cJSON) cJSON *v = NULL;
    const cJSON *annotations = NULL;
    const char *owner = NULL;
    struct err ignored = ERR_INIT;

    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0 ||
        json_parse(str_text(&text), text.len, &v, &ignored) < 0 ||
        json_opt_object(v, "annotations", &annotations, &ignored) < 0 || !annotations ||
        json_opt_str(annotations, BUNDLE_ANNOTATION_OWNER, BOUND_PATH, &owner, &ignored) < 0)
        return NULL;
    return mem_strdup(owner);
}

/* ---- taking away ---- */

/* End the container (SIGTERM to its programs, some seconds, SIGKILL to all) and wait for its record. True when the shim has
 * ended. */
static bool end_container(const struct container_env *env, const char *uuid, struct ctr_shim *shim)
{
    AUTO(ctr_shim) struct ctr_shim *s = shim;
    struct err ignored = ERR_INIT;

    if (!s && ctr_shim_adopt(env->runtime_dir, uuid, &s, &ignored) < 0)
        return true;
    if (container_stop(s, clock_in_ns(KILL_GRACE_NS)))
        return true;
    if (ctr_shim_kill(s, SIGKILL, &ignored) < 0)
        log_debug("run=%s kill: %s", uuid, ignored.msg);
    return fd_wait(ctr_shim_fd(s), POLLIN, clock_in_ns(KILL_WAIT_NS)) == 1;
}

int container_open_layer(const struct container_env *env, const char *uuid)
{
    AUTO_FREE char *path = mem_printf("%s/%s/overlay", env->scratch_dir, uuid);

    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int remove_scratch(const struct container_env *env, const char *uuid, struct err *e)
{
    AUTO_CLOSE int dir = open(env->scratch_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTO_CLOSE int layer = container_open_layer(env, uuid);

    if (layer >= 0)
        quota_lift(layer);
    if (dir < 0)
        return errno == ENOENT ? 0 : err_sys(e, "open %s", env->scratch_dir);
    return env->keep_scratch ? 0 : tree_remove_at(dir, uuid, e);
}

/* Everything but links and record. The first error is kept; all parts are tried. */
static int remove_parts(const struct container_env *env, const char *uuid, bool ended,
                        struct err *e)
{
    struct err part = ERR_INIT;
    /* what has not died until now has had its time */
    uint64_t deadline = clock_in_ns(ended ? KILL_WAIT_NS : 0);
    int rc = 0;

    while (ctr_shim_cleanup(env->runtime_dir, uuid, &part) < 0) {
        if (clock_passed(deadline)) {
            rc = -1;
            *e = part;
            break;
        }
        poll(NULL, 0,
             1000); /* the kernel tells nobody when a dying process lets go of its mounts */
    }
    crash_point("container: cleaned up");
    if (net_detach(env->net, uuid, &part) < 0 && rc == 0) {
        rc = -1;
        *e = part;
    }
    crash_point("container: detached");
    if (remove_scratch(env, uuid, &part) < 0 && rc == 0) {
        rc = -1;
        *e = part;
    }
    return rc;
}

int container_sweep(const struct container_env *env, const char *uuid, struct err *e)
{
    bool ended = end_container(env, uuid, NULL);

    return remove_parts(env, uuid, ended, e);
}

bool container_is_gone(const struct container_env *env, const char *uuid,
                       const struct str_list *gpus)
{
    AUTO(ctr_shim) struct ctr_shim *lives = NULL;
    struct exit_record record = {0};
    struct err ignored = ERR_INIT;

    /* The shim waits for the first process, which the kernel keeps until all others of its namespace are gone. */
    if (ctr_shim_adopt(env->runtime_dir, uuid, &lives, &ignored) == 0)
        return false;
    if (container_record(env->runtime_dir, uuid, &record, &ignored) < 0)
        err_clear(&ignored);
    if (remove_parts(env, uuid, false, &ignored) < 0)
        return false;
    for (size_t i = 0; i < gpus->n; i++) {
        ctr_gpu_readmit(gpus->items[i]);
        if (ctr_gpu_check((const char *const *)&gpus->items[i], 1, record.start_ns, GPU_PATIENCE_NS,
                          &ignored) < 0)
            log_err("run=%s withdrawn: %s", uuid, ignored.msg);
    }
    return true;
}

/* Before a run (since_ns 0) and after it. What is not fit has been withdrawn, and the log says so. */
static int check_gpus(const struct run *run, uint64_t since_ns, struct err *e)
{
    struct err why = ERR_INIT;

    if (!run->gpus.n || ctr_gpu_check((const char *const *)run->gpus.items, run->gpus.n, since_ns,
                                      GPU_PATIENCE_NS, &why) == 0)
        return 0;
    log_err("run=%s withdrawn: %s", run->bundle.uuid, why.msg);
    *e = why;
    return -1;
}

int container_remove(const struct container_env *env, const struct run *run, struct ctr_shim *shim,
                     struct container_end *ret, struct err *e)
{
    const char *uuid = run->bundle.uuid;
    struct err ignored = ERR_INIT;
    uint64_t bytes = 0;

    ret->bytes = -1;
    bool ended = end_container(env, uuid, shim);
    crash_point("container: ended");
    ret->has_record = container_record(env->runtime_dir, uuid, &ret->record, &ignored) == 0;
    int rc = remove_parts(env, uuid, ended, e);
    if (!ended)
        rc = err_set(
            e, ERR_HOST,
            "the container does not die: a process of it is stuck in the kernel; its CPUs and GPUs "
            "are kept from other runs until it is gone");
    /* A faulty GPU is withdrawn by that; the run's own end stands. */
    if (ret->has_record && ret->record.started &&
        check_gpus(run, ret->record.start_ns, &ignored) < 0)
        err_clear(&ignored);
    AUTO_CLOSE int dir = open(run->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return rc;
    dep_links_remove(dir, &run->links);
    crash_point("container: links removed");
    if (run->restaged)
        quota_lift(dir); /* the next one in it has a limit of its own */
    if (tree_size(dir, NULL, &bytes, &ignored) == 0)
        ret->bytes = (int64_t)bytes;
    return rc;
}

/* ---- making ---- */

/* On a shared file system the server has made the directory; only the NFS cache may be behind (6.1 step 5). It is not
 * waited for here: a thread that waits is one that makes no other container. */
static int open_bundle_dir(const struct container_env *env, const struct run *run, bool *ret_no_dir,
                           struct err *e)
{
    if (!env->shared_fs && path_mkdirs(run->dir, 0755, e) < 0)
        return -1;
    int fd = open(run->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 || !env->shared_fs)
        return fd < 0 ? err_sys(e, "open %s", run->dir) : fd;
    *ret_no_dir = true;
    return err_set(
        e, ERR_ABSENT,
        "Bundle directory cannot be found on the shared filesystem. Please ensure the shared "
        "filesystem between the server and your worker is mounted properly or contact your "
        "administrators.");
}

static uint32_t hash_of(const char *uuid)
{
    uint32_t hash = 2166136261u;

    for (; *uuid; uuid++)
        hash = (hash ^ (unsigned char)*uuid) * 16777619u;
    return hash;
}

/* The kernel holds the limit where it can; elsewhere the run is measured (run_watch.c). */
static void hold_to_limit(const struct run *run, int dirfd, const char *what)
{
    struct err e = ERR_INIT;

    quota_lift(dirfd);
    if (run->bundle.disk > 0 &&
        quota_limit(dirfd, hash_of(run->bundle.uuid), usage_disk_bound(run->bundle.disk), &e) < 0)
        log_debug("run=%s %s: %s: it is measured", run->bundle.uuid, what, e.msg);
}

static int write_new(int dir, const char *name, struct err *e)
{
    AUTO_CLOSE int fd =
        openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

    return fd < 0 || fchmod(fd, 0644) < 0 ? err_sys(e, "make %s", name) : 0;
}

/* A fresh directory for the writable layer and the files that are mounted over /etc. */
static int make_scratch(const struct container_env *env, const struct run *run, char **ret,
                        struct err *e)
{
    const char *uuid = run->bundle.uuid;
    AUTO_FREE char *path = mem_printf("%s/%s", env->scratch_dir, uuid);

    if (path_mkdirs(env->scratch_dir, 0700, e) < 0 || remove_scratch(env, uuid, e) < 0 ||
        path_mkdirs(path, 0700, e) < 0)
        return -1;
    AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return err_sys(e, "open %s", path);
    if (mkdirat(dir, "overlay", 0700) < 0)
        return err_sys(e, "make %s/overlay", path);
    AUTO_CLOSE int layer = container_open_layer(env, uuid);
    hold_to_limit(run, layer, "writable layer");
    crash_point("container: scratch made");
    if (write_new(dir, "resolv.conf", e) < 0 || write_new(dir, "hosts", e) < 0)
        return -1;
    *ret = take_ptr(&path);
    return 0;
}

static int make_spec(const struct container_env *env, const struct run *run,
                     const struct image *image, const struct dep_place *places, size_t n,
                     const char *scratch, int dirfd, struct ctr_spec **ret, struct err *e)
{
    AUTO_FREE char *cgroup = mem_printf("%s/%s", env->cgroup_runs, run->bundle.uuid);
    AUTO(ctr_spec) struct ctr_spec *s = NULL;
    struct stat st;

    if (fstat(dirfd, &st) < 0)
        return err_sys(e, "look at %s", run->dir);
    const struct bundle_spec_in in = {
        .run = run,
        .image = &image->config,
        .lowerdirs = &image->lowerdirs,
        .places = places,
        .n_places = n,
        .scratch = scratch,
        .cgroup = cgroup,
        .owner = env->owner,
        .uid = st.st_uid,
        .gid = st.st_gid,
        .shm_bytes = env->shm_bytes,
        .pids_limit = env->pids_limit,
        .shared_fs = env->shared_fs,
        .has_gpus = env->has_gpus,
        .partial_cgroup = env->partial_cgroup,
    };
    if (bundle_spec(&in, &s, e) < 0)
        return -1;
    ctr_spec_mask_thermal(s, "/sys");
    if (check_gpus(run, 0, e) < 0)
        return -1;
    if (run->gpus.n &&
        ctr_gpu_edit_spec(s, (const char *const *)run->gpus.items, run->gpus.n, scratch, e) < 0)
        return -1;
    *ret = take_ptr(&s);
    return 0;
}

/* Into the file that is mounted already: replaced by name, the container would go on seeing the old one. */
static int fill(const char *scratch, const char *name, const char *text, struct err *e)
{
    AUTO_FREE char *path = mem_printf("%s/%s", scratch, name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || (text && fd_write_all(fd, text, strlen(text)) < 0))
        return err_sys(e, "write %s", path);
    return 0;
}

static int connect_network(const struct container_env *env, const struct run *run,
                           struct ctr_shim *shim, const char *scratch, struct err *e)
{
    AUTO(net_lease) struct net_lease *lease = NULL;
    char hostname[16];

    bundle_spec_hostname(run->bundle.uuid, hostname);
    if (net_attach(env->net, run->bundle.uuid, run->bundle.network ? NET_EXTERNAL : NET_INTERNAL,
                   ctr_shim_netns(shim), hostname, &lease, e) < 0 ||
        fill(scratch, "resolv.conf", lease->resolv_conf, e) < 0 ||
        fill(scratch, "hosts", lease->hosts, e) < 0)
        return -1;
    return 0;
}

static int spawn(const struct container_env *env, const struct run *run,
                 const struct ctr_spec *spec, const char *scratch, struct ctr_shim **ret,
                 struct err *e)
{
    const struct ctr_shim_opts o = {
        .shim_path = env->shim_path,
        .runtime_dir = env->runtime_dir,
        .id = run->bundle.uuid,
    };
    AUTO(ctr_shim) struct ctr_shim *shim = NULL;

    if (ctr_shim_spawn(&o, spec, &shim, e) < 0)
        return -1;
    crash_point("container: spawned");
    if (connect_network(env, run, shim, scratch, e) < 0) {
        struct err ignored = ERR_INIT;
        end_container(env, run->bundle.uuid, take_ptr(&shim));
        (void)!remove_parts(env, run->bundle.uuid, true, &ignored);
        return -1;
    }
    crash_point("container: connected");
    *ret = take_ptr(&shim);
    return 0;
}

/* The part whose failures read "Cannot start Docker container: …". */
static int start_parts(const struct container_env *env, const struct run *run,
                       const struct image *image, const struct dep_place *places, size_t n,
                       int dirfd, struct cancel *cancel, struct ctr_shim **ret, struct err *e)
{
    const char *uuid = run->bundle.uuid;
    AUTO(ctr_spec) struct ctr_spec *spec = NULL;
    AUTO_FREE char *scratch = NULL;

    end_container(env, uuid, NULL);
    if (remove_parts(env, uuid, true, e) < 0 || make_scratch(env, run, &scratch, e) < 0 ||
        make_spec(env, run, image, places, n, scratch, dirfd, &spec, e) < 0)
        return -1;
    if (cancel_fired(cancel))
        return err_set(e, ERR_CANCELLED, "cancelled");
    return spawn(env, run, spec, scratch, ret, e);
}

int container_create(const struct container_env *env, const struct run *run,
                     const struct image *image, const struct str_list *paths, struct cancel *cancel,
                     struct container_made *ret, struct err *e)
{
    AUTO_CLOSE int dir = open_bundle_dir(env, run, &ret->no_dir, e);
    struct dep_place *places = NULL;
    size_t n = 0;

    if (dir < 0 || dep_links_resolve(&run->bundle, paths, &places, &n, e) < 0)
        return -1;
    if (!env->shared_fs)
        hold_to_limit(run, dir, "bundle directory");
    int rc =
        dep_links_make(dir, run->dir, run->bundle.uuid, env->shared_fs, places, n, &ret->links, e);
    crash_point("container: links made");
    if (rc == 0 && (rc = start_parts(env, run, image, places, n, dir, cancel, &ret->shim, e)) < 0)
        err_wrap(e, START_TEXT);
    dep_places_free(places, n);
    return rc;
}
