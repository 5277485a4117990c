#include "runtime/container.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/magic.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "runtime/cgroup.h"
#include "runtime/devfilter.h"
#include "runtime/enter.h"
#include "runtime/hooks.h"
#include "runtime/idmap.h"
#include "runtime/launch.h"
#include "runtime/mounts.h"
#include "runtime/netdev.h"
#include "runtime/notify.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"
#include "runtime/sources.h"
#include "runtime/spec.h"
#include "runtime/state.h"
#include "runtime/user.h"

static char *state_json(const struct ctr_info *i, const struct ctr_spec *s);

struct ctr {
    char *id, *state_root, *note;
    struct launch launch;
    bool created_here; /* we are its parent */
    bool deleted;
    bool hooks_ran; /* so poststop hooks run too, when creation fails later */
    struct ctr_cgroup *cgroup;
    int state_dir;
    struct ctr_info info;
    uint64_t start_time;
    uint64_t root_mount; /* the mount that its root's path was on before */
};

/* A NAME_MAX of the state directory's file system is all that an id can have. */
enum { ID_MAX = 255 };
#define KILL_WAIT_NS (10 * NS_PER_S)

bool ctr_is_id(const char *id)
{
    size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.");

    return n && n <= ID_MAX && !id[n] && id[0] != '-' && id[0] != '.';
}

const char *ctr_status_name(enum ctr_status s)
{
    static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};

    return names[s];
}

static void free_info(struct ctr_info *i)
{
    char *strings[] = {i->id, i->bundle, i->cgroup, i->created, i->oci_version, i->rootfs};

    for (size_t k = 0; k < ARRAY_SIZE(strings); k++)
        free(strings[k]);
    ctr_spec_free(i->spec);
    *i = (struct ctr_info){0};
}

void ctr_free(struct ctr *c)
{
    if (!c)
        return;
    close_fd(&c->launch.pidfd);
    close_fd(&c->launch.channel);
    close_fd(&c->state_dir);
    ctr_cgroup_free(c->cgroup);
    free_info(&c->info);
    free(c->id);
    free(c->state_root);
    free(c->note);
    free(c);
}

static struct ctr *new_ctr(const char *id, const char *state_root)
{
    struct ctr *c = mem_new(struct ctr);

    c->id = mem_strdup(id);
    c->state_root = mem_strdup(state_root);
    c->launch = (struct launch){-1, -1, -1};
    c->state_dir = -1;
    return c;
}

/* --- create ---------------------------------------------------------------------------------------------- */

/* What create makes on the way, besides the container. */
struct making {
    struct ctr_seccomp filter;
    struct ctr_user user;
    struct sources src;
    struct launch_plan *plan;
    char *root_path;
    int root, listener;
};

static void free_making(struct making *m)
{
    ctr_seccomp_free(&m->filter);
    ctr_user_free(&m->user);
    launch_plan_free(m->plan);
    free(m->root_path);
    close_fd(&m->src.userns_fd);
    close_fd(&m->root);
    close_fd(&m->listener);
}
DEFINE_AUTO_VALUE(making, free_making)

static void add_note(struct ctr *c, const char *what, const struct err *why)
{
    char *old = c->note;

    c->note =
        old ? mem_printf("%s; %s: %s", old, what, why->msg) : mem_printf("%s: %s", what, why->msg);
    free(old);
}

static bool has_selinux(void)
{
    struct statfs fs;

    return statfs("/sys/fs/selinux", &fs) == 0 && fs.f_type == SELINUX_MAGIC;
}

/* What the specification has runtimes accept although it changes nothing here. */
static void note_what_means_nothing(struct ctr *c, const struct ctr_spec *s)
{
    struct err why = ERR_INIT;

    if (s->mount_label && !has_selinux()) {
        err_set(&why, ERR_HOST, "this host has no SELinux");
        add_note(c, "linux.mountLabel is without effect", &why);
    }
    for (size_t i = 0; i < s->n_mounts; i++) {
        const char *option = mounts_option_of_no_effect(&s->mounts[i]);
        AUTO_FREE char *where = mem_printf("mounts[%zu]", i);

        if (!option)
            continue;
        err_set(&why, ERR_USER, "option %s means nothing to a bind", option);
        add_note(c, where, &why);
    }
    if (s->uid_maps.n && ctr_spec_namespace(s, "user", NULL) == 1) {
        err_set(&why, ERR_USER, "those of the user namespace that is joined count");
        add_note(c, "linux.uidMappings, gidMappings", &why);
    }
}

