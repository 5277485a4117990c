/*
 * bundle: one bundle in the worker's own environment, in the foreground.
 *
 *   file or server ──► struct bundle ──► image, dependencies, CPUs, GPUs ──► cwrun_drive: the worker's state machine and
 *   containers ──► results stay in a directory; what the worker would have reported is printed
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_bundle_file.h"
#include "cmd/cwrun_bundle_server.h"
#include "cmd/cwrun_drive.h"
#include "cmd/cwrun_launch.h"
#include "cmd/cwrun_report.h"
#include "netns/network.h"
#include "oci/image.h"
#include "oci/store.h"
#include "runtime/cgroup.h"
#include "runtime/gpu.h"
#include "runtime/shim.h"
#include "worker/container.h"
#include "worker/placement.h"
#include "worker/protocol.h"
#include "worker/run.h"
#include "worker/topology.h"

#define DEFAULT_PREFIX "cwrun"

struct bundle_options {
    struct image_options image;
    char *output, *network_prefix, *cgroup, *userns, *pull, *shim, *runtime_dir;
    char *server, *password_file, *ca_file;
    struct str_list overrides;
    int64_t shm_gb, pids_limit, tail;
    bool keep, shell;
};

/* Waits for ever, with nothing but bash. */
#define HOLD "coproc { read -r; }; wait"

static const char *const cgroup_choices[] = {"full", "partial", NULL};
static const char *const userns_choices[] = {"auto", "none", NULL};
static const char *const pull_choices[] = {"missing", "always", "never", NULL};

#define ROW(member, name, short_name, type, arg, def, help) \
    OPT_ROW(struct bundle_options, member, name, short_name, type, arg, def, help)
#define CHOICE(mem, nm, list, df, hl)                                                   \
    {                                                                                   \
        .name = nm, .type = OPT_CHOICE, .offset = offsetof(struct bundle_options, mem), \
        .choices = list, .def = df, .help = hl                                          \
    }
static const struct opt table[] = {
    ROW(output, "output", 'o', OPT_STR, "DIR", NULL,
        "the bundle directory, new or empty (default: ./UUID-results)"),
    ROW(server, "server", 0, OPT_STR, "URL", NULL,
        "CodaLab server a UUID, and dependencies without a location, are fetched from (default: $CODALAB_SERVER)"),
    ROW(password_file, "password-file", 0, OPT_STR, "PATH", NULL,
        "user and password, a line each; mode 0600 (default: CODALAB_USERNAME and CODALAB_PASSWORD, or asked for)"),
    ROW(ca_file, "ca-file", 0, OPT_STR, "FILE", NULL, "certificates to verify the server with"),
    ROW(overrides, "overrides", 0, OPT_LIST, "NAME=VALUE", NULL,
        "instead of what the bundle asks for: command, docker_image, cpus, gpus, memory, disk, time, network; repeatable"),
    ROW(keep, "keep", 0, OPT_FLAG, NULL, NULL, "keep the writable layer and say where it is"),
    ROW(shell, "shell", 0, OPT_FLAG, NULL, NULL,
        "a shell where the command would run, instead of it; the bundle ends with the shell"),
    ROW(tail, "tail", 0, OPT_INT, "N", "20", "lines of stdout and stderr shown at the end"),
    ROW(network_prefix, "network-prefix", 0, OPT_STR, "NAME", DEFAULT_PREFIX,
        "prefix of the networks' names"),
    CHOICE(cgroup, "cgroup", cgroup_choices, "full",
           "partial: go on with what a hybrid host has, without limits"),
    CHOICE(userns, "userns", userns_choices, "auto",
           "auto: ids of its own where the file system can; none: the host's"),
    CHOICE(pull, "pull", pull_choices, "missing", "when to ask the registry"),
    ROW(shm_gb, "shared-memory-size-gb", 0, OPT_INT, "N", "1", "size of /dev/shm in GiB"),
    ROW(pids_limit, "pids-limit", 0, OPT_INT, "N", "32768", "most processes; 0: no limit"),
    ROW(shim, "shim", 0, OPT_STR, "PATH", NULL,
        "cwshim (default: beside this program, or in libexec)"),
    ROW(runtime_dir, "runtime-dir", 0, OPT_STR, "DIR", "/run/cwrun",
        "sockets and exit records, on a tmpfs"),
    IMAGE_OPTION_ROWS(struct bundle_options, image),
    {0},
};

/* All that one bundle needs, in the order it is made; released in the opposite order. */
struct job_parts {
    struct bundle_options *o;
    const char *file; /* NULL: by uuid */
    struct cwrun_server *server;
    struct bundle *bundle;
    struct oci_store *store;
    struct image *image;
    struct str_list paths; /* of the dependencies */
    struct run *run;
    struct cwrun_launch *launch; /* for its scratch directory and id range */
    struct net *net;
    char *cgroup_runs, *runs_dir, *shim;
    bool has_gpus;
    int lock;
};

