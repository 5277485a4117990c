#include "runtime/enter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "runtime/child.h"
#include "runtime/container.h"
#include "runtime/launch.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"
#include "runtime/spec.h"
#include "runtime/user.h"

/* The helper's answer: the process id of its child, as we see it. */
struct born {
    int pid, sys;
};

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

/* In the helper. */
static _Noreturn void help(const struct enter_target *t, struct launch_plan *p,
                           const struct ctr_exec_opts *o, bool userns, int sock)
{
    struct born born = {.pid = -1};
    int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                CLONE_NEWCGROUP | CLONE_NEWTIME | (userns ? CLONE_NEWUSER : 0);

    syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (syscall(SYS_setns, t->pidfd, flags) == 0) {
        struct clone_args args = {.flags = CLONE_PARENT};

        born.pid = (int)syscall(SYS_clone3, &args, sizeof(args));
        if (born.pid == 0) {
            launch_set_stdio(o->stdio);
            child_run(p);
        }
    }
    born.sys = errno;
    syscall(SYS_sendto, sock, &born, sizeof(born), MSG_NOSIGNAL, NULL, 0);
    syscall(SYS_exit_group, 0);
    __builtin_unreachable();
}

static pid_t clone_helper(int cgroup_fd, int *ret_pidfd)
{
    struct clone_args args = {
        .flags = CLONE_PIDFD | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)ret_pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
    };

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int start(const struct enter_target *t, struct launch_plan *p, const struct ctr_exec_opts *o,
                 bool userns, struct launch *l, struct err *e)
{
    AUTO_CLOSE int helper_fd = -1, theirs = -1, born_fd = -1, born_theirs = -1;
    struct born born = {.pid = -1};
    int pair[2], talk[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "socket pair");
    l->channel = pair[0];
    p->report_fd = theirs = pair[1];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, talk) < 0)
        return err_sys(e, "socket pair");
    born_fd = talk[0];
    born_theirs = talk[1];
    pid_t helper = clone_helper(t->cgroup_fd, &helper_fd);

    if (helper == 0)
        help(t, p, o, userns, born_theirs);
    if (helper < 0)
        return err_sys(e, "start a process in the container's cgroup");
    close_fd(&born_theirs);
    close_fd(&theirs);
    ssize_t n = recv(born_fd, &born, sizeof(born), 0);

    while (waitid(P_PIDFD, (id_t)helper_fd, &(siginfo_t){0}, WEXITED) < 0 && errno == EINTR)
        ;
    if (n != sizeof(born) || born.pid < 0)
        return err_sysno(e, n == sizeof(born) ? born.sys : EPIPE, "enter the container");
    /* Our own child, not reaped yet: the number is its. */
    l->pid = born.pid;
    l->pidfd = fd_pidfd_open(born.pid);
    return l->pidfd < 0 ? err_sys(e, "hold the process") : 0;
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
    p->report_fd = p->start_fd = -1;
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
    bool userns = false;

    if (root < 0 || has_own_userns(t->pid, &userns, e) < 0 ||
        ctr_user_resolve(root, o->process, &user, e) < 0 ||
        ctr_seccomp_for_spec(t->spec, CTR_SECCOMP_CACHE, &filter, e) < 0 ||
        build(t, o, &user, &filter, userns, &p, e) < 0)
        return -1;
    if (start(t, p, o, userns, &l, e) < 0 ||
        (userns && launch_raise_limits(o->process, l.pid, e) < 0) ||
        (userns && launch_go(&l, e) < 0) || launch_expect(&l, LAUNCH_READY, e) < 0 ||
        launch_await_exec(l.channel, e) < 0) {
        launch_abort(&l);
        return -1;
    }
    close_fd(&l.channel);
    *ret_pid = l.pid;
    *ret_pidfd = take_fd(&l.pidfd);
    return 0;
}