static int make_cgroup(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                       struct err *e)
{
    AUTO_FREE char *path = NULL;

    if (ctr_cgroup_resolve(s->cgroups_path, o->id, &path, e) < 0 ||
        ctr_cgroup_create(path, &s->resources, o->partial_cgroup, &c->cgroup, e) < 0)
        return -1;
    return ctr_devfilter_attach(ctr_cgroup_fd(c->cgroup), s->resources.devices,
                                s->resources.n_devices, false, e);
}

static bool has_hooks(const struct ctr_spec *s)
{
    return hooks_has(s->hooks, "prestart") || hooks_has(s->hooks, "createRuntime") ||
           hooks_has(s->hooks, "createContainer");
}

int ctr_exec_at(pid_t pid, int pidfd, int cgroup_fd, const struct ctr_spec *spec,
                const struct ctr_exec_opts *o, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    const struct enter_target t = {
        .pid = pid, .pidfd = pidfd, .cgroup_fd = cgroup_fd, .spec = spec};

    return enter_exec(&t, o, ret_pid, ret_pidfd, e);
}

static char *root_text(const struct ctr_spec *s, const char *bundle)
{
    if (!s->root_path)
        return mem_strdup(s->overlay_dir);
    return s->root_path[0] == '/' || !bundle ? mem_strdup(s->root_path)
                                             : mem_printf("%s/%s", bundle, s->root_path);
}

/* Everything that needs the user namespace's maps; again without one when ids cannot be mapped. */
static int prepare(const struct ctr_spec *s, const struct ctr_create_opts *o, bool userns,
                   struct making *m, struct err *e)
{
    const char *joined = NULL;

