/*
 * seccomp_default.c - the allow-list of a bundle (S39).
 *
 * Four answers. Allowed: calls any program may need. EPERM: calls we know and forbid, unless the container has the
 * capability in its bounding set that governs them. ENOSYS: everything else, so that programs fall back to
 * older calls as they do on an older kernel; clone3 is among these, because its flags lie in memory the filter
 * cannot see, and libc then uses clone. And tests of arguments, in a prologue of our own: an argument is 64 bits
 * wide, the kernel often looks at the lower 32 only, and libseccomp has no "not equal under a mask" (CVE-2019-10063).
 * What the bundle or image loads on top can only tighten this: filters compose.
 * Compared with Docker's default profile this one also forbids io_uring, TIOCSTI and TIOCLINUX, AF_ALG, and the
 * multiplexed socketcall(2) of 32-bit programs, which would hide the address family.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/seccomp.h"
#include "runtime/seccomp_own.h"

enum { ALWAYS = -1, NEVER = -2 }; /* else the number of a capability */

/* clang-format off */
static const struct {
    int cap;
    const char *names;
} groups[] = {
    /* files and directories */
    {ALWAYS, "access creat chdir chmod chown chown32 close close_range copy_file_range dup dup2 dup3 faccessat "
             "faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchown fchown32 "
             "fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 "
             "fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 "
             "getxattr lchown lchown32 lgetxattr link linkat listxattr llistxattr _llseek lremovexattr lseek "
             "lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 "
             "pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr "
             "rename renameat renameat2 rmdir sendfile sendfile64 setxattr splice stat stat64 statfs statfs64 statx "
             "symlink symlinkat sync sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate "
             "truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev"},
    /* waiting for descriptors, signals and time */
    {ALWAYS, "alarm clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep "
             "clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex epoll_create epoll_create1 epoll_ctl "
             "epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark "
             "getitimer gettimeofday inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel "
             "io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit nanosleep _newselect "
             "pause pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 rt_sigaction rt_sigpending "
             "rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 "
             "rt_tgsigqueueinfo select setitimer sigaltstack signalfd signalfd4 sigprocmask sigreturn time "
             "timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime "
             "timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 "
             "times"},
    /* processes, identities, scheduling */
    {ALWAYS, "capget capset clone execve execveat exit exit_group fork vfork getcpu getegid getegid32 geteuid "
             "geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid "
             "getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid get_thread_area gettid "
             "getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset "
             "landlock_restrict_self membarrier personality pidfd_open pidfd_send_signal prctl prlimit64 "
             "process_mrelease restart_syscall rseq sched_getaffinity sched_getattr sched_getparam "
             "sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval "
             "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler "
             "sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 "
             "setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid "
             "setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sysinfo "
             "tgkill tkill ugetrlimit uname wait4 waitid waitpid arch_prctl modify_ldt set_tls breakpoint "
             "cacheflush riscv_flush_icache"},
    /* tracing one's own processes: the kernel's checks and the pid namespace are the wall (Linux 4.8 and newer) */
    {ALWAYS, "ptrace process_vm_readv process_vm_writev"},
    /* memory */
    {ALWAYS, "brk futex futex_time64 futex_waitv getrandom madvise memfd_create memfd_secret mincore mlock mlock2 "
             "mlockall mmap mmap2 mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
             "remap_file_pages"},
    /* talking to each other; socket families and ioctls are looked at in the prologue */
    {ALWAYS, "accept accept4 bind connect getpeername getsockname getsockopt ioctl ipc listen mq_getsetattr mq_notify "
             "mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget "
             "msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop "
             "semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socket "
             "socketpair"},

    {CAP_DAC_READ_SEARCH, "open_by_handle_at"},
    {CAP_SYS_ADMIN, "fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree "
                    "quotactl quotactl_fd setdomainname sethostname setns umount umount2 unshare"},
    {CAP_BPF, "bpf"},
    {CAP_PERFMON, "perf_event_open"},
    {CAP_SYS_BOOT, "reboot"},
    {CAP_SYS_CHROOT, "chroot"},
    {CAP_SYS_MODULE, "delete_module init_module finit_module"},
    {CAP_SYS_PACCT, "acct"},
    {CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise"},
    {CAP_SYS_RAWIO, "iopl ioperm"},
    {CAP_SYS_TIME, "settimeofday stime clock_settime clock_settime64"},
    {CAP_SYS_TTY_CONFIG, "vhangup"},
    {CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages"},
    {CAP_SYSLOG, "syslog"},

    /* whatever the capabilities: the kernel's biggest doors, and what no program in a container has use for */
    {NEVER, "add_key keyctl request_key userfaultfd io_uring_setup io_uring_enter io_uring_register kexec_load "
            "kexec_file_load pivot_root swapon swapoff nfsservctl _sysctl uselib ustat sysfs vm86 vm86old "
            "create_module query_module get_kernel_syms"},
};
/* clang-format on */

#define NAMESPACE_FLAGS                                                                           \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
     CLONE_NEWNET)

static bool multiplexes_sockets(uint32_t arch)
{
    return arch == SCMP_ARCH_X86 || arch == SCMP_ARCH_S390 || arch == SCMP_ARCH_S390X;
}

/* The number on that architecture; negative when it has none. Where socketcall(2) is, libseccomp answers with numbers
 * of its own for the direct calls, which came with Linux 4.3 under the same numbers everywhere. */
static int number_of(const char *name, uint32_t arch)
{
    if (multiplexes_sockets(arch)) {
        if (str_eq(name, "socketcall"))
            return 102;
        if (str_eq(name, "socket"))
            return 359;
        if (str_eq(name, "socketpair"))
            return 360;
    }
    return seccomp_syscall_resolve_name_arch(arch, name);
}

static bool has_cap(uint64_t caps, int cap)
{
    return caps >> cap & 1;
}

static int add_group(scmp_filter_ctx ctx, const char *names, uint32_t action, struct err *e)
{
    AUTO(str_list) struct str_list l = {0};

    str_list_split(&l, names, ' ');
    for (size_t i = 0; i < l.n; i++) {
        int nr = seccomp_syscall_resolve_name(l.items[i]);

        if (nr == __NR_SCMP_ERROR)
            continue; /* of another architecture, or newer than the library */
        int rc = seccomp_rule_add(ctx, action, nr, 0);

        if (rc < 0 && rc != -EDOM)
            return err_sysno(e, -rc, "seccomp: rule for %s", l.items[i]);
    }
    return 0;
}

/* --- the prologue: tests of arguments -------------------------------------------------------------------- */

enum {
    OFF_NR = offsetof(struct seccomp_data, nr),
    ERRNO_EPERM = SECCOMP_RET_ERRNO | EPERM,
    ERRNO_ENOSYS = SECCOMP_RET_ERRNO | ENOSYS
};

static uint32_t offset_of_arg(unsigned i)
{
    size_t low = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 4;

    return (uint32_t)(offsetof(struct seccomp_data, args) + i * 8 + low);
}

/* if nr == call and (arg & 0xffffffff) is one of the values (deny_others: is none of them): EPERM. The number is
 * in the accumulator before and, when nothing matched, after. */
static void test_values(struct seccomp_prologue *p, int nr, unsigned arg, const uint32_t *values,
                        size_t n, bool deny_others)
{
    if (nr < 0)
        return;
    /* over the load, the n tests, the answer and the load that restores the number */
    ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(n + 3), (uint32_t)nr);
    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, offset_of_arg(arg));
    for (size_t i = 0; i < n; i++) {
        uint8_t left = (uint8_t)(n - i - 1);

        /* deny_others: a hit jumps over the RET; else a hit lands on it and the last miss jumps over it */
        if (deny_others)
            ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(left + 1), 0,
                                     values[i]);
        else
            ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, left, i + 1 == n ? 1 : 0,
                                     values[i]);
    }
    ctr_seccomp_prologue_add(p, BPF_RET | BPF_K, 0, 0, ERRNO_EPERM);
    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, OFF_NR);
}

