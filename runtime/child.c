#include "runtime/child.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>

#include "base/units.h"
#include "runtime/launch.h"
#include "runtime/notify.h"
#include "runtime/plan.h"
#include "runtime/seccomp.h"

/* The root, once entered; in exec into a running container it is "/" from the start. */
static int root_fd = -1;
/* What OP_FIND found. */
static const char *program;
/* Where reports go: the channel, later perhaps the connection of whoever starts us. */
static int report_fd = -1;

static const char *text(const struct launch_plan *p, uint32_t at)
{
    return p->data + at;
}

static void send_report(enum launch_msg_kind kind, unsigned op, int sys, const char *about)
{
    struct launch_msg m = {.kind = (uint16_t)kind, .op = (uint16_t)op, .sys = sys};

    for (unsigned i = 0; about && about[i] && i < LAUNCH_TEXT - 1; i++)
        m.text[i] = about[i];
    SYS(sendto, report_fd, &m, sizeof(m), MSG_NOSIGNAL, 0, 0);
}

/* One packet from the parent; anything else, or its end, ends us. */
static void await_go(int fd)
{
    struct launch_msg m;
    long n;

    do
        n = SYS(recvfrom, fd, &m, sizeof(m), 0, 0, 0);
    while (n < 0 && errno == EINTR);
    if (n < (long)sizeof(m.kind) || m.kind != LAUNCH_GO)
        SYS(exit_group, 1);
}

static int wait_maps(void)
{
    await_go(report_fd);
    /* Id 0 of the namespace: what we make in the root belongs to the container's root. */
    if (SYS(setresgid, 0, 0, 0) < 0 || SYS(setresuid, 0, 0, 0) < 0)
        return -1;
    return 0;
}

static int lo_up(void)
{
    struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = (int)SYS(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return errno == EAFNOSUPPORT ? 0 : -1;
    long r = SYS(ioctl, fd, SIOCSIFFLAGS, &ifr);

    SYS(close, fd);
    return (int)r;
}

static int fork_init(const struct launch_plan *p)
{
    unsigned long long all = ~0ULL;

    /* Nothing may be lost between the fork and the loop. */
    if (SYS(rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof(all)) < 0)
        return -1;
    long pid = SYS(clone, SIGCHLD, 0, 0, 0, 0);

    if (pid > 0)
        child_init_loop(p, (int)pid);
    return pid < 0 ? -1 : 0;
}

static int drop_bounding(const struct plan_caps *c)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        if (c->bounding >> cap & 1)
            continue;
        /* The first number that the kernel does not know ends the set. */
        if (SYS(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return errno == EINVAL ? 0 : -1;
    }
    return 0;
}

static int set_caps(const struct plan_caps *c)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
        {(uint32_t)(c->effective >> 32), (uint32_t)(c->permitted >> 32),
         (uint32_t)(c->inheritable >> 32)},
    };

    if (SYS(prctl, PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 ||
        SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        SYS(capset, &header, data) < 0)
        return -1;
    for (unsigned cap = 0; cap < 64; cap++)
        if (c->ambient >> cap & 1 &&
            SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -1;
    return 0;
}

static int set_rlimit(const struct launch_plan *p, const struct launch_op *op)
{
    struct plan_rlimit r;

    __builtin_memcpy(&r, text(p, op->b), sizeof(r));
    struct rlimit64 limit = {r.soft, r.hard};

    return (int)SYS(prlimit64, 0, op->a, &limit, 0);
}

static int set_mem_policy(const struct launch_plan *p, const struct launch_op *op)
{
    struct cpu_set nodes;
    unsigned long used = 0;

    __builtin_memcpy(&nodes, text(p, op->b), sizeof(nodes));
    for (unsigned i = 0; i < sizeof(nodes.bits) / sizeof(nodes.bits[0]); i++)
        if (nodes.bits[i])
            used = (i + 1) * 64 + 1; /* the kernel takes one bit less than it is told */
    return (int)SYS(set_mempolicy, op->a, used ? nodes.bits : 0, used);
}

/* Denied while the group still has other processes' keys: the kernel without keys is fine. */
static int new_keyring(void)
{
    return SYS(keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) < 0 && errno != ENOSYS ? -1 : 0;
}

static int find_program(const char *candidates)
{
    int why = ENOENT;

    for (program = candidates; *program; program += child_strlen(program) + 1) {
        struct stat st;

        if (SYS(faccessat2, AT_FDCWD, program, X_OK, AT_EACCESS) == 0 &&
            SYS(newfstatat, AT_FDCWD, program, &st, 0) == 0) {
            if (S_ISREG(st.st_mode))
                return 0;
            errno = EACCES;
        }
        if (errno != ENOENT && errno != ENOTDIR)
            why = errno;
    }
    program = candidates;
    errno = why;
    return -1;
}

/* What was ignored stays ignored over exec, so all are set (KILL and STOP answer EINVAL). */
static int default_signals(void)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        unsigned long long mask;
    } act = {0};
    unsigned long long none = 0;

    for (int sig = 1; sig <= 64; sig++)
        SYS(rt_sigaction, sig, &act, 0, sizeof(act.mask));
    return (int)SYS(rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
}

