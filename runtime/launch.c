#include "runtime/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/birth.h"
#include "runtime/child.h"
#include "runtime/idmap.h"
#include "runtime/names.h"
#include "runtime/notify.h"
#include "runtime/plan.h"
#include "runtime/spec.h"

/* --- namespaces by path ------------------------------------------------------------------------- */

/* Entered by the parent for the moment of clone3: a child in a new user namespace could not join them any more. */
struct joined {
    int back[8]; /* our own namespaces, to return to */
    uint64_t flags[8];
    size_t n;
};

static void leave(struct joined *j)
{
    while (j->n > 0) {
        j->n--;
        BUG_ON(setns(j->back[j->n], (int)j->flags[j->n]) < 0);
        close(j->back[j->n]);
    }
}
DEFINE_AUTO_VALUE(joined, leave)

static const char *own_ns_path(uint64_t flag)
{
    switch (flag) {
    case CLONE_NEWPID: return "/proc/self/ns/pid";
    case CLONE_NEWNET: return "/proc/self/ns/net";
    case CLONE_NEWIPC: return "/proc/self/ns/ipc";
    case CLONE_NEWUTS: return "/proc/self/ns/uts";
    case CLONE_NEWCGROUP: return "/proc/self/ns/cgroup";
    default: return NULL;
    }
}

static int join_one(struct joined *j, const struct ctr_namespace *ns, struct err *e)
{
    uint64_t flag = 0;
    const char *own;
    char shown[STR_SHOW_MAX];

    if (name_lookup(ctr_names_namespaces, ns->type, &flag) < 0 || !(own = own_ns_path(flag)))
        return err_set(e, ERR_USER, "linux.namespaces: a %s namespace cannot be joined by path",
                       ns->type);
    AUTO_CLOSE int fd = open(ns->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    AUTO_CLOSE int back = open(own, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || back < 0)
        return err_sys(e, "linux.namespaces: %s namespace %s", ns->type, str_show(shown, ns->path));
    if (setns(fd, (int)flag) < 0)
        return err_sys(e, "linux.namespaces: join %s namespace %s", ns->type,
                       str_show(shown, ns->path));
    j->flags[j->n] = flag;
    j->back[j->n++] = take_fd(&back);
    return 0;
}

static int join_all(struct joined *j, const struct ctr_spec *s, struct err *e)
{
    for (size_t i = 0; i < s->n_namespaces; i++)
        if (s->namespaces[i].path && join_one(j, &s->namespaces[i], e) < 0)
            return -1;
    return 0;
}

/* --- a time namespace: its offsets are fixed when the first process enters -------------------------- */

static int write_offset(int fd, const char *clock, const struct ctr_time_offset *o, struct err *e)
{
    char line[96];
    int n = snprintf(line, sizeof(line), "%s %lld %u\n", clock, (long long)o->secs, o->nanosecs);

    if (o->set && write(fd, line, (size_t)n) < 0)
        return err_sys(e, "linux.timeOffsets.%s", clock);
    return 0;
}

/* For children only; *ret_back undoes it. */
static int prepare_time(const struct ctr_spec *s, int *ret_back, struct err *e)
{
    AUTO_CLOSE int back = open("/proc/self/ns/time", O_RDONLY | O_CLOEXEC);

    if (back < 0 || unshare(CLONE_NEWTIME) < 0)
        return err_sys(e, "make a time namespace");
    *ret_back = take_fd(&back);
    AUTO_CLOSE int fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "open timens_offsets");
    return write_offset(fd, "monotonic", &s->time_monotonic, e) < 0
               ? -1
               : write_offset(fd, "boottime", &s->time_boottime, e);
}

/* --- clone3 ------------------------------------------------------------------------------------------ */

void launch_set_stdio(const int stdio[3])
{
    for (int i = 0; i < 3; i++) {
        int fd = stdio[i];

        if (fd < 0)
            fd = (int)syscall(SYS_open, "/dev/null", O_RDWR | O_CLOEXEC, 0);
        /* dup3 of a number onto itself is an error, and leaves close-on-exec as it is. */
        if (fd == i)
            syscall(SYS_fcntl, fd, F_SETFD, 0);
        else
            syscall(SYS_dup3, fd, i, 0);
    }
}

static pid_t clone_child(struct launch_plan *p, const struct launch_opts *o, int *ret_pidfd)
{
    struct clone_args args = {
        .flags = (p->new_namespaces & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME)) | CLONE_PIDFD |
                 (o->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = o->cgroup_fd >= 0 ? (uint64_t)o->cgroup_fd : 0,
    };
    long pid = syscall(SYS_clone3, &args, sizeof(args));

    if (pid == 0) {
        launch_set_stdio(o->stdio);
        child_run(p);
    }
    return (pid_t)pid;
}

int launch_raise_limits(const struct ctr_process *p, pid_t pid, struct err *e)
{
    for (size_t i = 0; i < p->n_rlimits; i++) {
        const struct ctr_rlimit *r = &p->rlimits[i];
        struct rlimit now;
        uint64_t resource = 0;

        if (name_lookup(ctr_names_rlimits, r->type, &resource) < 0 ||
            prlimit(pid, (int)resource, NULL, &now) < 0)
            return err_sys(e, "process.rlimits: %s", r->type);
        if (r->hard <= now.rlim_max)
            continue; /* lowered by the child itself, when it needs no more */
        now.rlim_max = r->hard;
        if (prlimit(pid, (int)resource, &now, NULL) < 0)
            return err_sys(e, "process.rlimits: raise %s", r->type);
    }
    if (!p->has_oom_score_adj)
        return 0;
    char path[64], text[16];
    int n = snprintf(text, sizeof(text), "%d", p->oom_score_adj);

    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd < 0 || write(fd, text, (size_t)n) < 0 ? err_sys(e, "process.oomScoreAdj") : 0;
}

