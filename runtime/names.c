#include "runtime/names.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <linux/capability.h>
#include <linux/mount.h>

#include "base/err.h"
#include "base/str.h"
#include "base/units.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

int name_lookup(const struct name_value *table, const char *name, uint64_t *ret)
{
    for (; table->name; table++) {
        if (strcmp(table->name, name) == 0) {
            *ret = table->value;
            return 0;
        }
    }
    return -1;
}

const char *name_of(const struct name_value *table, uint64_t value)
{
    for (; table->name; table++)
        if (table->value == value)
            return table->name;
    return NULL;
}

/* clang-format off */
const struct name_value ctr_names_namespaces[] = {
    {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"network", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME},
    {0},
};

#define CAP(name) {#name, name}
const struct name_value ctr_names_capabilities[] = {
    CAP(CAP_CHOWN), CAP(CAP_DAC_OVERRIDE), CAP(CAP_DAC_READ_SEARCH), CAP(CAP_FOWNER), CAP(CAP_FSETID),
    CAP(CAP_KILL), CAP(CAP_SETGID), CAP(CAP_SETUID), CAP(CAP_SETPCAP), CAP(CAP_LINUX_IMMUTABLE),
    CAP(CAP_NET_BIND_SERVICE), CAP(CAP_NET_BROADCAST), CAP(CAP_NET_ADMIN), CAP(CAP_NET_RAW),
    CAP(CAP_IPC_LOCK), CAP(CAP_IPC_OWNER), CAP(CAP_SYS_MODULE), CAP(CAP_SYS_RAWIO), CAP(CAP_SYS_CHROOT),
    CAP(CAP_SYS_PTRACE), CAP(CAP_SYS_PACCT), CAP(CAP_SYS_ADMIN), CAP(CAP_SYS_BOOT), CAP(CAP_SYS_NICE),
    CAP(CAP_SYS_RESOURCE), CAP(CAP_SYS_TIME), CAP(CAP_SYS_TTY_CONFIG), CAP(CAP_MKNOD), CAP(CAP_LEASE),
    CAP(CAP_AUDIT_WRITE), CAP(CAP_AUDIT_CONTROL), CAP(CAP_SETFCAP), CAP(CAP_MAC_OVERRIDE),
    CAP(CAP_MAC_ADMIN), CAP(CAP_SYSLOG), CAP(CAP_WAKE_ALARM), CAP(CAP_BLOCK_SUSPEND), CAP(CAP_AUDIT_READ),
    CAP(CAP_PERFMON), CAP(CAP_BPF), CAP(CAP_CHECKPOINT_RESTORE),
    {0},
};

#define RLIM(name) {#name, name}
const struct name_value ctr_names_rlimits[] = {
    RLIM(RLIMIT_CPU), RLIM(RLIMIT_FSIZE), RLIM(RLIMIT_DATA), RLIM(RLIMIT_STACK), RLIM(RLIMIT_CORE),
    RLIM(RLIMIT_RSS), RLIM(RLIMIT_NPROC), RLIM(RLIMIT_NOFILE), RLIM(RLIMIT_MEMLOCK), RLIM(RLIMIT_AS),
    RLIM(RLIMIT_LOCKS), RLIM(RLIMIT_SIGPENDING), RLIM(RLIMIT_MSGQUEUE), RLIM(RLIMIT_NICE),
    RLIM(RLIMIT_RTPRIO), RLIM(RLIMIT_RTTIME),
    {0},
};

const struct name_value ctr_names_propagation[] = {
    {"private", MS_PRIVATE}, {"rprivate", MS_PRIVATE | MS_REC}, {"slave", MS_SLAVE},
    {"rslave", MS_SLAVE | MS_REC}, {"shared", MS_SHARED}, {"rshared", MS_SHARED | MS_REC},
    {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC},
    {0},
};

const struct name_value ctr_names_personality[] = {{"LINUX", 0x0000}, {"LINUX32", 0x0008}, {0}};

const struct name_value ctr_names_io_classes[] = {
    {"IOPRIO_CLASS_RT", 1}, {"IOPRIO_CLASS_BE", 2}, {"IOPRIO_CLASS_IDLE", 3}, {0},
};

const struct name_value ctr_names_schedulers[] = {
    {"SCHED_OTHER", 0}, {"SCHED_FIFO", 1}, {"SCHED_RR", 2}, {"SCHED_BATCH", 3}, {"SCHED_ISO", 4},
    {"SCHED_IDLE", 5}, {"SCHED_DEADLINE", 6},
    {0},
};

const struct name_value ctr_names_sched_flags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", 0x01}, {"SCHED_FLAG_RECLAIM", 0x02}, {"SCHED_FLAG_DL_OVERRUN", 0x04},
    {"SCHED_FLAG_KEEP_POLICY", 0x08}, {"SCHED_FLAG_KEEP_PARAMS", 0x10},
    {"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20}, {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40},
    {0},
};

const struct name_value ctr_names_mem_policies[] = {
    {"MPOL_DEFAULT", 0}, {"MPOL_PREFERRED", 1}, {"MPOL_BIND", 2}, {"MPOL_INTERLEAVE", 3}, {"MPOL_LOCAL", 4},
    {"MPOL_PREFERRED_MANY", 5}, {"MPOL_WEIGHTED_INTERLEAVE", 6},
    {0},
};

const struct name_value ctr_names_mem_policy_flags[] = {
    {"MPOL_F_STATIC_NODES", 1 << 15}, {"MPOL_F_RELATIVE_NODES", 1 << 14}, {"MPOL_F_NUMA_BALANCING", 1 << 13},
    {0},
};

