/*
 * Each check tries the thing itself where that leaves no trace (a program is loaded and dropped, a namespace is made by a
 * child that ends at once); version numbers are only read where trying would change the host.
 */
#include "runtime/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <linux/sched.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/cgroup.h"

#define SAY(c, res, ...)                                     \
    do {                                                     \
        (c)->result = (res);                                 \
        snprintf((c)->text, sizeof((c)->text), __VA_ARGS__); \
    } while (0)

static bool kernel_at_least(unsigned major, unsigned minor)
{
    struct utsname u;
    unsigned have_major = 0, have_minor = 0;

    if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &have_major, &have_minor) != 2)
        return false;
    return have_major > major || (have_major == major && have_minor >= minor);
}

static void check_root(struct ctr_check *c)
{
    if (geteuid() == 0)
        SAY(c, CTR_CHECK_OK, "running as root");
    else
        SAY(c, CTR_CHECK_MISSING,
            "containers are made by root; run this with sudo for the other checks to mean something");
}

static void check_kernel(struct ctr_check *c)
{
    struct utsname u = {0};

    uname(&u);
    if (!kernel_at_least(5, 14))
        SAY(c, CTR_CHECK_MISSING, "%.60s is too old: 5.14 is needed (idmapped mounts, cgroup.kill)",
            u.release);
    else if (!kernel_at_least(5, 19))
        SAY(c, CTR_CHECK_WARN,
            "%.60s: from 5.19 on, overlay roots can have ids of their own and memory peaks are exact",
            u.release);
    else
        SAY(c, CTR_CHECK_OK, "%.60s", u.release);
}

static void check_capabilities(struct ctr_check *c)
{
    static const int wanted[] = {CAP_SYS_ADMIN,  CAP_SYS_RESOURCE, CAP_NET_ADMIN, CAP_MKNOD,
                                 CAP_SETUID,     CAP_SETGID,       CAP_CHOWN,     CAP_DAC_OVERRIDE,
                                 CAP_SYS_PTRACE, CAP_SETFCAP};
    struct str missing = STR_INIT(200);

    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        char *name = cap_to_name((cap_value_t)wanted[i]);

        if (prctl(PR_CAPBSET_READ, wanted[i], 0, 0, 0) != 1 &&
            str_appendf(&missing, " %s", name ? name : "?") < 0)
            missing.max = missing.len;
        cap_free(name);
    }
    if (!missing.len)
        SAY(c, CTR_CHECK_OK, "all that are needed");
    else if (str_eq(str_text(&missing), " cap_sys_resource"))
        SAY(c, CTR_CHECK_WARN,
            "cap_sys_resource is missing: limits of open files and locked memory cannot be raised for runs");
    else
        SAY(c, CTR_CHECK_MISSING, "this root lacks%s: is this itself a container?",
            str_text(&missing));
    str_free(&missing);
}

int ctr_doctor_cgroup(struct err *e)
{
    AUTO_FREE char *mount = NULL;
    char names[64];
    unsigned have = 0;

    /* Of the root: controllers are handed down as far as the runs' groups when these are made. A service's or a
     * session's own group has what its manager happened to hand down (systemd: no cpuset). */
    if (ctr_cgroup_mount_point(&mount, e) < 0 || ctr_cgroup_controllers("/", &have, e) < 0)
        return -1;
    unsigned missing = (CTR_CG_CPUSET | CTR_CG_MEMORY | CTR_CG_PIDS) & ~have;

    if (missing)
        return err_set(
            e, ERR_HOST,
            "cgroup v2 at %s has no %s controller here. Boot with the unified hierarchy "
            "(systemd.unified_cgroup_hierarchy=1, cgroup_no_v1=all), or delegate them (Delegate=yes); "
            "--cgroup=partial goes on without limits",
            mount, ctr_cgroup_controller_names(missing, names));
    return 0;
}

static void check_cgroup(struct ctr_check *c)
{
    struct err e = ERR_INIT;

    if (ctr_doctor_cgroup(&e) < 0)
        SAY(c, CTR_CHECK_MISSING, "%.250s", e.msg);
    else
        SAY(c, CTR_CHECK_OK, "cpuset, memory and pids can be limited");
}

