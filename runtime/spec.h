#pragma once
/*
 * spec.h - all that a container shall be. Door of runtime/.
 *
 * One type serves bundles, cwrun and cwrt: made by a builder (worker/bundle_spec.c), by flags, or from config.json
 * (spec_json.h), then never changed. Plain data; every string is owned by the spec.
 * Source: runtime-spec config.md and config-linux.md; our extras are annotations "org.codalab.cworker.*".
 * Threads: any while immutable. Ownership: ctr_spec_free.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
typedef struct cJSON cJSON;

struct ctr_idmap {
    uint32_t container_id, host_id, size;
};
struct ctr_idmaps {
    struct ctr_idmap *items;
    size_t n;
};

struct ctr_mount {
    char *destination; /* inside */
    char *type;        /* "bind", "tmpfs", "proc", "sysfs", "cgroup", "devpts", "mqueue", … */
    char *source;      /* host path for binds, else a name; may be NULL */
    struct str_list
        options; /* as in config.json: "ro", "nosuid", "rbind", "idmap", "size=64m", … */
    struct ctr_idmaps uid_maps, gid_maps; /* idmapped mount; empty: none */
};

struct ctr_device {
    char *path;
    char type; /* 'c', 'b', 'u', 'p' */
    int64_t major, minor;
    int64_t file_mode; /* -1: default 0666 */
    uint32_t uid, gid;
};

struct ctr_device_rule {
    bool allow;
    char type;            /* 'a', 'c', 'b' */
    int64_t major, minor; /* -1: any */
    char access[4];       /* subset of "rwm" */
};

struct ctr_rlimit {
    char *type; /* "RLIMIT_NOFILE" */
    uint64_t soft, hard;
};

struct ctr_namespace {
    char *type; /* "pid" "network" "mount" "ipc" "uts" "user" "cgroup" "time" */
    char *path; /* NULL: new */
};

struct ctr_net_device {
    char *host, *name; /* name inside, perhaps "eth%d"; NULL: as on the host */
};

struct ctr_key_value {
    char *key, *value;
};

struct ctr_resources {
    int64_t memory_limit;      /* bytes; 0: none; -1: "max" */
    int64_t memory_swap_limit; /* v2 swap.max in bytes beyond memory; INT64_MIN: not set, -1: max */
    int64_t memory_reservation;
    char *cpuset_cpus, *cpuset_mems; /* NULL: not set */
    int64_t pids_limit;              /* 0: not set, -1: max */
    uint64_t cpu_shares, cpu_period;
    int64_t cpu_quota;
    int64_t cpu_burst, cpu_idle;
    struct ctr_key_value *unified; /* cgroup v2 file = value */
    size_t n_unified;
    struct ctr_device_rule *devices;
    size_t n_devices;
    bool check_before_update; /* update refuses a memory limit below what is in use */
};

struct ctr_caps {
    uint64_t bounding, effective, inheritable, permitted, ambient; /* bit masks */
};

struct ctr_scheduler { /* sched_setattr(2) */
    uint32_t policy;
    int32_t nice;
    uint32_t priority;
    uint64_t flags, runtime, deadline, period;
};

struct ctr_process {
    struct str_list args, env;
    char *cwd;
    uint32_t uid, gid, umask;
    bool has_umask;
    uint32_t *additional_gids;
    size_t n_additional_gids;
    char *user_name; /* "user[:group]" looked up inside the root when not NULL (S42) */
    bool terminal;
    uint16_t console_rows, console_columns;
    bool no_new_privileges;
    struct ctr_caps caps;
    bool has_caps; /* else none is granted, and config.json has no capabilities object */
    struct ctr_rlimit *rlimits;
    size_t n_rlimits;
    int oom_score_adj;
    bool has_oom_score_adj;
    char *apparmor_profile, *selinux_label;
    bool has_scheduler;
    struct ctr_scheduler scheduler;
    uint16_t io_priority; /* ioprio_set(2) value: class << 13 | level; 0: not set */
    char *cpu_affinity_initial, *cpu_affinity_final; /* CPU lists or NULL (execCPUAffinity) */
};

struct ctr_mem_policy { /* set_mempolicy(2) */
    bool set;
    uint32_t mode; /* with its flags */
    char *nodes;   /* a list like "0-3,7", or NULL */
};

struct ctr_rdt { /* linux.intelRdt; see rdt.h */
    bool set, monitoring;
    char *clos_id, *l3, *bandwidth; /* or NULL */
    struct str_list schemata;
};

