#include "runtime/enter.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/units.h"
#include "runtime/birth.h"
#include "runtime/child.h"
#include "runtime/container.h"
#include "runtime/launch.h"
#include "runtime/notify.h"
#include "runtime/plan.h"
#include "runtime/rdt.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/user.h"

/* Joining the user namespace that one is in already is an error. */
static int has_own_userns(pid_t pid, bool *ret, struct err *e)
{
    char path[64];
    struct stat ours, theirs;

    snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
    if (stat("/proc/self/ns/user", &ours) < 0 || stat(path, &theirs) < 0)
        return err_sys(e, "look at the container's namespaces");
    *ret = ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev;
    return 0;
}

static int open_root(pid_t pid, struct err *e)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/root", pid);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "open the container's root") : fd;
}

struct entering {
    const struct enter_target *target;
    const struct ctr_exec_opts *opts;
    struct launch_plan *plan;
    bool userns;
};

static int enter_all(void *arg)
{
    const struct entering *in = arg;
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                CLONE_NEWCGROUP | CLONE_NEWTIME | (in->userns ? CLONE_NEWUSER : 0);

    return (int)syscall(SYS_setns, in->target->pidfd, flags);
}

static void run_inside(void *arg)
{
    const struct entering *in = arg;

    launch_set_stdio(in->opts->stdio);
    child_run(in->plan);
}

static int start(const struct enter_target *t, struct launch_plan *p, const struct ctr_exec_opts *o,
                 bool userns, struct launch *l, struct err *e)
{
    struct entering in = {t, o, p, userns};
    struct birth b = {
        .cgroup_fd = t->cgroup_fd, .enter = enter_all, .child = run_inside, .arg = &in};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "socket pair");
    l->channel = pair[0];
    p->report_fd = pair[1];
    p->parent_fd = pair[0];
    int r = birth_give(&b, &l->pid, &l->pidfd, e);

    close(pair[1]);
    return r;
}

/* process.execCPUAffinity.initial: ours, until the process has moved to the container's cgroup. */
static int move_aside(const struct ctr_process *p, struct cpu_set *ret_back, struct err *e)
{
    struct cpu_set initial;

    if (!p->cpu_affinity_initial)
        return 0;
    if (cpu_set_parse(p->cpu_affinity_initial, &initial, e) < 0)
        return -1;
    if (syscall(SYS_sched_getaffinity, 0, sizeof(*ret_back), ret_back) < 0 ||
        syscall(SYS_sched_setaffinity, 0, sizeof(initial), &initial) < 0)
        return err_sys(e, "process.execCPUAffinity.initial %s", p->cpu_affinity_initial);
    return 0;
}

static int build(const struct enter_target *t, const struct ctr_exec_opts *o,
                 const struct ctr_user *u, const struct ctr_seccomp *filter, bool userns,
                 struct launch_plan **ret, struct err *e)
{
    AUTO(launch_plan) struct launch_plan *p = mem_new(struct launch_plan);
    struct ctr_spec s = *t->spec;
    struct launch_slot host_proc = {.kind = SLOT_FS}, devpts_slot = {.kind = SLOT_FS};
    struct plan_input in = {
        .user = u, .seccomp = filter, .user_namespace = userns, .preserve_fds = o->preserve_fds};
    int proc, devpts;

    s.process = *o->process;
    s.has_process = true;
    s.init = false;
    p->entered = true;
    p->report_fd = p->parent_fd = p->start_fd = -1;
    p->console_fd = o->console_socket;
    p->seccomp = filter;
    plan_add_data(p, "", 1);
    proc = plan_add_slot(p, &host_proc);
    devpts = plan_add_slot(p, &devpts_slot);
    /* The host's own proc: nothing that the container has mounted (S03). "self" in it is the child. */
    p->fds[proc] = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->fds[proc] < 0)
        return err_sys(e, "open /proc");
    if (userns)
        plan_add_op(p, OP_WAIT_MAPS, -1, 0, 0);
    plan_add_op(p, OP_UNDUMPABLE, -1, 0, 0);
    plan_add_op(p, OP_NEW_SESSION, -1, 0, 0);
    if (s.process.terminal)
        plan_add_op(p, OP_OPEN_DEVPTS, devpts, 0, 0);
    if (plan_add_process(p, &s, &in, proc, devpts, e) < 0)
        return -1;
    *ret = take_ptr(&p);
    return 0;
}

int enter_exec(const struct enter_target *t, const struct ctr_exec_opts *o, pid_t *ret_pid,
               int *ret_pidfd, struct err *e)
{
    AUTO(ctr_seccomp) struct ctr_seccomp filter = {0};
    AUTO(ctr_user) struct ctr_user user = {0};
    AUTO(launch_plan) struct launch_plan *p = NULL;
    AUTO_CLOSE int root = open_root(t->pid, e);
    struct launch l = {-1, -1, -1};
    struct cpu_set back = {0};
    bool userns = false;

    if (root < 0 || has_own_userns(t->pid, &userns, e) < 0 ||
        ctr_user_resolve(root, o->process, &user, e) < 0 ||
        ctr_seccomp_for_spec(t->spec, CTR_SECCOMP_CACHE, &filter, e) < 0 ||
        build(t, o, &user, &filter, userns, &p, e) < 0)
        return -1;
    if (move_aside(o->process, &back, e) < 0)
        return -1;
    int started = start(t, p, o, userns, &l, e);

    if (o->process->cpu_affinity_initial)
        syscall(SYS_sched_setaffinity, 0, sizeof(back), &back);
    struct notify_to notify = {.pid = l.pid,
                               .pidfd = l.pidfd,
                               .path = filter.listener_path,
                               .metadata = filter.listener_metadata,
                               .state = t->state};

    if (started < 0 || (userns && launch_raise_limits(o->process, l.pid, e) < 0) ||
        (userns && launch_go(&l, e) < 0) || launch_expect(&l, LAUNCH_READY, e) < 0 ||
        (t->id && rdt_join(NULL, &t->spec->rdt, t->id, l.pid, e) < 0) ||
        launch_await_exec(l.channel, filter.listener && t->state ? &notify : NULL, e) < 0) {
        launch_abort(&l);
        return -1;
    }
    close_fd(&l.channel);
    *ret_pid = l.pid;
    *ret_pidfd = take_fd(&l.pidfd);
    return 0;
}