    if (userns && ctr_spec_namespace(s, "user", &joined) == 1) {
        m->src.userns_fd = open(joined, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (m->src.userns_fd < 0)
            return err_sys(e, "linux.namespaces: user namespace %s", joined);
    } else if (userns && (m->src.userns_fd = idmap_userns(&s->uid_maps, &s->gid_maps, e)) < 0) {
        m->src.unmappable = true;
        return -1;
    }
    if ((m->root = sources_root(&m->src, e)) < 0)
        return -1;
    if (ctr_user_resolve(m->root, &s->process, &m->user, e) < 0)
        return err_wrap(e, "process.user");
    struct plan_input in = {.user = &m->user,
                            .seccomp = &m->filter,
                            .user_namespace = userns,
                            .hooks = has_hooks(s),
                            .selinux = has_selinux(),
                            .root_path = m->root_path,
                            .preserve_fds = o->preserve_fds};

    if (plan_build(s, &in, &m->plan, e) < 0)
        return -1;
    m->plan->fds[0] = take_fd(&m->root);
    return sources_open(&m->src, m->plan, e);
}

static void forget(struct making *m)
{
    ctr_user_free(&m->user);
    launch_plan_free(m->plan);
    m->plan = NULL;
    close_fd(&m->src.userns_fd);
    close_fd(&m->root);
}

static int prepare_either(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                          struct making *m, bool *ret_userns, struct err *e)
{
    bool userns = ctr_spec_namespace(s, "user", NULL) >= 0;

    *ret_userns = userns;
    m->src = (struct sources){.spec = s,
                              .user = &m->user,
                              .bundle = o->bundle,
                              .cgroup_fd = ctr_cgroup_dir(c),
                              .userns_fd = -1};
    if (prepare(s, o, userns, m, e) == 0)
        return 0;
    if (!userns || !m->src.unmappable || !s->userns_optional)
        return -1;
    add_note(c, "no user namespace", e);
    err_clear(e);
    forget(m);
    *ret_userns = false;
    return prepare(s, o, false, m, e);
}

/* The container may have made it, and then it is a directory beneath its own group and nothing else. */
static int open_sub_group(const struct ctr *c, const char *path, struct err *e)
{
    char shown[STR_SHOW_MAX];
    AUTO_CLOSE int fd = -1;

    if (!c->cgroup)
        return err_set(e, ERR_HOST, "container %s has no cgroup", c->id);
    path += strspn(path, "/");
    fd = path_open_beneath(ctr_cgroup_dir(c), *path ? path : ".", O_RDONLY | O_DIRECTORY, 0, e);
    return fd < 0 ? err_wrap(e, "cgroup %s of the container", str_show(shown, path)) : take_fd(&fd);
}

/* The group that the first process is in now: our group's path is the front of it. */
static int open_group_of(const struct ctr *c, struct err *e)
{
    AUTO_FREE char *file = mem_printf("/proc/%d/cgroup", c->launch.pid);
    AUTO(str) struct str text = STR_INIT(64 * BOUND_KIB);
    struct err ignored = ERR_INIT;
    const char *own = ctr_cgroup_path(c->cgroup);

    if (fd_read_file_at(AT_FDCWD, file, &text, &ignored) < 0)
        return -1;
    const char *line = strstr(str_text(&text), "0::");

    if (!line || !str_starts(line + 3, own) || line[3 + strlen(own)] != '/')
        return -1;
    AUTO_FREE char *below =
        mem_strndup(line + 3 + strlen(own) + 1, strcspn(line + 3 + strlen(own) + 1, "\n"));

    return open_sub_group(c, below, e);
}

int ctr_exec(struct ctr *c, const struct ctr_spec *spec, const struct ctr_exec_opts *o,
             pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    AUTO_FREE char *state =
        spec->seccomp && c->info.oci_version ? state_json(&c->info, spec) : NULL;
    struct enter_target t = {.pid = c->launch.pid,
                             .pidfd = c->launch.pidfd,
                             .cgroup_fd = ctr_cgroup_dir(c),
                             .spec = spec,
                             .state = state};

    AUTO_CLOSE int sub_group = -1;

    if (c->launch.pidfd < 0)
        return err_set(e, ERR_USER, "cannot exec in a stopped container");
    if (o->cgroup && (sub_group = open_sub_group(c, o->cgroup, e)) < 0)
        return -1;
    if (o->cgroup)
        t.cgroup_fd = sub_group;
    if (enter_exec(&t, o, ret_pid, ret_pidfd, e) == 0)
        return 0;
    /* A container that divided its group (as systemd does) takes no process in it: where its first one is, there is room. */
    if (e->sys != EBUSY || o->cgroup || (sub_group = open_group_of(c, e)) < 0)
        return -1;
    err_clear(e);
    t.cgroup_fd = sub_group;
    return enter_exec(&t, o, ret_pid, ret_pidfd, e);
}

static void fill_info(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o)
{
    c->info.id = mem_strdup(o->id);
    c->info.bundle = mem_strdup(o->bundle ? o->bundle : "/");
    c->info.rootfs = root_text(s, o->bundle);
    c->info.cgroup = c->cgroup ? mem_strdup(ctr_cgroup_path(c->cgroup)) : NULL;
    c->info.created = state_now();
    c->info.oci_version = mem_strdup(s->oci_version);
    c->info.status = CTR_CREATING;
}

static int save(struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    struct ctr_state st = {.id = c->info.id,
                           .bundle = c->info.bundle,
                           .cgroup = c->info.cgroup,
                           .created = c->info.created,
                           .rootfs = c->info.rootfs,
                           .pid = c->launch.pid};

    if (c->state_dir < 0)
        return 0;
    st.start_time = c->start_time = state_start_time(c->launch.pid);
    return state_write(c->state_dir, &st, s, e);
}

static struct hooks_inside inside_of(const struct ctr *c)
{
    return (struct hooks_inside){c->launch.pid, c->launch.pidfd, ctr_cgroup_dir(c)};
}

static int run_early_hooks(struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    if (!has_hooks(s))
        return 0;
    AUTO_FREE char *state = NULL;

    if (launch_expect(&c->launch, LAUNCH_HOOKS, e) < 0)
        return -1;
    struct hooks_inside inside = inside_of(c);

    c->info.pid = c->launch.pid;
    c->info.spec = NULL;
    /* The environment is there (step 2 of the lifecycle), and that is what "created" means. */
    c->info.status = CTR_CREATED;
    c->hooks_ran = true;
    state = state_json(&c->info, s);
    if (hooks_run(s->hooks, "prestart", state, NULL, e) < 0 ||
        hooks_run(s->hooks, "createRuntime", state, NULL, e) < 0 ||
        hooks_run(s->hooks, "createContainer", state, &inside, e) < 0)
        return -1;
    c->info.status = CTR_CREATING;
    return launch_go(&c->launch, e);
}

/* Where our command line lies (fields 48 and 49 of stat): an init wipes it. */
static void find_command_line(struct launch_plan *p)
{
    char buf[2048];
    unsigned long long start = 0, end = 0;
    AUTO_CLOSE int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : fd_read_full(fd, buf, sizeof(buf) - 1);

    if (n <= 0)
        return;
    buf[n] = '\0';
    char *at = strrchr(buf, ')');

    for (int field = 2; at && field < 48; field++)
        at = strchr(at + 1, ' ');
    if (at && sscanf(at, " %llu %llu", &start, &end) == 2 && start < end) {
        p->arg_start = start;
        p->arg_end = end;
    }
}

static uint64_t mount_of(const char *path)
{
    struct statx st = {0};

    return path && statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) == 0
               ? st.stx_mnt_id
               : 0;
}