/* ---- inputs ---- */

/* A file's locations are taken as they stand, or relative to the file. */
static char *location_of(const char *file, const char *location)
{
    const char *slash = strrchr(file, '/');

    if (location[0] == '/' || !slash)
        return realpath(location, NULL);
    AUTO_FREE char *full = mem_printf("%.*s/%s", (int)(slash - file), file, location);
    return realpath(full, NULL);
}

/* Host path of a dependency: beneath its location, links staying inside. */
static int local_dep(const char *file, const struct bundle_dep *d, struct str_list *paths,
                     struct err *e)
{
    AUTO_FREE char *top = location_of(file, d->location);
    AUTO_FREE char *plain = path_normalize(d->parent_path);
    char *real;

    if (!top)
        return err_sys(e, "location %s of dependency %s", d->location, d->child_path);
    if (!plain)
        return err_set(e, ERR_USER, "parent_path %s of dependency %s leaves the bundle",
                       d->parent_path, d->child_path);
    AUTO_CLOSE int dir = open(top, O_PATH | O_CLOEXEC);
    if (dir < 0)
        return err_sys(e, "open %s", top);
    if (path_real_beneath_links(dir, plain, &real, e) < 0)
        return err_wrap(e, "dependency %s", d->child_path);
    str_list_take(paths, real);
    return 0;
}

static int open_server(struct job_parts *p, struct err *e)
{
    const struct bundle_options *o = p->o;
    const char *server = o->server ? o->server : getenv("CODALAB_SERVER");
    AUTO_FREE char *work_dir = mem_printf("%s/..", o->image.store);
    const struct cwrun_server_opts so = {.server = server,
                                         .password_file = o->password_file,
                                         .ca_file = o->ca_file,
                                         .work_dir = work_dir,
                                         .quiet = o->image.quiet};

    if (p->server)
        return 0;
    if (!server)
        return err_set(e, ERR_USER, "no server is known: give --server URL, or set CODALAB_SERVER");
    return path_mkdirs(o->image.store, 0700, e) < 0 ? -1 : cwrun_server_open(&so, &p->server, e);
}

static int get_dependencies(struct job_parts *p, struct err *e)
{
    for (size_t i = 0; i < p->bundle->n_deps; i++) {
        const struct bundle_dep *d = &p->bundle->deps[i];

        int rc = d->location && p->file ? local_dep(p->file, d, &p->paths, e)
                 : open_server(p, e) < 0
                     ? err_wrap(e, "dependency %s has no \"location\" on this host", d->child_path)
                     : cwrun_server_dependency(p->server, d, &p->paths, e);

        if (rc < 0)
            return -1;
    }
    return 0;
}

static int get_image(struct job_parts *p, struct err *e)
{
    struct bundle_options *o = p->o;
    enum pull_policy policy = str_eq(o->pull, "always")  ? PULL_ALWAYS
                              : str_eq(o->pull, "never") ? PULL_NEVER
                                                         : PULL_MISSING;

    o->image.registries_only = true;
    if (cwrun_get_image(&o->image, p->bundle->image, policy, &p->store, &p->image, e) < 0)
        return err_wrap(e, "Failed to download Docker image");
    char *full = realpath(o->image.store, NULL);
    if (!full)
        return err_sys(e, "find %s", o->image.store);
    free(o->image.store);
    o->image.store = full;
    return 0;
}

/* ---- the run ---- */

/* A new directory, or an empty one: what lies in it is the bundle's, so nothing else may. */
static int make_output(struct job_parts *p, char **ret, struct err *e)
{
    AUTO_FREE char *cwd = getcwd(NULL, 0);
    const char *given = p->o->output;
    AUTO_FREE char *dir = given && *given == '/' ? mem_strdup(given)
                          : given                ? mem_printf("%s/%s", cwd ? cwd : "", given)
                                  : mem_printf("%s/%s-results", cwd ? cwd : "", p->bundle->uuid);

    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return err_sys(e, "make %s", dir);
    if (rmdir(dir) < 0)
        return errno == ENOTEMPTY || errno == EEXIST
                   ? err_set(e, ERR_USER, "%s is not empty: name another directory with --output",
                             dir)
                   : err_sys(e, "%s", dir);
    if (mkdir(dir, 0755) < 0)
        return err_sys(e, "make %s", dir);
    *ret = take_ptr(&dir);
    return 0;
}

