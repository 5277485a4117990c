#pragma once
/*
 * names.h - the words of config.json: one table each, for the parser and for `features`.
 *
 * Threads: any. Blocks: never.
 * Source: runtime-spec config-linux.md; capabilities(7), setrlimit(2), mount_setattr(2), signal(7).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;

struct name_value {
    const char *name; /* NULL ends a table */
    uint64_t value;
};

/* Value of a name, or -1 without one. Names are compared as they are. */
int name_lookup(const struct name_value *table, const char *name, uint64_t *ret) MUST_CHECK;
/* First name of a value, or NULL. */
const char *name_of(const struct name_value *table, uint64_t value);

extern const struct name_value ctr_names_namespaces[];   /* "pid" → CLONE_NEWPID */
extern const struct name_value ctr_names_capabilities[]; /* "CAP_CHOWN" → 0 … */
extern const struct name_value ctr_names_rlimits[];      /* "RLIMIT_NOFILE" → 7 */
extern const struct name_value ctr_names_propagation[];  /* "rslave" → MS_SLAVE | MS_REC */
extern const struct name_value ctr_names_personality[];  /* "LINUX" → 0, "LINUX32" → 8 */
extern const struct name_value ctr_names_io_classes[];   /* "IOPRIO_CLASS_BE" → 2 */
extern const struct name_value ctr_names_schedulers[];   /* "SCHED_BATCH" → 3 */
extern const struct name_value ctr_names_sched_flags[];
extern const struct name_value ctr_names_mem_policies[]; /* "MPOL_BIND" → 2 */
extern const struct name_value ctr_names_mem_policy_flags[];
extern const char *const ctr_names_hooks[]; /* "prestart" … NULL-terminated */

/* What a mount option does. */
enum mount_option_kind {
    MOUNT_OPT_ATTR,        /* sets and clears MOUNT_ATTR_* of the mount */
    MOUNT_OPT_ATTR_REC,    /* the same, of the whole tree ("rro") */
    MOUNT_OPT_PROPAGATION, /* MS_SHARED …, with MS_REC */
    MOUNT_OPT_BIND,        /* "bind"; set is 1 for "rbind" */
    MOUNT_OPT_SUPER,       /* a flag of the file system: handed to fsconfig(2) as it is */
    MOUNT_OPT_IDMAP,       /* "idmap"; set is 1 for "ridmap" */
    MOUNT_OPT_OWNER,       /* "x-cworker.owner": the source's owner is the process's user */
    MOUNT_OPT_COPY_UP,     /* "tmpcopyup" */
    MOUNT_OPT_REMOUNT,     /* "remount": change the mount that is there */
    MOUNT_OPT_NONE,        /* what the kernel does anyway ("defaults", "acl", "iversion") */
};
struct mount_option {
    const char *name;
    enum mount_option_kind kind;
    uint64_t set, clear;
};
extern const struct mount_option ctr_names_mount_options[];
/* NULL when it is no option of ours: then it is data for the file system. */
const struct mount_option *ctr_names_mount_option(const char *name);

/* "9", "KILL", "SIGKILL", "SIGRTMIN+3". ERR_USER. */
int ctr_names_signal(const char *text, int *ret, struct err *e) MUST_CHECK;