static int move_net_devices(const struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    AUTO_CLOSE int netns = s->n_net_devices ? ctr_netns(c, e) : -1;

    for (size_t i = 0; i < s->n_net_devices; i++)
        if (netns < 0 || netdev_move(&s->net_devices[i], netns, e) < 0)
            return -1;
    return 0;
}

static int create(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                  struct err *e)
{
    AUTO(making) struct making m = {.root = -1, .listener = -1, .src.userns_fd = -1};
    bool userns;

    if (ctr_seccomp_for_spec(s, CTR_SECCOMP_CACHE, &m.filter, e) < 0)
        return -1;
    if (m.filter.listener && !o->state_root)
        return err_set(e, ERR_USER, "linux.seccomp.listenerPath: not for a bundle's run");
    if (o->state_root && ((c->state_dir = state_make_dir(o->state_root, o->id, e)) < 0 ||
                          (m.listener = state_listen(c->state_dir, e)) < 0))
        return -1;
    m.root_path = root_text(s, o->bundle);
    note_what_means_nothing(c, s);
    if (make_cgroup(c, s, o, e) < 0 || prepare_either(c, s, o, &m, &userns, e) < 0)
        return -1;
    struct launch_opts lo = {.cgroup_fd = ctr_cgroup_dir(c),
                             .stdio = {o->stdio[0], o->stdio[1], o->stdio[2]},
                             .start_fd = m.listener,
                             .console_fd = o->console_socket,
                             .user_namespace = userns,
                             .partial_cgroup = o->partial_cgroup};

    fill_info(c, s, o);
    c->root_mount = mount_of(c->info.rootfs);
    if (s->init)
        find_command_line(m.plan);
    if (launch_start(s, m.plan, &lo, &c->launch, e) < 0 || move_net_devices(c, s, e) < 0 ||
        run_early_hooks(c, s, e) < 0 || launch_expect(&c->launch, LAUNCH_READY, e) < 0 ||
        save(c, s, e) < 0)
        return -1;
    c->info.pid = c->launch.pid;
    c->info.status = CTR_CREATED;
    return 0;
}

/* runtime-spec: a failure is logged, and the lifecycle goes on. */
static void run_poststop(struct ctr *c, const struct ctr_spec *s)
{
    if (!s || !hooks_has(s->hooks, "poststop"))
        return;
    c->info.status = CTR_STOPPED;
    c->info.pid = 0;
    AUTO_FREE char *state = state_json(&c->info, s);

    hooks_run_all(s->hooks, "poststop", state);
}