static int place_gpus(struct job_parts *p, int *ret_node, struct err *e)
{
    const struct bundle *b = &p->run->bundle;
    AUTO_FREE struct ctr_gpu *gpus = NULL;
    unsigned usable = 0;
    size_t n = 0;

    if (ctr_gpu_list(&gpus, &n, e) < 0)
        return b->gpus ? -1 : 0;
    AUTO_FREE struct placement_gpu *choice = mem_array(n + 1, sizeof(*choice));
    AUTO_FREE size_t *index = mem_array((size_t)b->gpus + 1, sizeof(*index));
    for (size_t i = 0; i < n; i++) {
        choice[i] = (struct placement_gpu){gpus[i].uuid, gpus[i].numa_node, !gpus[i].usable};
        usable += gpus[i].usable;
    }
    p->has_gpus = usable > 0;
    if (b->gpus > usable || !placement_gpus(choice, n, (unsigned)b->gpus, index, ret_node)) {
        AUTO_FREE char *text = placement_shortage(b->uuid, "GPUs", b->gpus, usable, (unsigned)n);
        return err_set(e, ERR_LIMIT, "%s", text);
    }
    for (int64_t i = 0; i < b->gpus; i++)
        str_list_add(&p->run->gpus, gpus[index[i]].uuid);
    return 0;
}

/* CPUs and GPUs out of all this process may use: a worker beside us does not know, and is not asked. */
static int place(struct job_parts *p, struct err *e)
{
    AUTO(topology) struct topology t = {0};
    struct cpu_set none = {0}, cpus, nodes;
    const struct bundle *b = &p->run->bundle;
    unsigned wanted = b->cpus > 0 ? (unsigned)b->cpus : 1;
    int near = -1;

    if (topology_read("/sys", &t, e) < 0 || place_gpus(p, &near, e) < 0)
        return -1;
    if (!placement_cpus(&t, &t.affinity, &none, wanted, near, &cpus, &nodes)) {
        unsigned n = cpu_set_count(&t.affinity);
        AUTO_FREE char *text = placement_shortage(b->uuid, "CPUs", wanted, n, n);
        return err_set(e, ERR_LIMIT, "%s", text);
    }
    p->run->cpus = cpu_set_text(&cpus);
    p->run->mems = cpu_set_text(&nodes);
    p->run->userns_first_id = p->launch->first_id;
    return 0;
}

/* One at a time for a bundle: what is left under its name would be taken for an earlier attempt's. */
static int take_lock(struct job_parts *p, struct err *e)
{
    AUTO_FREE char *dir = mem_printf("%s/locks", p->o->runtime_dir);
    AUTO_FREE char *name = mem_printf("%s/%s", dir, p->bundle->uuid);

    if (path_mkdirs(dir, 0700, e) < 0)
        return -1;
    p->lock = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (p->lock < 0)
        return err_sys(e, "open %s", name);
    if (flock(p->lock, LOCK_EX | LOCK_NB) < 0)
        return err_set(e, ERR_LIMIT, "bundle %s is being run by another cwrun", p->bundle->uuid);
    return 0;
}

static int open_network(struct job_parts *p, struct err *e)
{
    const char *prefix = p->o->network_prefix;
    AUTO_FREE char *state = str_eq(prefix, DEFAULT_PREFIX)
                                ? mem_strdup(CWRUN_RUNTIME_DIR "/cwrun-net")
                                : mem_printf("%s/net-%s", p->o->runtime_dir, prefix);
    const struct net_config config = {.prefix = prefix, .state_dir = state};

    if (strchr(prefix, '/'))
        return err_set(e, ERR_USER, "--network-prefix: no '/' is allowed");
    return net_open(&config, &p->net, e);
}

static int find_cgroup(struct job_parts *p, struct err *e)
{
    if (ctr_cgroup_resolve(NULL, p->bundle->uuid, &p->cgroup_runs, e) < 0)
        return -1;
    *strrchr(p->cgroup_runs, '/') = '\0';
    return 0;
}

/* Everything before the container; what can fail for the user's reasons first. */
static int prepare(struct job_parts *p, struct err *e)
{
    AUTO_FREE char *dir = NULL;

    if (take_lock(p, e) < 0 || get_dependencies(p, e) < 0 || get_image(p, e) < 0 ||
        cwrun_launch_new(p->o->image.store, str_eq(p->o->userns, "auto"), p->o->keep, &p->launch,
                         e) < 0 ||
        find_cgroup(p, e) < 0 || open_network(p, e) < 0 || make_output(p, &dir, e) < 0)
        return -1;
    if (p->o->shell) {
        fprintf(stderr, "cwrun: the command would be: %s\n", p->bundle->command);
        mem_replace(&p->bundle->command, HOLD);
    }
    p->run = run_new(take_ptr(&p->bundle), dir, clock_epoch());
    p->runs_dir = mem_printf("%s/runs", p->o->runtime_dir);
    return ctr_shim_find(p->o->shim, &p->shim, e) < 0 ? -1 : path_mkdirs(p->runs_dir, 0700, e);
}

