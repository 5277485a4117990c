/*
 * run: one container of an image, in the foreground, with the isolation that bundles get.
 *
 *   image ──► spec ──► ctr_create ──► net_attach ──► ctr_start ──► wait, forwarding signals ──► everything removed
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/tree.h"
#include "base/units.h"
#include "cmd/cwrun.h"
#include "cmd/cwrun_gpus.h"
#include "cmd/cwrun_launch.h"
#include "netns/network.h"
#include "oci/image.h"
#include "oci/store.h"
#include "runtime/container.h"
#include "runtime/spec.h"

struct run_options {
    struct image_options image;
    char *pull, *network, *cpuset, *workdir, *user, *userns, *cgroup, *entrypoint, *hostname, *gpus;
    int64_t memory, shm, pids;
    struct str_list env, mounts;
    bool read_only, keep;
};

static const char *const pull_choices[] = {"missing", "always", "never", NULL};
static const char *const network_choices[] = {"none", "internal", "external", "host", NULL};
static const char *const userns_choices[] = {"auto", "none", NULL};
static const char *const cgroup_choices[] = {"full", "partial", NULL};

#define ROW(member, name, short_name, type, arg, def, help) \
    OPT_ROW(struct run_options, member, name, short_name, type, arg, def, help)
#define CHOICE(mem, nm, list, df, hl)                                                \
    {                                                                                \
        .name = nm, .type = OPT_CHOICE, .offset = offsetof(struct run_options, mem), \
        .choices = list, .def = df, .help = hl                                       \
    }
static const struct opt table[] = {
    ROW(memory, "memory", 'm', OPT_SIZE, "SIZE", "0", "hard memory limit; 0: none"),
    ROW(cpuset, "cpuset", 0, OPT_STR, "LIST", NULL, "CPUs, for instance 0-3,8"),
    ROW(pids, "pids", 0, OPT_INT, "N", "0", "most processes; 0: no limit"),
    ROW(gpus, "gpus", 0, OPT_STR, "N|all|device=...", NULL,
        "GPUs: so many, all, or these: numbers or UUIDs with commas"),
    ROW(shm, "shm", 0, OPT_SIZE, "SIZE", "1g", "size of /dev/shm"),
    ROW(env, "env", 'e', OPT_LIST, "NAME=VALUE", NULL, "environment variable; repeatable"),
    ROW(mounts, "mount", 'v', OPT_LIST, "SOURCE:TARGET[:ro]", NULL, "bind a host path; repeatable"),
    ROW(workdir, "workdir", 'w', OPT_STR, "DIR", NULL, "working directory"),
    ROW(user, "user", 'u', OPT_STR, "USER[:GROUP]", NULL, "names are looked up in the image"),
    ROW(entrypoint, "entrypoint", 0, OPT_STR, "PROGRAM", NULL, "instead of the image's"),
    ROW(hostname, "hostname", 0, OPT_STR, "NAME", NULL, "host name inside"),
    CHOICE(
        network, "network", network_choices, "none",
        "none: loopback only; internal: no way out; external: NAT to the outside; host: the host's own"),
    CHOICE(userns, "userns", userns_choices, "auto",
           "auto: ids of its own where the file system can; none: the host's"),
    CHOICE(cgroup, "cgroup", cgroup_choices, "full", "partial: go on with what a hybrid host has"),
    CHOICE(pull, "pull", pull_choices, "missing", "when to ask the registry"),
    ROW(read_only, "read-only", 0, OPT_FLAG, NULL, NULL, "root file system read-only"),
    ROW(keep, "keep", 0, OPT_FLAG, NULL, NULL, "keep the writable layer and say where it is"),
    IMAGE_OPTION_ROWS(struct run_options, image),
    {0},
};

static int add_mount(struct ctr_spec *s, const char *text, struct err *e)
{
    AUTO(str_list) struct str_list parts = {0};

    str_list_split(&parts, text, ':');
    bool ro = parts.n == 3 && str_eq(parts.items[2], "ro");

    if (parts.n < 2 || parts.n > 3 || (parts.n == 3 && !ro) || parts.items[0][0] != '/' ||
        parts.items[1][0] != '/')
        return err_set(e, ERR_USER,
                       "--mount %.100s: SOURCE:TARGET[:ro] with absolute paths is wanted", text);
    ctr_spec_add_mount(s, parts.items[1], "bind", parts.items[0],
                       ro ? "rbind,ro,nosuid,nodev" : "rbind,nosuid,nodev");
    return 0;
}

/* As Docker: arguments given replace Cmd; an entrypoint given replaces both. */
static int set_command(struct ctr_process *p, const struct run_options *o,
                       const struct image_config *c, char **words, struct err *e)
{
    if (o->entrypoint)
        str_list_add(&p->args, o->entrypoint);
    else
        str_list_copy(&p->args, &c->entrypoint);
    for (; *words; words++)
        str_list_add(&p->args, *words);
    if (p->args.n == (o->entrypoint ? 1 : c->entrypoint.n) && !o->entrypoint)
        str_list_copy(&p->args, &c->cmd);
    return p->args.n ? 0 : err_set(e, ERR_USER, "the image names no command: give one after --");
}

