/*
 * In this order: descriptors and root while it still has the right to, then capabilities, then the filter, which
 * forbids all of these. The calls a filter lets through cannot be told apart by path, so the directory is made the
 * root: an absolute name or ".." ends there, whatever a mistake of ours would make of it.
 */
#include "base/confine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>

#include "base/cleanup.h"
#include "base/late_crypto.h"

/* ---- descriptors, root ---- */

/* Close what is from..to, if that is anything. */
static bool close_from_to(int from, unsigned to)
{
    return (unsigned)from > to || syscall(SYS_close_range, from, to, 0) == 0;
}

static unsigned own_files(int dirfd, int other)
{
    int low = dirfd < other || other < 0 ? dirfd : other, high = dirfd > other ? dirfd : other;
    bool done = unshare(CLONE_FILES) == 0 && close_from_to(3, (unsigned)low - 1) &&
                close_from_to(low + 1, (unsigned)high - 1) && close_from_to(high + 1, ~0U);

    return done ? CONFINE_FILES : 0;
}

static unsigned own_root(int dirfd)
{
    return unshare(CLONE_FS) == 0 && fchdir(dirfd) == 0 && chroot(".") == 0 ? CONFINE_ROOT : 0;
}

/* ---- capabilities ---- */

static unsigned drop_capabilities(void)
{
    /* SYS_ADMIN only for trusted.* attributes (overlayfs' opaque mark): the filter takes its other uses away. */
    static const unsigned kept[] = {CAP_CHOWN,   CAP_DAC_OVERRIDE, CAP_FOWNER,   CAP_FSETID,
                                    CAP_SETFCAP, CAP_MKNOD,        CAP_SYS_ADMIN};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    uint32_t mask = 0;

    if (syscall(SYS_capget, &head, data) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        mask |= 1U << kept[i];
    data[0].effective = data[0].permitted &= mask;
    data[1].effective = data[1].permitted = 0;
    data[0].inheritable = data[1].inheritable = 0;
    return syscall(SYS_capset, &head, data) < 0 ? 0 : CONFINE_CAPS;
}

/* ---- Landlock ---- */

static unsigned landlock(int dirfd)
{
    enum { ABI_LINKS = 2 }; /* below, no link could be made between directories */
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    /* All that ABI 2 knows: execute to make-sym, and refer. */
    const struct landlock_ruleset_attr all = {
        .handled_access_fs = ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) | LANDLOCK_ACCESS_FS_REFER};
    struct landlock_path_beneath_attr here = {
        .allowed_access = all.handled_access_fs & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE,
        .parent_fd = dirfd};

    if (abi < ABI_LINKS)
        return 0;
    AUTO_CLOSE int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

    if (rules < 0 ||
        syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &here, 0) < 0)
        return 0;
    return syscall(SYS_landlock_restrict_self, rules, 0) < 0 ? 0 : CONFINE_LANDLOCK;
}

/* ---- system calls ---- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH
static const uint16_t allowed[] = {
    /* files */
    SYS_read,
    SYS_write,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_lseek,
    SYS_close,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_openat,
    SYS_openat2,
    SYS_ftruncate,
    SYS_sync_file_range,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_mkdirat,
    SYS_mknodat,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_readlinkat,
    SYS_fsetxattr,
    SYS_fgetxattr,
    SYS_getdents64,
    SYS_fcntl,
    /* memory; mmap and mprotect are looked at more closely */
    SYS_munmap,
    SYS_mremap,
    SYS_brk,
    SYS_madvise,
    /* waiting, time, the end of a thread */
    SYS_futex,
    SYS_sched_yield,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_ppoll,
    SYS_restart_syscall,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_exit,
    SYS_exit_group,
    SYS_gettid,
    SYS_getpid,
    SYS_tgkill,
    SYS_geteuid,
    SYS_getegid,
    SYS_getrandom,
    SYS_sched_getaffinity,
#ifdef SYS_poll
    SYS_poll,
#endif
};

enum { N_ALLOWED = ARRAY_SIZE(allowed), HEAD = 4, TAIL = 8, PROGRAM = HEAD + N_ALLOWED + TAIL };
#define DATA(member) ((uint32_t)offsetof(struct seccomp_data, member))
#define REFUSE       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define ALLOW        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static unsigned filter_calls(void)
{
    /* The protection is in the lower half of the third argument on both machines. */
    static const struct sock_filter head[HEAD] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(arch)),
                                                  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
                                                  REFUSE,
                                                  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr))},
                                    tail[TAIL] = {
                                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
                                        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
                                        REFUSE,
                                        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(args[2])),
                                        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
                                        REFUSE,
                                        ALLOW,
                                        ALLOW};
    struct sock_filter code[PROGRAM];
    size_t n = 0;

    for (size_t i = 0; i < HEAD; i++)
        code[n++] = head[i];
    /* A jump reaches 255 instructions: the last one of the tail is near enough for all. */
    for (size_t i = 0; i < N_ALLOWED; i++)
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i],
                                                 (uint8_t)(N_ALLOWED - i - 1 + TAIL - 1), 0);
    for (size_t i = 0; i < TAIL; i++)
        code[n++] = tail[i];
    const struct sock_fprog program = {.len = PROGRAM, .filter = code};

    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? 0 : CONFINE_CALLS;
}
#else
static unsigned filter_calls(void)
{
    return 0;
}
#endif

/* ---- doors ---- */

unsigned confine_thread(int dirfd, int other)
{
    /* Sums are added up behind the walls, and nothing can be loaded there. */
    (void)late_crypto();
    unsigned walls = own_files(dirfd, other);

    walls |= own_root(dirfd);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        walls |= landlock(dirfd);
    walls |= drop_capabilities();
    return walls | filter_calls();
}

struct trial {
    int dirfd;
    unsigned walls;
};

static void *try_it(void *arg)
{
    struct trial *t = arg;

    t->walls = confine_thread(t->dirfd, -1);
    return NULL;
}

unsigned confine_try(int dirfd)
{
    struct trial t = {.dirfd = dirfd};
    pthread_t thread;

    if (pthread_create(&thread, NULL, try_it, &t) == 0)
        pthread_join(thread, NULL);
    return t.walls;
}
