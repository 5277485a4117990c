#pragma once
/*
 * plan.h - a container as a flat list of operations for the child: nothing left to parse or allocate.
 *
 *   ctr_spec ── plan_build (pure) ──► operations + slots ── sources_open (parent, privileged) ──► descriptors
 *            ── launch (clone3) ──► child_run walks the operations
 *
 * An operation's `a` and `b` are offsets into the plan's bytes (texts) or plain numbers; `fd` is the number of a
 * slot: a descriptor that the parent opens before clone3 (a detached mount of a bind source, say) or that an
 * earlier operation of the child fills (a new file system). plan_text prints all of it; the golden files under
 * tests/fixtures/plans hold the plans of typical specs.
 * Threads: any, one at a time. Ownership: launch_plan_free; the spec must outlive the plan.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct ctr_spec;
struct ctr_seccomp;
struct ctr_user;

enum launch_op_kind {
    OP_WAIT_MAPS,  /* wait until the parent wrote the id maps, then be id 0 of the user namespace */
    OP_UNDUMPABLE, /* nobody traces us or reads /proc/<us>/ (S32, S47) */
    OP_NEW_SESSION,
    OP_NEW_CGROUP_NS,  /* here, as clone3 would take the parent's group for its root */
    OP_PRIVATE_MOUNTS, /* nothing we mount is seen outside (S37) */
    OP_NEW_FS,         /* fd: slot to fill; a: "type\0key\0value\0…\0"; b: MOUNT_ATTR_* */
    OP_LO_UP,
    OP_HOSTNAME,    /* a */
    OP_DOMAINNAME,  /* a */
    OP_HOOKS,       /* let the parent run the hooks that come before pivot_root */
    OP_ENTER_ROOT,  /* fd: the root's detached mount; pivot_root, the host's tree is gone */
    OP_CHROOT,      /* fd: the same; a: path to lay it on; without a mount namespace of its own */
    OP_MAKE_DIR,    /* a: made when missing, while the root can be written */
    OP_ATTACH,      /* fd → a (path inside); made when missing, S34 */
    OP_COPY_UP,     /* fd (tmpfs, not attached yet) gets the contents of directory a */
    OP_MKNOD,       /* a: path; b: struct plan_node */
    OP_SYMLINK,     /* a: path; b: target */
    OP_SYSCTL,      /* fd: a proc of ours; a: path below sys/; b: value */
    OP_MASK,        /* a; fd: slot of /dev/null, which hides files; S36 */
    OP_READONLY,    /* a */
    OP_SETATTR,     /* a: path of a mount; b: MOUNT_ATTR_* to set */
    OP_REMOUNT,     /* a: path of a mount; b: struct plan_remount */
    OP_PROPAGATION, /* b: MS_* of the root */
    OP_KEYRING,     /* a session keyring of its own */
    OP_CHDIR,       /* a; made when missing, proven to be inside (S33) */
    OP_FORK_INIT,   /* go on in a child; process 1 reaps and forwards signals */
    OP_OPEN_DEVPTS, /* fd: slot to fill with the /dev/pts that is there, proven to be a devpts */
    OP_CONSOLE,     /* fd: devpts; a: path for the console's node or ""; b: rows << 16 | columns */
    OP_OOM_SCORE,   /* fd: proc; a: text */
    OP_PERSONALITY, /* b */
    OP_RLIMIT,      /* a: resource; b: struct plan_rlimit */
    OP_SCHEDULER,   /* b: struct sched_attr */
    OP_IO_PRIORITY, /* b */
    OP_AFFINITY,    /* a: bytes; b: mask */
    OP_MEM_POLICY,  /* a: mode; b: struct cpu_set of nodes */
    OP_UMASK,       /* b */
    OP_EXEC_LABEL,  /* fd: proc; a: file below thread-self/attr/; b: text */
    OP_BOUNDING,    /* b: struct plan_caps */
    OP_KEEP_CAPS,
    OP_GROUPS, /* a: count; b: gids */
    OP_GID,    /* b */
    OP_UID,    /* b */
    OP_CAPS,   /* b: struct plan_caps: effective, permitted, inheritable, ambient */
    OP_NO_NEW_PRIVS,
    OP_SECCOMP, /* load the plan's filter; a: as a privilege, CAP_SYS_ADMIN is taken up first */
    OP_FIND,    /* a: "candidate\0candidate\0…\0": which of them can be executed? */
    OP_CLOSE,   /* b: first descriptor that shall not be inherited */
    OP_SIGNALS, /* default dispositions, empty mask */
    OP_READY,   /* tell the parent: created */
    OP_WAIT_START,
    OP_EXEC,
    OP_N,
};