/* Without a mount namespace of its own the container's tree lies in ours, on its root's path. */
static void take_off_root(const struct ctr *c, const struct ctr_spec *s)
{
    if (s && s->root_path && ctr_spec_namespace(s, "mount", NULL) < 0 && c->info.rootfs)
        umount2(c->info.rootfs, MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* Nothing may stay behind (S08). What goes wrong here changes nothing about the error that brought us. */
static void undo_create(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                        bool own_state)
{
    struct err ignored = ERR_INIT;

    launch_abort(&c->launch);
    if (c->root_mount && mount_of(c->info.rootfs) != c->root_mount)
        take_off_root(c, s);
    if (c->cgroup && (ctr_cgroup_kill(c->cgroup, &ignored) < 0 ||
                      ctr_cgroup_wait_empty(c->cgroup, KILL_WAIT_NS, &ignored) < 0 ||
                      ctr_cgroup_remove(c->cgroup, &ignored) < 0))
        err_clear(&ignored);
    if (own_state && state_remove(o->state_root, o->id, &ignored) < 0)
        err_clear(&ignored);
    if (c->hooks_ran)
        run_poststop(c, s);
}

int ctr_create(const struct ctr_spec *spec, const struct ctr_create_opts *o, struct ctr **ret,
               struct err *e)
{
    AUTO(ctr) struct ctr *c = new_ctr(o->id, o->state_root);

    if (!ctr_is_id(o->id))
        return err_set(e, ERR_USER,
                       "container id: 1 to %d of [A-Za-z0-9_+.-], not beginning with '-' or '.'",
                       ID_MAX);
    if (ctr_spec_validate(spec, e) < 0)
        return -1;
    c->created_here = true;
    if (create(c, spec, o, e) < 0) {
        undo_create(c, spec, o, c->state_dir >= 0);
        return -1;
    }
    *ret = take_ptr(&c);
    return 0;
}

/* --- the rest ---------------------------------------------------------------------------------------------- */

/* Of start: what fails here stops the container and takes it down. */
static int run_start_hooks(struct ctr *c, const struct ctr_spec *s, const char *kind,
                           const struct hooks_inside *inside, struct err *e)
{
    if (!s || !hooks_has(s->hooks, kind))
        return 0;
    AUTO_FREE char *state = state_json(&c->info, s);
    struct err ignored = ERR_INIT;

    if (hooks_run(s->hooks, kind, state, inside, e) == 0)
        return 0;
    if (ctr_delete(c, true, &ignored) < 0)
        err_clear(&ignored);
    return -1;
}

static int start_remote(struct ctr *c, const struct notify_to *notify, struct err *e)
{
    const struct ctr_info *info;

    if (ctr_info(c, &info, e) < 0)
        return -1;
    if (info->status != CTR_CREATED)
        return err_set(e, ERR_USER, "cannot start a container in the %s state",
                       ctr_status_name(info->status));
    AUTO_CLOSE int fd = state_connect(c->state_dir, e);

    return fd < 0 ? -1 : launch_await_exec(fd, notify, e);
}

static struct notify_to notify_of(const struct ctr *c, const struct ctr_spec *s, const char *state)
{
    const cJSON *filter = s ? s->seccomp : NULL;

    return (struct notify_to){
        .pid = c->launch.pid,
        .pidfd = c->launch.pidfd,
        .path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(filter, "listenerPath")),
        .metadata =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(filter, "listenerMetadata")),
        .state = state,
    };
}

int ctr_start(struct ctr *c, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *read = NULL;
    struct ctr_spec *s = c->info.spec;

    if (c->state_dir >= 0 && !s) {
        AUTO(ctr_state) struct ctr_state ignored = {0};

        if (state_read(c->state_dir, &ignored, &read, e) < 0)
            return -1;
        s = read;
    }
    if (s && !s->has_process)
        return err_set(e, ERR_USER, "config.json has no process to start");
    struct hooks_inside inside = inside_of(c);

    /* One that cannot be started is left alone. */
    if (c->state_dir >= 0 && !state_is_startable(c->state_dir))
        return start_remote(c, NULL, e);
    c->info.status = CTR_CREATED;
    c->info.pid = c->launch.pid;
    if (run_start_hooks(c, s, "startContainer", &inside, e) < 0)
        return -1;
    AUTO_FREE char *state = s && s->seccomp ? state_json(&c->info, s) : NULL;
    struct notify_to notify = notify_of(c, s, state);

    if ((c->state_dir >= 0 ? start_remote(c, &notify, e)
                           : launch_await_exec(c->launch.channel, NULL, e)) < 0)
        return -1;
    if (c->state_dir >= 0)
        state_forget_start(c->state_dir);
    close_fd(&c->launch.channel);
    c->info.status = CTR_RUNNING;
    return run_start_hooks(c, s, "poststart", NULL, e);
}

