/* container_live.c - start, exec, signal, pause, delete. */
#include <errno.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "runtime/cgroup.h"
#include "runtime/container_own.h"
#include "runtime/enter.h"
#include "runtime/notify.h"
#include "runtime/rdt.h"
#include "runtime/spec.h"
#include "runtime/state.h"

struct hooks_inside ctr_inside(const struct ctr *c)
{
    return (struct hooks_inside){c->launch.pid, c->launch.pidfd, ctr_cgroup_dir(c)};
}

/* runtime-spec: a failure is logged, and the lifecycle goes on. */
void ctr_run_poststop(struct ctr *c, const struct ctr_spec *s)
{
    if (!s || !hooks_has(s->hooks, "poststop"))
        return;
    c->info.status = CTR_STOPPED;
    c->info.pid = 0;
    AUTO_FREE char *state = ctr_state_text(&c->info, s);

    hooks_run_all(s->hooks, "poststop", state);
}

/* Without a mount namespace of its own the container's tree lies in ours, on its root's path. */
void ctr_take_off_root(const struct ctr *c, const struct ctr_spec *s)
{
    if (s && s->root_path && ctr_spec_namespace(s, "mount", NULL) < 0 && c->info.rootfs)
        umount2(c->info.rootfs, MNT_DETACH | UMOUNT_NOFOLLOW);
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
        spec->seccomp && c->info.oci_version ? ctr_state_text(&c->info, spec) : NULL;
    struct enter_target t = {.pid = c->launch.pid,
                             .pidfd = c->launch.pidfd,
                             .cgroup_fd = ctr_cgroup_dir(c),
                             .spec = spec,
                             .id = c->id,
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

/* Of start: what fails here stops the container and takes it down. */
static int run_start_hooks(struct ctr *c, const struct ctr_spec *s, const char *kind,
                           const struct hooks_inside *inside, struct err *e)
{
    if (!s || !hooks_has(s->hooks, kind))
        return 0;
    AUTO_FREE char *state = ctr_state_text(&c->info, s);
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
    struct hooks_inside inside = ctr_inside(c);

    bool remote = c->state_dir >= 0 && !c->start_here;

    /* One that cannot be started is left alone. */
    if (remote && !state_is_startable(c->state_dir))
        return start_remote(c, NULL, e);
    c->info.status = CTR_CREATED;
    c->info.pid = c->launch.pid;
    if (run_start_hooks(c, s, "startContainer", &inside, e) < 0)
        return -1;
    AUTO_FREE char *state = s && s->seccomp ? ctr_state_text(&c->info, s) : NULL;
    struct notify_to notify = notify_of(c, s, state);

    if ((remote ? start_remote(c, &notify, e)
                : launch_await_exec(c->launch.channel, c->state_dir >= 0 ? &notify : NULL, e)) < 0)
        return -1;
    if (remote)
        state_forget_start(c->state_dir);
    close_fd(&c->launch.channel);
    c->info.status = CTR_RUNNING;
    return run_start_hooks(c, s, "poststart", NULL, e);
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

/* The usual end is that nobody is left: then no lock of the whole hierarchy is taken to kill them. */
static int end_group(struct ctr_cgroup *cg, struct err *e)
{
    bool populated = false;

    if (ctr_cgroup_is_populated(cg, &populated, e) < 0)
        return -1;
    return populated &&
                   (ctr_cgroup_kill(cg, e) < 0 || ctr_cgroup_wait_empty(cg, KILL_WAIT_NS, e) < 0)
               ? -1
               : 0;
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
    if (c->cgroup && (end_group(c->cgroup, e) < 0 || ctr_cgroup_remove(c->cgroup, e) < 0))
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
    if (c->info.spec)
        rdt_remove(NULL, &c->info.spec->rdt, c->id);
    ctr_take_off_root(c, c->info.spec);
    ctr_run_poststop(c, c->info.spec);
    return 0;
}