/* A user namespace by path cannot be left again, and what is made after it belongs to it: then all is done by a helper
 * on the way. So are mount and time namespaces by path. */
static bool needs_helper(const struct ctr_spec *s)
{
    return ctr_spec_namespace(s, "user", NULL) == 1 || ctr_spec_namespace(s, "mount", NULL) == 1 ||
           ctr_spec_namespace(s, "time", NULL) == 1;
}

enum { NAMESPACES_MAX = 8 };
struct joining {
    const struct launch_opts *opts;
    struct launch_plan *plan;
    int fds[NAMESPACES_MAX], flags[NAMESPACES_MAX];
    size_t n;
};

static void close_joining(struct joining *j)
{
    while (j->n > 0)
        close(j->fds[--j->n]);
}
DEFINE_AUTO_VALUE(joining, close_joining)

/* The user namespace last: with what it grants, the others could not be entered. */
static int open_namespaces(struct joining *j, const struct ctr_spec *s, struct err *e)
{
    for (int user = 0; user < 2; user++) {
        for (size_t i = 0; i < s->n_namespaces; i++) {
            const struct ctr_namespace *ns = &s->namespaces[i];
            char shown[STR_SHOW_MAX];
            uint64_t flag = 0;

            if (!ns->path || str_eq(ns->type, "user") != user || j->n == NAMESPACES_MAX ||
                name_lookup(ctr_names_namespaces, ns->type, &flag) < 0)
                continue;
            int fd = open(ns->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

            if (fd < 0)
                return err_sys(e, "linux.namespaces: %s namespace %s", ns->type,
                               str_show(shown, ns->path));
            j->flags[j->n] = (int)flag;
            j->fds[j->n++] = fd;
        }
    }
    return 0;
}

static int join_for_good(void *arg)
{
    const struct joining *j = arg;

    for (size_t i = 0; i < j->n; i++)
        if (setns(j->fds[i], j->flags[i]) < 0)
            return -1;
    return 0;
}

static void run_joined(void *arg)
{
    const struct joining *j = arg;

    launch_set_stdio(j->opts->stdio);
    child_run(j->plan);
}

static int clone_by_helper(const struct ctr_spec *s, struct launch_plan *p,
                           const struct launch_opts *o, struct launch *l, struct err *e)
{
    AUTO(joining) struct joining j = {.opts = o, .plan = p};
    struct birth b = {.cgroup_fd = o->cgroup_fd,
                      .new_namespaces = p->new_namespaces & ~(uint64_t)CLONE_NEWCGROUP,
                      .enter = join_for_good,
                      .child = run_joined,
                      .arg = &j};

    if (p->new_namespaces & CLONE_NEWTIME)
        return err_set(e, ERR_USER,
                       "linux.namespaces: a new time namespace together with a user or mount "
                       "namespace by path is not supported");
    if (open_namespaces(&j, s, e) < 0)
        return -1;
    return birth_give(&b, &l->pid, &l->pidfd, e) < 0 ? err_wrap(e, "linux.namespaces") : 0;
}

static int clone_into(const struct ctr_spec *s, struct launch_plan *p, const struct launch_opts *o,
                      struct launch *l, struct err *e)
{
    AUTO(joined) struct joined j = {.n = 0};
    AUTO_CLOSE int time_back = -1;

    if (needs_helper(s))
        return clone_by_helper(s, p, o, l, e);
    if (join_all(&j, s, e) < 0)
        return -1;
    int r = p->new_namespaces & CLONE_NEWTIME ? prepare_time(s, &time_back, e) : 0;

    if (r == 0) {
        l->pid = clone_child(p, o, &l->pidfd);
        if (l->pid < 0 && o->partial_cgroup && o->cgroup_fd >= 0) {
            struct launch_opts without = *o;

            without.cgroup_fd = -1;
            l->pid = clone_child(p, &without, &l->pidfd);
        }
        if (l->pid < 0)
            r = err_sys(e, "start a process in new namespaces");
    }
    if (time_back >= 0)
        BUG_ON(setns(time_back, CLONE_NEWTIME) < 0);
    return r;
}

int launch_start(const struct ctr_spec *s, struct launch_plan *p, const struct launch_opts *o,
                 struct launch *ret, struct err *e)
{
    int pair[2];

    *ret = (struct launch){.pid = -1, .pidfd = -1, .channel = -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "make a socket pair");
    ret->channel = pair[0];
    p->report_fd = pair[1];
    p->parent_fd = pair[0];
    p->start_fd = o->start_fd;
    p->console_fd = o->console_fd;
    int r = clone_into(s, p, o, ret, e);

    close(pair[1]);
    p->report_fd = p->parent_fd = -1;
    if (r == 0 && o->user_namespace)
        if ((p->new_namespaces & CLONE_NEWUSER &&
             idmap_write(ret->pid, &s->uid_maps, &s->gid_maps, e) < 0) ||
            launch_raise_limits(&s->process, ret->pid, e) < 0 || launch_go(ret, e) < 0)
            r = -1;
    if (r < 0)
        launch_abort(ret);
    return r;
}

int launch_await_exec(int fd, const struct notify_to *notify, struct err *e)
{
    uint64_t cell = 0;
    int rc = launch_release(fd, notify ? &cell : NULL, e);

    if (rc != 1)
        return rc;
    return notify_hand_over(notify, cell, e) < 0 ? -1 : launch_outcome(fd, e);
}

void launch_abort(struct launch *l)
{
    if (l->pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t)l->pidfd, &(siginfo_t){0}, WEXITED) < 0 && errno == EINTR)
            ;
    }
    close_fd(&l->pidfd);
    close_fd(&l->channel);
    l->pid = -1;
}