struct launch_op {
    uint16_t kind, flags;
    int fd;
    uint32_t a, b;
};

/* Flags. */
enum {
    OPF_NO_LINKS = 1, /* OP_ATTACH: no link on the way (/proc, /sys, /dev) */
    OPF_OPTIONAL = 2, /* what is missing is passed over */
};

struct plan_node {
    uint32_t mode, major, minor, uid, gid;
};
struct plan_remount {
    uint64_t set, clear, rec_set, rec_clear, propagation;
    uint32_t data; /* "key\0value\0…\0" for the file system; 0: none */
};
struct plan_rlimit {
    uint64_t soft, hard;
};
struct plan_caps {
    uint64_t bounding, effective, permitted, inheritable, ambient;
};

enum slot_kind {
    SLOT_ROOT,   /* the root, detached */
    SLOT_BIND,   /* a clone of source (file or tree) */
    SLOT_NODE,   /* a device node that the container's user namespace could not make */
    SLOT_CGROUP, /* a clone of the container's own cgroup directory */
    SLOT_FS,     /* filled by the child */
};
enum slot_idmap {
    SLOT_MAP_NONE,
    SLOT_MAP_CONTAINER, /* the container's own maps */
    SLOT_MAP_OWNER,     /* the source's owner appears as the process's user */
    SLOT_MAP_MOUNT,     /* the mount's own uidMappings, gidMappings */
};
struct launch_slot {
    enum slot_kind kind;
    enum slot_idmap idmap;
    bool recursive, idmap_recursive, optional;
    uint32_t source;             /* text; 0: none */
    uint64_t set, clear;         /* MOUNT_ATTR_* of the mount */
    uint64_t rec_set, rec_clear; /* of the whole tree */
    uint64_t propagation;        /* MS_* */
    size_t mount;                /* index in spec->mounts, for SLOT_MAP_MOUNT and messages */
    char dev_type;
    uint32_t major, minor;
    uint32_t mode, uid, gid; /* of a node; ids inside */
};

struct launch_plan {
    struct launch_op *ops;
    size_t n_ops;
    char *data;
    size_t n_data;
    struct launch_slot *slots;
    size_t n_slots;
    int *fds;                /* of the slots; -1 until opened */
    uint64_t new_namespaces; /* CLONE_NEW* for clone3 */
    struct str_list args, env;
    const struct ctr_seccomp *seccomp; /* borrowed; NULL: none */
    bool entered; /* the child is inside already: exec into a running container */
    uint64_t arg_start,
        arg_end;   /* where our command line lies in memory, for an init to wipe (S50) */
    int report_fd; /* messages to the parent; set by launch */
    int parent_fd; /* its end, which the child must not hold: it would never see the parent's death; -1 */
    int start_fd;   /* listening socket or the report channel; set by launch */
    int console_fd; /* socket for the console; -1 */
};

struct plan_input {
    const struct ctr_user *user;
    const struct ctr_seccomp *seccomp; /* may be NULL */
    bool user_namespace;               /* false although the spec asks: could not be had */
    bool hooks;                        /* hooks run before pivot_root */
    bool selinux;                      /* the host has it: linux.mountLabel means something */
    unsigned preserve_fds;
    const char *root_path; /* of the root on the host; used when there is no mount namespace */
};

/* Pure. ERR_USER naming the field that cannot be done. */
int plan_build(const struct ctr_spec *s, const struct plan_input *in, struct launch_plan **ret,
               struct err *e) MUST_CHECK;
void launch_plan_free(struct launch_plan *p);
DEFINE_AUTO(launch_plan, launch_plan_free)

/* plan_text.c: the plan for people and golden files; new string. */
char *plan_text(const struct launch_plan *p);
/* "attach", for messages. */
const char *plan_op_name(unsigned kind);

/* For the files that build parts of a plan. */
uint32_t plan_add_text(struct launch_plan *p, const char *text);
uint32_t plan_add_data(struct launch_plan *p, const void *data, size_t n);
struct launch_op *plan_add_op(struct launch_plan *p, enum launch_op_kind kind, int fd, uint32_t a,
                              uint32_t b);
/* The new slot's number; *slot is copied. */
int plan_add_slot(struct launch_plan *p, const struct launch_slot *slot);

/* plan_process.c: process attributes from OP_CHDIR on; also used by exec into a running container. */
int plan_add_process(struct launch_plan *p, const struct ctr_spec *s, const struct plan_input *in,
                     int proc_slot, int devpts_slot, struct err *e) MUST_CHECK;