static void test_bits(struct seccomp_prologue *p, int nr, unsigned arg, uint32_t bits)
{
    if (nr < 0)
        return;
    ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 4, (uint32_t)nr);
    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, offset_of_arg(arg));
    ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JSET | BPF_K, 0, 1, bits);
    ctr_seccomp_prologue_add(p, BPF_RET | BPF_K, 0, 0, ERRNO_EPERM);
    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, OFF_NR);
}

static void add_arch_tests(struct seccomp_prologue *p, uint32_t arch, uint64_t caps)
{
    static const uint32_t terminal[] = {TIOCSTI, TIOCLINUX};
    static const uint32_t families[] = {AF_ALG, AF_VSOCK};
    /* Linux, Linux with 32 bits, UNAME26 with both, and the question for the current one */
    static const uint32_t personalities[] = {0, 8, 0x20000, 0x20008, 0xffffffff};
    size_t begin = ctr_seccomp_prologue_begin(p, arch);
    /* s390 has the flags second */
    unsigned clone_flags = arch == SCMP_ARCH_S390X || arch == SCMP_ARCH_S390 ? 1 : 0;

    ctr_seccomp_prologue_add(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, OFF_NR);
    if (arch == SCMP_ARCH_X86_64) { /* x32: bit 30 of the number */
        ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000);
        ctr_seccomp_prologue_add(p, BPF_RET | BPF_K, 0, 0, ERRNO_ENOSYS);
    }
    if (multiplexes_sockets(arch)) { /* libseccomp allows it for the calls above */
        ctr_seccomp_prologue_add(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1,
                                 (uint32_t)number_of("socketcall", arch));
        ctr_seccomp_prologue_add(p, BPF_RET | BPF_K, 0, 0, ERRNO_ENOSYS);
    }
    test_values(p, number_of("ioctl", arch), 1, terminal, ARRAY_SIZE(terminal), false);
    test_values(p, number_of("socket", arch), 0, families, ARRAY_SIZE(families), false);
    test_values(p, number_of("socketpair", arch), 0, families, ARRAY_SIZE(families), false);
    test_values(p, number_of("personality", arch), 0, personalities, ARRAY_SIZE(personalities),
                true);
    if (!has_cap(caps, CAP_SYS_ADMIN))
        test_bits(p, number_of("clone", arch), clone_flags, NAMESPACE_FLAGS);
    ctr_seccomp_prologue_end(p, begin);
}