static int wait_start(struct launch_plan *p)
{
    if (p->start_fd < 0) {
        await_go(report_fd);
        return 0;
    }
    long fd;

    do
        fd = SYS(accept4, p->start_fd, 0, 0, SOCK_CLOEXEC);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return -1;
    report_fd = (int)fd;
    await_go(report_fd);
    return 0;
}

/* What the change of ids has put aside is effective again, for one call. */
static int raise_caps(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (SYS(capget, &header, data) < 0)
        return -1;
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    return (int)SYS(capset, &header, data);
}

/* What an agent has to answer must not be asked before it listens, so there is no call in this loop; nor is there for
 * ever, should nobody come. */
static void await_agent(struct notify_cell *cell)
{
    for (uint64_t i = 0; !cell->done; i++) {
        if (i == 1ULL << 32)
            __builtin_trap();
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
}

static int load_filter(const struct launch_plan *p, bool privileged)
{
    static struct notify_cell cell = {.fd = -1};
    struct sock_fprog prog = {.len = (unsigned short)p->seccomp->n, .filter = p->seccomp->insns};
    struct launch_msg m = {.kind = LAUNCH_NOTIFY_FD};
    uint64_t at = (uint64_t)(uintptr_t)&cell;

    if (privileged && raise_caps() < 0)
        return -1;
    __builtin_memcpy(m.text, &at, sizeof(at));
    if (p->seccomp->listener && SYS(sendto, report_fd, &m, sizeof(m), MSG_NOSIGNAL, 0, 0) < 0)
        return -1;
    long fd = SYS(seccomp, SECCOMP_SET_MODE_FILTER, p->seccomp->flags, &prog);

    if (fd < 0)
        return -1;
    if (p->seccomp->listener) {
        cell.fd = (int)fd;
        await_agent(&cell);
    }
    return 0;
}

static int execute(const struct launch_plan *p)
{
    static char *const nothing[] = {0};

    return (int)SYS(execve, program, p->args.items, p->env.items ? p->env.items : nothing);
}

static int set_privileges(struct launch_plan *p, const struct launch_op *op)
{
    struct plan_caps caps;

    switch (op->kind) {
    case OP_BOUNDING:
    case OP_CAPS:
        __builtin_memcpy(&caps, text(p, op->b), sizeof(caps));
        return op->kind == OP_CAPS ? set_caps(&caps) : drop_bounding(&caps);
    case OP_KEEP_CAPS: return (int)SYS(prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
    case OP_GROUPS: return (int)SYS(setgroups, op->a, text(p, op->b));
    case OP_GID: return (int)SYS(setresgid, op->b, op->b, op->b);
    case OP_UID: return (int)SYS(setresuid, op->b, op->b, op->b);
    case OP_NO_NEW_PRIVS: return (int)SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    case OP_UNDUMPABLE: return (int)SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    case OP_SECCOMP: return load_filter(p, op->a);
    case OP_KEYRING: return new_keyring();
    default: errno = ENOSYS; return -1;
    }
}

static int set_attributes(struct launch_plan *p, const struct launch_op *op)
{
    switch (op->kind) {
    case OP_OOM_SCORE: return child_write_proc(p, op, ".", "self/oom_score_adj", text(p, op->a));
    case OP_PERSONALITY: return SYS(personality, op->b) < 0 ? -1 : 0;
    case OP_RLIMIT: return set_rlimit(p, op);
    case OP_SCHEDULER: return (int)SYS(sched_setattr, 0, text(p, op->b), 0);
    case OP_IO_PRIORITY: return (int)SYS(ioprio_set, 1, 0, op->b);
    case OP_AFFINITY: return SYS(sched_setaffinity, 0, op->a, text(p, op->b)) < 0 ? -1 : 0;
    case OP_MEM_POLICY: return set_mem_policy(p, op);
    case OP_UMASK: SYS(umask, op->b); return 0;
    case OP_EXEC_LABEL:
        return child_write_proc(p, op, "thread-self/attr", text(p, op->a), text(p, op->b));
    case OP_FIND: return find_program(text(p, op->a));
    case OP_CLOSE: return (int)SYS(close_range, op->b, ~0U, CLOSE_RANGE_CLOEXEC);
    case OP_SIGNALS: return default_signals();
    case OP_READY: send_report(LAUNCH_READY, 0, 0, 0); return 0;
    case OP_WAIT_START: return wait_start(p);
    case OP_EXEC: return execute(p);
    default: return set_privileges(p, op);
    }
}

static int do_op(struct launch_plan *p, const struct launch_op *op)
{
    switch (op->kind) {
    case OP_WAIT_MAPS: return wait_maps();
    case OP_NEW_SESSION: SYS(setsid); return 0; /* a leader stays one */
    case OP_NEW_CGROUP_NS: return (int)SYS(unshare, CLONE_NEWCGROUP);
    case OP_PRIVATE_MOUNTS: {
        struct mount_attr attr = {.propagation = MS_PRIVATE};

        return (int)SYS(mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr));
    }
    case OP_NEW_FS: return child_new_fs(p, op);
    case OP_LO_UP: return lo_up();
    case OP_HOSTNAME: return (int)SYS(sethostname, text(p, op->a), op->b);
    case OP_DOMAINNAME: return (int)SYS(setdomainname, text(p, op->a), op->b);
    case OP_HOOKS:
        send_report(LAUNCH_HOOKS, 0, 0, 0);
        await_go(report_fd);
        return 0;
    case OP_ENTER_ROOT: return child_enter_root(p, op, &root_fd);
    case OP_CHROOT: return child_chroot(p, op, &root_fd);
    case OP_ATTACH: return child_attach(p, op, root_fd);
    case OP_MAKE_DIR: return child_make_dir(text(p, op->a), root_fd);
    case OP_REMOUNT: return child_remount(p, op, root_fd);
    case OP_COPY_UP: return child_copy_up(p, op, root_fd);
    case OP_MKNOD: return child_mknod(p, op, root_fd);
    case OP_SYMLINK: return child_symlink(p, op, root_fd);
    case OP_SYSCTL: return child_write_proc(p, op, "sys", text(p, op->a), text(p, op->b));
    case OP_MASK: return child_mask(p, op, root_fd);
    case OP_READONLY: return child_readonly(p, op, root_fd);
    case OP_SETATTR: return child_setattr(text(p, op->a), root_fd, op->b, 0);
    case OP_PROPAGATION: return child_setattr("/", root_fd, 0, op->b);
    case OP_CHDIR: return child_chdir(text(p, op->a), root_fd);
    case OP_FORK_INIT: return fork_init(p);
    case OP_OPEN_DEVPTS: return child_open_devpts(p, op, root_fd);
    case OP_CONSOLE: return child_console(p, op, root_fd);
    default: return set_attributes(p, op);
    }
}

/* Operations whose `a` is a text worth telling. */
static bool has_text(unsigned kind)
{
    switch (kind) {
    case OP_NEW_FS:
    case OP_ATTACH:
    case OP_COPY_UP:
    case OP_REMOUNT:
    case OP_MKNOD:
    case OP_SYMLINK:
    case OP_SYSCTL:
    case OP_MASK:
    case OP_READONLY:
    case OP_SETATTR:
    case OP_CHROOT:
    case OP_MAKE_DIR:
    case OP_CHDIR:
    case OP_EXEC_LABEL:
    case OP_HOSTNAME: return true;
    default: return false;
    }
}

_Noreturn void child_run(struct launch_plan *p)
{
    report_fd = p->report_fd;
    if (p->parent_fd >= 0)
        SYS(close, p->parent_fd);
    SYS(umask, 0);
    /* In a running container there is no root to enter: we are in it. */
    if (p->entered)
        root_fd = (int)SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    for (unsigned i = 0; i < p->n_ops; i++) {
        const struct launch_op *op = &p->ops[i];

        if (do_op(p, op) == 0)
            continue;
        send_report(LAUNCH_FAILED, op->kind, errno,
                    op->kind == OP_EXEC || op->kind == OP_FIND ? p->args.items[0]
                    : has_text(op->kind)                       ? text(p, op->a)
                                                               : 0);
        break;
    }
    SYS(exit_group, 127);
    __builtin_unreachable();
}