static void release(struct job_parts *p)
{
    struct err e = ERR_INIT;

    if (p->run)
        (void)rmdir(p->run->dir); /* only when nothing ever came into it */
    if (p->net && net_close(p->net, true, &e) < 0 && e.kind != ERR_LIMIT)
        fprintf(stderr, "cwrun: %s\n", e.msg);
    if (p->launch)
        cwrun_launch_free(p->launch);
    run_free(p->run);
    str_list_free(&p->paths);
    image_unref(p->image);
    oci_store_close(p->store);
    bundle_free(p->bundle);
    cwrun_server_close(p->server);
    free(p->cgroup_runs);
    free(p->runs_dir);
    free(p->shim);
    close_fd(&p->lock);
}

static int drive(struct job_parts *p, int *ret_status, struct err *e)
{
    const struct container_env env = {
        .runtime_dir = p->runs_dir,
        .shim_path = p->shim,
        .scratch_dir = p->launch->dir,
        .keep_scratch = p->o->keep,
        .cgroup_runs = p->cgroup_runs,
        .owner = p->launch->id,
        .net = p->net,
        .shm_bytes = (uint64_t)p->o->shm_gb << 30,
        .pids_limit = p->o->pids_limit,
        .has_gpus = p->has_gpus,
        .partial_cgroup = str_eq(p->o->cgroup, "partial"),
    };
    char *const shell[] = {
        (char *)"cwrun",     (char *)"exec", (char *)"--runtime-dir", p->runs_dir,
        p->run->bundle.uuid, (char *)"--",   (char *)"/bin/bash",     NULL};
    struct drive d = {.run = p->run,
                      .env = &env,
                      .image = p->image,
                      .paths = &p->paths,
                      .beside = p->o->shell ? shell : NULL};
    AUTO_CLOSE int signals = cwrun_open_signals(e);

    if (signals < 0)
        return -1;
    d.signals = signals;
    cwrun_drive(&d);
    if (d.beside_status >= 0)
        *ret_status = d.beside_status;
    else
        *ret_status = cwrun_report(p->run, p->image, d.own_output, (size_t)p->o->tail);
    if (d.beside_status >= 0 && !p->o->image.quiet)
        fprintf(stderr, "cwrun: what was written is in %s\n", p->run->dir);
    if (d.note)
        fprintf(stderr, "cwrun: not all was cleaned up: %s\n", d.note);
    free(d.own_output);
    free(d.note);
    return 0;
}

static int run_bundle(struct bundle_options *o, const char *what, int *ret_status, struct err *e)
{
    bool by_uuid = protocol_is_uuid(what) && access(what, F_OK) < 0;
    struct job_parts p = {.o = o, .file = by_uuid ? NULL : what, .lock = -1};
    int rc = !by_uuid ? cwrun_bundle_file_read(what, &o->overrides, &p.bundle, e)
             : open_server(&p, e) < 0
                 ? -1
                 : cwrun_server_bundle(p.server, what, &o->overrides, &p.bundle, e);

    if (rc == 0)
        rc = prepare(&p, e);
    if (rc == 0)
        rc = place(&p, e);
    if (rc == 0)
        rc = drive(&p, ret_status, e);
    release(&p);
    return rc;
}

int cwrun_bundle(int argc, char **argv)
{
    AUTO(str_list) struct str_list words = {0};
    struct bundle_options o = {0};
    struct err e = ERR_INIT;
    int status = 0;
    int rc = cwrun_parse(
        table, "cwrun bundle [flags] FILE.json|UUID",
        "Run a bundle as the worker would: a `run` message (\"bundle\" and \"resources\") or a bundle's "
        "own information, from a file or, by its uuid, from a CodaLab server. Exit status: the command's own; 137 when a limit or a signal ended "
        "it, 125 when it could not be run.",
        argc, argv, false, &o, &words, NULL);

    if (rc == 0 &&
        (words.n != 1 || o.tail < 0 || o.shm_gb < 0 || o.shm_gb > 65536 || o.pids_limit < 0)) {
        fputs(
            words.n == 1
                ? "cwrun bundle: error: --tail, --shared-memory-size-gb, --pids-limit: not negative, please\n"
                : "cwrun bundle: error: which bundle? One file or uuid is wanted\n",
            stderr);
        rc = -1;
    }
    if (rc == 0 && run_bundle(&o, words.items[0], &status, &e) < 0)
        status = cwrun_fail(&e);
    opt_free(table, &o);
    return rc < 0 ? EXIT_USAGE : status;
}