const char *const ctr_names_hooks[] = {
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", NULL,
};

#define ATTR(name, set, clear) {name, MOUNT_OPT_ATTR, set, clear}, {"r" name, MOUNT_OPT_ATTR_REC, set, clear}
#define PROP(name, flag) {name, MOUNT_OPT_PROPAGATION, flag, 0}, {"r" name, MOUNT_OPT_PROPAGATION, (flag) | MS_REC, 0}
#define SUPER(name) {name, MOUNT_OPT_SUPER, 0, 0}
#define NONE(name) {name, MOUNT_OPT_NONE, 0, 0}
const struct mount_option ctr_names_mount_options[] = {
    ATTR("ro", MOUNT_ATTR_RDONLY, 0), ATTR("rw", 0, MOUNT_ATTR_RDONLY),
    ATTR("nosuid", MOUNT_ATTR_NOSUID, 0), ATTR("suid", 0, MOUNT_ATTR_NOSUID),
    ATTR("nodev", MOUNT_ATTR_NODEV, 0), ATTR("dev", 0, MOUNT_ATTR_NODEV),
    ATTR("noexec", MOUNT_ATTR_NOEXEC, 0), ATTR("exec", 0, MOUNT_ATTR_NOEXEC),
    ATTR("nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0), ATTR("symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW),
    ATTR("nodiratime", MOUNT_ATTR_NODIRATIME, 0), ATTR("diratime", 0, MOUNT_ATTR_NODIRATIME),
    /* the access-time settings are one field of three values */
    ATTR("noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME), ATTR("atime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    ATTR("relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    ATTR("norelatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    ATTR("strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME),
    ATTR("nostrictatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME),
    PROP("private", MS_PRIVATE), PROP("slave", MS_SLAVE), PROP("shared", MS_SHARED), PROP("unbindable", MS_UNBINDABLE),
    {"bind", MOUNT_OPT_BIND, 0, 0}, {"rbind", MOUNT_OPT_BIND, 1, 0},
    {"idmap", MOUNT_OPT_IDMAP, 0, 0}, {"ridmap", MOUNT_OPT_IDMAP, 1, 0},
    {"x-cworker.owner", MOUNT_OPT_OWNER, 0, 0},
    {"tmpcopyup", MOUNT_OPT_COPY_UP, 0, 0},
    SUPER("sync"), SUPER("async"), SUPER("dirsync"), SUPER("lazytime"), SUPER("nolazytime"), SUPER("mand"), SUPER("nomand"),
    NONE("defaults"), NONE("silent"), NONE("loud"), NONE("iversion"), NONE("noiversion"), NONE("acl"),
    {"remount", MOUNT_OPT_REMOUNT, 0, 0},
    {0},
};

static const struct name_value signals[] = {
    {"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"ILL", SIGILL}, {"TRAP", SIGTRAP}, {"ABRT", SIGABRT},
    {"IOT", SIGIOT}, {"BUS", SIGBUS}, {"FPE", SIGFPE}, {"KILL", SIGKILL}, {"USR1", SIGUSR1}, {"SEGV", SIGSEGV},
    {"USR2", SIGUSR2}, {"PIPE", SIGPIPE}, {"ALRM", SIGALRM}, {"TERM", SIGTERM}, {"STKFLT", SIGSTKFLT},
    {"CHLD", SIGCHLD}, {"CLD", SIGCHLD}, {"CONT", SIGCONT}, {"STOP", SIGSTOP}, {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN},
    {"TTOU", SIGTTOU}, {"URG", SIGURG}, {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ}, {"VTALRM", SIGVTALRM},
    {"PROF", SIGPROF}, {"WINCH", SIGWINCH}, {"IO", SIGIO}, {"POLL", SIGIO}, {"PWR", SIGPWR}, {"SYS", SIGSYS},
    {0},
};
/* clang-format on */

const struct mount_option *ctr_names_mount_option(const char *name)
{
    for (const struct mount_option *o = ctr_names_mount_options; o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

/* The kernel's own numbers (34 and 64), not libc's, which keeps two for itself. */
enum { SIGNAL_MAX = 64, SIGNAL_RTMIN = 34 };

int ctr_names_signal(const char *text, int *ret, struct err *e)
{
    char shown[STR_SHOW_MAX];
    const char *p = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    struct err ignored = ERR_INIT;
    uint64_t n;

    if (units_u64(text, SIGNAL_MAX, &n, &ignored) == 0) {
        *ret = (int)n;
        return 0;
    }
    for (const struct name_value *s = signals; s->name; s++) {
        if (strcasecmp(s->name, p) == 0) {
            *ret = (int)s->value;
            return 0;
        }
    }
    if (strncasecmp(p, "RTMIN", 5) == 0 && (!p[5] || p[5] == '+') &&
        (!p[5] || units_u64(p + 6, SIGNAL_MAX - SIGNAL_RTMIN, &n, &ignored) == 0)) {
        *ret = SIGNAL_RTMIN + (p[5] ? (int)n : 0);
        return 0;
    }
    if (strncasecmp(p, "RTMAX", 5) == 0 && (!p[5] || p[5] == '-') &&
        (!p[5] || units_u64(p + 6, SIGNAL_MAX - SIGNAL_RTMIN, &n, &ignored) == 0)) {
        *ret = SIGNAL_MAX - (p[5] ? (int)n : 0);
        return 0;
    }
    return err_set(e, ERR_USER, "unknown signal '%s'", str_show(shown, text));
}