/* Make a child in new namespaces that ends at once. */
static int try_namespaces(uint64_t flags)
{
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    int status;

    if (pid == 0)
        _exit(0);
    if (pid < 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}

static void check_namespaces(struct ctr_check *c)
{
    if (try_namespaces(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                       CLONE_NEWCGROUP) < 0)
        SAY(c, CTR_CHECK_MISSING, "cannot be made: %s", strerror(errno));
    else
        SAY(c, CTR_CHECK_OK, "mount, pid, network, ipc, uts and cgroup namespaces can be made");
}

static void check_userns(struct ctr_check *c)
{
    if (try_namespaces(CLONE_NEWUSER) < 0)
        SAY(c, CTR_CHECK_WARN,
            "cannot be made (%s): runs would be root in the host's user namespace; raise "
            "user.max_user_namespaces",
            strerror(errno));
    else
        SAY(c, CTR_CHECK_OK, "runs get user ids of their own");
}

static void check_overlay(struct ctr_check *c)
{
    AUTO(str) struct str s = STR_INIT(65536);
    struct err e = ERR_INIT;
    AUTO_CLOSE int fd = (int)syscall(SYS_fsopen, "overlay", 1 /* FSOPEN_CLOEXEC */);

    if (fd >= 0)
        SAY(c, CTR_CHECK_OK, "there");
    else if (fd_read_file_at(AT_FDCWD, "/proc/filesystems", &s, &e) == 0 &&
             strstr(str_text(&s), "overlay"))
        SAY(c, CTR_CHECK_MISSING, "there, but fsopen(2) is refused: %s", strerror(errno));
    else
        SAY(c, CTR_CHECK_MISSING, "not in this kernel: try `modprobe overlay`");
}

static void check_seccomp(struct ctr_check *c)
{
    if (access("/proc/sys/kernel/seccomp/actions_avail", F_OK) < 0)
        SAY(c, CTR_CHECK_MISSING, "this kernel has no seccomp filters: runs cannot be confined");
    else
        SAY(c, CTR_CHECK_OK, "filters can be installed");
}

/* Load "return 1" as a device program; nothing is attached. */
static void check_bpf(struct ctr_check *c)
{
    const struct bpf_insn program[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr = {0};

    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insn_cnt = ARRAY_SIZE(program);
    attr.insns = (uint64_t)(uintptr_t)program;
    attr.license = (uint64_t)(uintptr_t) "MIT";
    AUTO_CLOSE int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

    if (fd < 0)
        SAY(c, CTR_CHECK_MISSING, "no cgroup device programs (%s): runs could open any device",
            strerror(errno));
    else
        SAY(c, CTR_CHECK_OK, "device filters can be loaded");
}

static void check_openat2(struct ctr_check *c)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    AUTO_CLOSE int fd = (int)syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how));

    if (fd < 0)
        SAY(c, CTR_CHECK_MISSING, "openat2(2) is refused (%s): an outer seccomp filter?",
            strerror(errno));
    else
        SAY(c, CTR_CHECK_OK, "paths can be resolved inside a root");
}

static void check_forward(struct ctr_check *c)
{
    if (access("/proc/sys/net/ipv4/ip_forward", F_OK) < 0)
        SAY(c, CTR_CHECK_MISSING, "no IPv4 in this kernel");
    else if (access("/proc/sys/net/ipv6", F_OK) < 0)
        SAY(c, CTR_CHECK_WARN, "IPv4 only: this kernel has no IPv6");
    else
        SAY(c, CTR_CHECK_OK, "IPv4 and IPv6");
}

void ctr_doctor(struct ctr_check **ret, size_t *ret_n)
{
    static const struct {
        const char *name;
        void (*check)(struct ctr_check *c);
    } table[] = {
        {"root", check_root},
        {"kernel", check_kernel},
        {"capabilities", check_capabilities},
        {"cgroup v2 controllers", check_cgroup},
        {"namespaces", check_namespaces},
        {"user namespaces", check_userns},
        {"overlay file system", check_overlay},
        {"path resolution", check_openat2},
        {"seccomp", check_seccomp},
        {"device filter", check_bpf},
        {"network protocols", check_forward},
    };
    struct ctr_check *checks = mem_array(ARRAY_SIZE(table), sizeof(*checks));

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        checks[i].name = table[i].name;
        table[i].check(&checks[i]);
    }
    *ret = checks;
    *ret_n = ARRAY_SIZE(table);
}