static void set_environment(struct ctr_process *p, const struct run_options *o,
                            const struct image_config *c)
{
    str_list_setenv(&p->env, "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (size_t pass = 0; pass < 2; pass++) {
        const struct str_list *l = pass ? &o->env : &c->env;

        for (size_t i = 0; i < l->n; i++) {
            AUTO_FREE char *name = mem_strdup(l->items[i]);
            char *equals = strchr(name, '=');

            if (!equals)
                continue;
            *equals = '\0';
            str_list_setenv(&p->env, name, equals + 1);
        }
    }
}

static int build_spec(const struct run_options *o, const struct image *image, char **words,
                      struct cwrun_launch *l, struct err *e)
{
    struct ctr_spec *s = ctr_spec_new();

    l->spec = s;
    ctr_spec_isolate(s, (uint64_t)(o->shm > 0 ? o->shm : 0), l->first_id);
    ctr_spec_mask_thermal(s, "/sys");
    if (set_command(&s->process, o, &image->config, words, e) < 0)
        return -1;
    set_environment(&s->process, o, &image->config);
    mem_replace(&s->process.cwd, o->workdir                   ? o->workdir
                                 : *image->config.working_dir ? image->config.working_dir
                                                              : "/");
    mem_replace(&s->process.user_name, o->user               ? o->user
                                       : *image->config.user ? image->config.user
                                                             : NULL);
    str_list_copy(&s->overlay_lower, &image->lowerdirs);
    mem_replace(&s->overlay_dir, l->dir);
    mem_replace(&s->hostname, o->hostname ? o->hostname : "cwrun");
    s->root_readonly = o->read_only;
    s->init =
        true; /* as for bundles: signals have their default effects, orphans are reaped (D79) */
    s->resources.memory_limit = o->memory;
    s->resources.memory_swap_limit = o->memory ? 0 : INT64_MIN;
    s->resources.pids_limit = o->pids;
    mem_replace(&s->resources.cpuset_cpus, o->cpuset);
    for (size_t i = 0; i < o->mounts.n; i++)
        if (add_mount(s, o->mounts.items[i], e) < 0)
            return -1;
    if (o->gpus && cwrun_add_gpus(o->gpus, s, l->dir, e) < 0)
        return -1;
    return ctr_spec_validate(s, e);
}

static int run(const struct run_options *o, const char *reference, char **words, int *ret_status,
               struct err *e)
{
    AUTO(oci_store) struct oci_store *store = NULL;
    AUTO(image) struct image *image = NULL;
    AUTO(cwrun_launch) struct cwrun_launch *l = NULL;
    enum pull_policy policy = str_eq(o->pull, "always")  ? PULL_ALWAYS
                              : str_eq(o->pull, "never") ? PULL_NEVER
                                                         : PULL_MISSING;

    if (cwrun_get_image(&o->image, reference, policy, &store, &image, e) < 0 ||
        cwrun_launch_new(o->image.store, str_eq(o->userns, "auto"), o->keep, &l, e) < 0 ||
        build_spec(o, image, words, l, e) < 0)
        return -1;
    l->partial_cgroup = str_eq(o->cgroup, "partial");
    return cwrun_launch_run(l, o->network, ret_status, e);
}

int cwrun_run(int argc, char **argv)
{
    struct run_options o = {0};
    struct err e = ERR_INIT;
    int next = 0, status = 0;
    int rc = cwrun_parse(
        table, "cwrun run [flags] IMAGE [--] [COMMAND [ARGUMENT...]]",
        "Run a command in a container: its exit status is cwrun's. Flags stand before IMAGE.", argc,
        argv, true, &o, NULL, &next);

    if (rc == 0 && next >= argc) {
        fputs("cwrun run: error: which image?\n", stderr);
        rc = -1;
    }
    if (rc == 0) {
        char **words = argv + next + 1;

        if (*words && str_eq(*words, "--"))
            words++;
        status = run(&o, argv[next], words, &status, &e) < 0 ? cwrun_launch_failed(&e) : status;
    }
    opt_free(table, &o);
    return rc < 0 ? EXIT_USAGE : status;
}
