#include "runtime/birth.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/sched.h>

#include "base/err.h"
#include "base/fd.h"

/* The helper's answer: the process id of its child, as we see it. */
struct born {
    int pid, sys;
};

static _Noreturn void help(const struct birth *b, int sock)
{
    struct born born = {.pid = -1};

    syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (b->enter(b->arg) == 0) {
        struct clone_args args = {.flags = CLONE_PARENT | b->new_namespaces};

        born.pid = (int)syscall(SYS_clone3, &args, sizeof(args));
        if (born.pid == 0) {
            b->child(b->arg);
            syscall(SYS_exit_group, 127);
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

int birth_give(const struct birth *b, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    AUTO_CLOSE int helper_fd = -1, ours = -1, theirs = -1;
    struct born born = {.pid = -1};
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "socket pair");
    ours = pair[0];
    theirs = pair[1];
    pid_t helper = clone_helper(b->cgroup_fd, &helper_fd);

    if (helper == 0)
        help(b, theirs);
    if (helper < 0)
        return err_sys(e, "start a process in the container's cgroup");
    close_fd(&theirs);
    ssize_t n;

    do
        n = recv(ours, &born, sizeof(born), 0);
    while (n < 0 && errno == EINTR);
    while (waitid(P_PIDFD, (id_t)helper_fd, &(siginfo_t){0}, WEXITED) < 0 && errno == EINTR)
        ;
    if (n != sizeof(born) || born.pid < 0)
        return err_sysno(e, n == sizeof(born) ? born.sys : EPIPE, "enter the namespaces");
    /* Our own child, not reaped yet: the number is its. */
    int fd = fd_pidfd_open(born.pid);

    if (fd < 0)
        return err_sys(e, "hold the process");
    *ret_pid = born.pid;
    *ret_pidfd = fd;
    return 0;
}