int ctr_pidfd(const struct ctr *c)
{
    return c->launch.pidfd;
}

pid_t ctr_pid(const struct ctr *c)
{
    return c->launch.pid;
}

int ctr_cgroup_dir(const struct ctr *c)
{
    return c->cgroup ? ctr_cgroup_fd(c->cgroup) : -1;
}

struct ctr_cgroup *ctr_cgroup_of(struct ctr *c)
{
    return c->cgroup;
}

const char *ctr_note(const struct ctr *c)
{
    return c->note;
}

int ctr_netns(const struct ctr *c, struct err *e)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/net", c->launch.pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "network namespace of container %s", c->id) : fd;
}

static int kill_each(struct ctr *c, int sig, struct err *e)
{
    AUTO_FREE int *pids = NULL;
    size_t n = 0;

    if (ctr_cgroup_pids(c->cgroup, &pids, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (kill(pids[i], sig) < 0 && errno != ESRCH)
            return err_sys(e, "signal process %d", pids[i]);
    return 0;
}

int ctr_kill(struct ctr *c, int sig, bool all, struct err *e)
{
    if (all && c->cgroup)
        return sig == SIGKILL ? ctr_cgroup_kill(c->cgroup, e) : kill_each(c, sig, e);
    if (c->launch.pidfd < 0)
        return err_set(e, ERR_USER, "container not running");
    if (syscall(SYS_pidfd_send_signal, c->launch.pidfd, sig, NULL, 0) < 0)
        return errno == ESRCH ? err_set(e, ERR_USER, "container not running")
                              : err_sys(e, "signal container %s", c->id);
    return 0;
}

int ctr_pause(struct ctr *c, bool paused, struct err *e)
{
    if (!c->cgroup)
        return err_set(e, ERR_HOST, "container %s has no cgroup to freeze", c->id);
    return ctr_cgroup_freeze(c->cgroup, paused, KILL_WAIT_NS, e);
}

int ctr_pids(const struct ctr *c, int **ret, size_t *ret_n, struct err *e)
{
    if (!c->cgroup)
        return err_set(e, ERR_HOST, "container %s has no cgroup", c->id);
    return ctr_cgroup_pids(c->cgroup, ret, ret_n, e);
}

int ctr_delete(struct ctr *c, bool force, struct err *e)
{
    struct err ignored = ERR_INIT;

    if (c->deleted) /* by a hook of start that failed */
        return 0;
    if (force) {
        if (c->launch.pidfd >= 0)
            syscall(SYS_pidfd_send_signal, c->launch.pidfd, SIGKILL, NULL, 0);
        if (c->launch.pidfd >= 0 &&
            fd_wait(c->launch.pidfd, POLLIN, clock_in_ns(KILL_WAIT_NS)) == 0)
            return err_set(e, ERR_LIMIT, "container %s does not die (stuck in the kernel)", c->id);
    }
    if (c->cgroup && (ctr_cgroup_kill(c->cgroup, e) < 0 ||
                      ctr_cgroup_wait_empty(c->cgroup, KILL_WAIT_NS, e) < 0 ||
                      ctr_cgroup_remove(c->cgroup, e) < 0))
        return -1;
    if (c->created_here && c->launch.pidfd >= 0 &&
        waitid(P_PIDFD, (id_t)c->launch.pidfd, &(siginfo_t){0}, WEXITED | WNOHANG) < 0)
        err_clear(&ignored); /* the caller has reaped it */
    /* The hooks of one that we created ourselves are in its state, which goes now. */
    if (c->state_dir >= 0 && !c->info.spec) {
        AUTO(ctr_state) struct ctr_state st = {0};

        if (state_read(c->state_dir, &st, &c->info.spec, &ignored) < 0)
            err_clear(&ignored);
    }
    if (c->state_root && state_remove(c->state_root, c->id, e) < 0)
        return -1;
    c->deleted = true;
    take_off_root(c, c->info.spec);
    run_poststop(c, c->info.spec);
    return 0;
}

/* --- containers of other processes ------------------------------------------------------------------------- */

static void open_process(struct ctr *c)
{
    int fd = fd_pidfd_open(c->launch.pid);

    /* Only if the number still means the process that we started. */
    if (fd >= 0 && c->start_time && state_start_time(c->launch.pid) == c->start_time)
        c->launch.pidfd = fd;
    else if (fd >= 0)
        close(fd);
}

static int open_cgroup(struct ctr *c, struct err *e)
{
    if (!c->info.cgroup || ctr_cgroup_open(c->info.cgroup, &c->cgroup, e) == 0)
        return 0;
    if (e->kind != ERR_ABSENT)
        return -1;
    err_clear(e);
    return 0;
}

int ctr_open(const char *state_root, const char *id, struct ctr **ret, struct err *e)
{
    AUTO(ctr) struct ctr *c = new_ctr(id, state_root);
    AUTO(ctr_state) struct ctr_state st = {0};

    if (!ctr_is_id(id))
        return err_set(e, ERR_USER, "invalid container id");
    if ((c->state_dir = state_open_dir(state_root, id, e)) < 0)
        return -1;
    if (state_read(c->state_dir, &st, &c->info.spec, e) < 0)
        return e->kind == ERR_ABSENT ? err_set(e, ERR_USER, "container %s is being created", id)
                                     : err_wrap(e, "container %s", id);
    c->launch.pid = st.pid;
    c->start_time = st.start_time;
    c->info.id = take_ptr(&st.id);
    c->info.bundle = take_ptr(&st.bundle);
    c->info.cgroup = take_ptr(&st.cgroup);
    c->info.created = take_ptr(&st.created);
    c->info.rootfs = take_ptr(&st.rootfs);
    c->info.oci_version = mem_strdup(c->info.spec->oci_version);
    open_process(c);
    if (open_cgroup(c, e) < 0)
        return -1;
    *ret = take_ptr(&c);
    return 0;
}

int ctr_info(struct ctr *c, const struct ctr_info **ret, struct err *e)
{
    bool frozen = false, alive = c->launch.pidfd >= 0 && fd_wait(c->launch.pidfd, POLLIN, 0) == 0;

    if (alive && c->cgroup && ctr_cgroup_is_frozen(c->cgroup, &frozen, e) < 0)
        return -1;
    c->info.pid = alive ? c->launch.pid : 0;
    c->info.status = !alive                                                  ? CTR_STOPPED
                     : frozen                                                ? CTR_PAUSED
                     : c->state_dir >= 0 && state_is_startable(c->state_dir) ? CTR_CREATED
                                                                             : CTR_RUNNING;
    *ret = &c->info;
    return 0;
}

int ctr_list(const char *state_root, struct str_list *ret, struct err *e)
{
    DIR *d = opendir(state_root);

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, "state directory %s", state_root);
    for (struct dirent *entry; (entry = readdir(d));)
        if (ctr_is_id(entry->d_name))
            str_list_add(ret, entry->d_name);
    closedir(d);
    return 0;
}

static char *state_json(const struct ctr_info *i, const struct ctr_spec *s)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject();

    json_add_str(o, "ociVersion", i->oci_version);
    json_add_str(o, "id", i->id);
    json_add_str(o, "status", ctr_status_name(i->status));
    if (i->status != CTR_STOPPED)
        json_add_int(o, "pid", i->pid);
    json_add_str(o, "bundle", i->bundle);
    if (s && s->n_annotations) {
        cJSON *a = json_add_object(o, "annotations");

        for (size_t k = 0; k < s->n_annotations; k++)
            json_add_str(a, s->annotations[k].key, s->annotations[k].value);
    }
    return json_text(o);
}

char *ctr_state_json(const struct ctr_info *i)
{
    return state_json(i, i->spec);
}