/* --- together ------------------------------------------------------------------------------------------------ */

/* The second architecture this kernel may run programs of; 0: none. */
static uint32_t second_arch(void)
{
    switch (seccomp_arch_native()) {
    case SCMP_ARCH_X86_64: return SCMP_ARCH_X86;
    case SCMP_ARCH_AARCH64: return SCMP_ARCH_ARM;
    case SCMP_ARCH_S390X: return SCMP_ARCH_S390;
    default: return 0;
    }
}

static int setup(scmp_filter_ctx ctx, struct err *e)
{
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));

    if (rc == 0)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (rc == 0 && second_arch())
        rc = seccomp_arch_add(ctx, second_arch());
    return rc < 0 ? err_sysno(e, -rc, "seccomp: set up the filter") : 0;
}

int ctr_seccomp_compile_default(uint64_t bounding_caps, struct ctr_seccomp *ret, struct err *e)
{
    AUTO(scmp) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    struct sock_filter room[SECCOMP_PROLOGUE_MAX];
    struct seccomp_prologue p = {.insns = room};

    if (!ctx)
        return err_set(e, ERR_HOST, "seccomp: libseccomp cannot make a filter");
    if (setup(ctx, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        bool allow = groups[i].cap == ALWAYS ||
                     (groups[i].cap != NEVER && has_cap(bounding_caps, groups[i].cap)) ||
                     /* before CAP_BPF and CAP_PERFMON there was CAP_SYS_ADMIN */
                     ((groups[i].cap == CAP_BPF || groups[i].cap == CAP_PERFMON) &&
                      has_cap(bounding_caps, CAP_SYS_ADMIN));

        if (add_group(ctx, groups[i].names, allow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM), e) < 0)
            return -1;
    }
    add_arch_tests(&p, seccomp_arch_native(), bounding_caps);
    if (second_arch())
        add_arch_tests(&p, second_arch(), bounding_caps);
    ret->flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    return ctr_seccomp_export(ctx, &p, ret, e);
}