struct ctr_time_offset {
    int64_t secs;
    uint32_t nanosecs;
    bool set;
};

struct ctr_spec {
    char *oci_version;
    struct ctr_process process;
    bool has_process;

    char *root_path; /* a prepared root directory; or NULL with an overlay: */
    bool root_readonly;
    struct str_list
        overlay_lower; /* host paths, topmost first (annotation org.codalab.cworker.overlay.lower) */
    char *overlay_dir; /* host directory for upper and work, on one file system (….overlay.dir) */
    char *hostname, *domainname;
    struct ctr_mount *mounts;
    size_t n_mounts;

    struct ctr_namespace *namespaces;
    size_t n_namespaces;
    struct ctr_idmaps uid_maps, gid_maps;
    struct ctr_device *devices;
    size_t n_devices;
    struct ctr_net_device *net_devices;
    size_t n_net_devices;
    struct ctr_key_value *sysctl;
    size_t n_sysctl;
    struct str_list masked_paths, readonly_paths;
    char *rootfs_propagation, *mount_label;
    char *cgroups_path;
    struct ctr_resources resources;
    cJSON *seccomp;       /* linux.seccomp as given; NULL: none */
    bool default_seccomp; /* use our built-in allow-list (bundles; annotation) */
    bool init;            /* put our reaping init in front (annotation) */
    cJSON *hooks;
    struct ctr_key_value *annotations;
    size_t n_annotations;
    bool has_personality;
    uint32_t personality;
    struct ctr_mem_policy mem_policy;
    struct ctr_rdt rdt;
    struct ctr_time_offset time_monotonic, time_boottime; /* of a new time namespace */
    bool
        userns_optional; /* go on without user namespace where ids cannot be mapped (annotation); see ctr_note() */
    bool sealed_env; /* do not add HOME to the environment */
};

struct ctr_spec *ctr_spec_new(void);
void ctr_spec_free(struct ctr_spec *s);
DEFINE_AUTO(ctr_spec, ctr_spec_free)

/* Names of our annotations; "true" or a value. */
#define CTR_ANNOTATION "org.codalab.cworker."

/* Path of the first namespace entry of a type: -1 no such entry, 0 a new one, 1 joined (*ret_path borrowed). */
int ctr_spec_namespace(const struct ctr_spec *s, const char *type, const char **ret_path);
void ctr_spec_add_namespace(struct ctr_spec *s, const char *type, const char *path);
void ctr_spec_remove_namespace(struct ctr_spec *s, const char *type);
void ctr_spec_add_device(struct ctr_spec *s, const struct ctr_device *d); /* copies */
void ctr_spec_add_rule(struct ctr_spec *s, bool allow, char type, int64_t major, int64_t minor,
                       const char *access);
void ctr_spec_add_rlimit(struct ctr_spec *s, const char *type, uint64_t soft, uint64_t hard);
void ctr_spec_add_idmap(struct ctr_idmaps *m, uint32_t container_id, uint32_t host_id,
                        uint32_t size);
/* Value of an annotation, or NULL; borrowed. */
const char *ctr_spec_annotation(const struct ctr_spec *s, const char *key);

/* Docker's fourteen, and what is left of them where there is no user namespace (S38). */
uint64_t ctr_spec_default_caps(bool user_namespace);

/*
 * Fill the isolation defaults for a bundle (protocol 5.2; S36-S40): all namespaces, standard mounts (/proc, /dev,
 * /dev/pts, /dev/shm of shm_bytes, /dev/mqueue, /sys ro, /sys/fs/cgroup ro), masked and read-only paths, capabilities,
 * default seccomp, rlimits, no_new_privs, device rules. userns_first_id: host id of container id 0, range 65536;
 * 0: no user namespace.
 */
void ctr_spec_isolate(struct ctr_spec *s, uint64_t shm_bytes, uint32_t userns_first_id);
/* Hide the processors' throttling counters, by which runs could watch each other (GHSA-jq35-85cj-fj4p; S36).
 *   sys  "/sys": which processors there are */
void ctr_spec_mask_thermal(struct ctr_spec *s, const char *sys);
struct ctr_mount *ctr_spec_add_mount(struct ctr_spec *s, const char *destination, const char *type,
                                     const char *source, const char *options_comma);
void ctr_spec_add_annotation(struct ctr_spec *s, const char *key, const char *value);
/* Everything that can be judged without touching the host. ERR_USER naming the field. */
int ctr_spec_validate(const struct ctr_spec *s, struct err *e) MUST_CHECK;
