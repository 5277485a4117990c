#pragma once
/*
 * cgroup.h - control groups, version 2 only: the service's subtree, and one group a run.
 *
 *   service:  ctr_cgroup_service_open ──► …/cworker/supervisor (us)   …/cworker/runs (the runs' parent)
 *   run:      ctr_cgroup_create ──► limits are in place, no process yet ──► clone3 into ctr_cgroup_fd
 *             ──► stats, events, freeze ──► ctr_cgroup_kill ──► ctr_cgroup_wait_empty ──► ctr_cgroup_remove
 *
 * libcgroup sets up, checks and takes down the service's subtree; a run's own group is mkdirat and writes relative
 * to held descriptors, because libcgroup needs hundreds of system calls for it (DESIGN §5.1).
 * On a hybrid host (cgroup2 mounted without controllers) only partial = true works: a group that can be frozen
 * and killed, without limits.
 * Threads: any, one at a time for an object; service_open: single-threaded start of the program only.
 * Ownership: ctr_cgroup_free closes descriptors and leaves the group in place.
 * Source: Linux Documentation/admin-guide/cgroup-v2.rst; runtime-spec config-linux.md "Control groups"; S41, S49.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct ctr_resources;
struct ctr_cgroup;

/* --- the host ------------------------------------------------------------------------------------------------ */

/* Where cgroup2 is mounted ("/sys/fs/cgroup", on hybrid hosts "/sys/fs/cgroup/unified"), from
 * /proc/self/mountinfo; new string. ERR_HOST when there is none. */
int ctr_cgroup_mount_point(char **ret, struct err *e) MUST_CHECK;
/* Our own group's path in the hierarchy, from /proc/self/cgroup ("0::/…"); new string. */
int ctr_cgroup_own_path(char **ret, struct err *e) MUST_CHECK;

enum {
    CTR_CG_CPUSET = 1,
    CTR_CG_CPU = 2,
    CTR_CG_IO = 4,
    CTR_CG_MEMORY = 8,
    CTR_CG_PIDS = 16,
    CTR_CG_HUGETLB = 32, /* the rest only where a limit asks for them */
    CTR_CG_RDMA = 64,
    CTR_CG_MISC = 128,
    CTR_CG_LAST = CTR_CG_MISC,
};
#define CTR_CG_WANTED (CTR_CG_CPUSET | CTR_CG_CPU | CTR_CG_IO | CTR_CG_MEMORY | CTR_CG_PIDS)
/* Controllers (mask) that groups below `path` could be given. */
int ctr_cgroup_controllers(const char *path, unsigned *ret, struct err *e) MUST_CHECK;
/*
 * Hand controllers down as far as the parent of `path`, making the groups on the way that are missing: cpuset, memory and
 * pids or ERR_HOST, cpu and io where it can be done.
 */
int ctr_cgroup_hand_down(const char *path, struct err *e) MUST_CHECK;
/* "cpuset, memory" for messages; buf of 64 bytes. */
char *ctr_cgroup_controller_names(unsigned mask, char buf[64]);

/* --- the service's subtree ----------------------------------------------------------------------------------- */

/*
 * Set up the subtree for runs: <base>/cworker/runs.
 *   base      NULL: the group this process was started in; the process then moves to <base>/cworker/supervisor, because a
 *             group with processes of its own cannot give controllers to children. When we already are in
 *             …/cworker/supervisor (a restart) that subtree is used again.
 *             else "/a/b", absolute in the hierarchy: a group somebody made for the runs. We stay where we are: a service
 *             manager cannot start a service again in a group that is divided, so runs that outlive the service
 *             need a group beside it (configs/cworker-runs.service).
 * Nobody else's process is ever moved: a base that holds other processes is ERR_HOST with advice.
 *   partial   controllers may be missing (hybrid host)
 *   ret_runs  path of the runs' parent ("/…/cworker/runs"): cgroupsPath of a run is <that>/<id>; new string
 * Blocks: some ms.
 */
int ctr_cgroup_service_open(const char *base, bool partial, char **ret_runs, struct err *e)
    MUST_CHECK;
/*
 * What an allocation (a job of Slurm, a slice) leaves to the groups below `path`: the least memory.max of it and its
 * ancestors, in bytes; UINT64_MAX: no limit. A group without the file (the root, a hybrid host) sets none.
 */
uint64_t ctr_cgroup_memory_allowed(const char *path);
/* Take the empty subtree down again; one that holds processes or groups stays. */
int ctr_cgroup_service_close(const char *runs, struct err *e) MUST_CHECK;

/* --- a run's group ------------------------------------------------------------------------------------------- */

/*
 * config.json's linux.cgroupsPath as a path in the hierarchy; new string.
 *   NULL or ""           …/cworker/runs/<id> when we run in a service's subtree, else <our group's parent>/cwrt/<id>
 *   "/a/b"               as it is;  "a/b": below <our group's parent>
 *   "slice:prefix:name"  systemd style: "/user.slice/user-7.slice/prefix-name.scope"
 * Errors: ERR_USER for "..", empty components, over-long names.
 */
int ctr_cgroup_resolve(const char *cgroups_path, const char *id, char **ret, struct err *e)
    MUST_CHECK;

/*
 * Make the group `path` and set the limits before any process is in it. Missing parents are made, controllers that
 * the limits need are enabled on the way down. An existing group without processes is taken over, one with
 * processes is ERR_USER. partial: limits whose controller is missing are left out. On failure nothing is left.
 * The device filter is not attached here: see devfilter.h.
 */
int ctr_cgroup_create(const char *path, const struct ctr_resources *r, bool partial,
                      struct ctr_cgroup **ret, struct err *e) MUST_CHECK;
/* An existing group. ERR_ABSENT. */
int ctr_cgroup_open(const char *path, struct ctr_cgroup **ret, struct err *e) MUST_CHECK;
/* The same from a directory descriptor received from elsewhere (taken). */
struct ctr_cgroup *ctr_cgroup_from_fd(int fd, const char *path);
void ctr_cgroup_free(struct ctr_cgroup *cg);
DEFINE_AUTO(ctr_cgroup, ctr_cgroup_free)

/* Directory descriptor for CLONE_INTO_CGROUP and the device filter; borrowed. */
int ctr_cgroup_fd(const struct ctr_cgroup *cg);
const char *ctr_cgroup_path(const struct ctr_cgroup *cg); /* in the hierarchy; borrowed */

/* Change limits of a live group: the fields that are set, in an order that never goes through a refused state. */
int ctr_cgroup_update(struct ctr_cgroup *cg, const struct ctr_resources *r, struct err *e)
    MUST_CHECK;
/* Move a process in. The fast way is CLONE_INTO_CGROUP. pid 0: the caller. */
int ctr_cgroup_add_pid(struct ctr_cgroup *cg, int pid, struct err *e) MUST_CHECK;

/* Freeze or thaw all processes, waiting until the kernel says so (at most timeout_ns: ERR_LIMIT). */
int ctr_cgroup_freeze(struct ctr_cgroup *cg, bool frozen, uint64_t timeout_ns, struct err *e)
    MUST_CHECK;
int ctr_cgroup_is_frozen(struct ctr_cgroup *cg, bool *ret, struct err *e) MUST_CHECK;
/* SIGKILL to all processes in it and below, at once (cgroup.kill), also those that fork for ever (S48). */
int ctr_cgroup_kill(struct ctr_cgroup *cg, struct err *e) MUST_CHECK;
int ctr_cgroup_is_populated(struct ctr_cgroup *cg, bool *ret, struct err *e) MUST_CHECK;
/* Wait until no process is left: ERR_LIMIT after timeout_ns, naming how many and one of them (stuck in the kernel). */
int ctr_cgroup_wait_empty(struct ctr_cgroup *cg, uint64_t timeout_ns, struct err *e) MUST_CHECK;
/* Process ids in the group and its sub-groups; *ret freed with free(). */
int ctr_cgroup_pids(struct ctr_cgroup *cg, int **ret, size_t *ret_n, struct err *e) MUST_CHECK;
/* Remove the group with its sub-groups (which the container may have made). A missing one is fine. */
int ctr_cgroup_remove(struct ctr_cgroup *cg, struct err *e) MUST_CHECK;

/* --- figures ------------------------------------------------------------------------------------------------- */

struct ctr_cgroup_stats {
    uint64_t cpu_usage_us, cpu_user_us, cpu_system_us;
    uint64_t cpu_periods, cpu_throttled, cpu_throttled_us;
    uint64_t memory_current; /* bytes */
    uint64_t
        memory_peak; /* bytes; where the kernel keeps none, the most this object ever read; 0 unknown */
    uint64_t memory_max; /* bytes; UINT64_MAX: none */
    uint64_t swap_current;
    uint64_t oom, oom_kills, memory_max_hits; /* memory.events, sub-groups included */
    uint64_t pids_current, pids_max_hits;
    uint64_t io_read_bytes, io_write_bytes;
    uint64_t memory_stall_us, cpu_stall_us,
        io_stall_us; /* *.pressure "some" totals; 0 where the kernel has none */
};
/* Read all figures; missing controllers leave zeroes. The files are opened once and held. */
int ctr_cgroup_stats(struct ctr_cgroup *cg, struct ctr_cgroup_stats *ret, struct err *e) MUST_CHECK;

/* --- conversions of version 1 values in config.json (pure) ---------------------------------------------------- */

/* cpu.shares (2..262144) to cpu.weight (1..10000) so that 1024 becomes 100: the curve runc and crun share
 * since 2025; 0 stays 0 (not set). */
uint64_t ctr_cgroup_weight_of_shares(uint64_t shares);
/* blkio weight (10..1000) to io.weight (1..10000). */
uint64_t ctr_cgroup_io_weight_of_blkio(uint64_t weight);
/* "slice:prefix:name" to a path; NULL when malformed. New string. */
char *ctr_cgroup_path_of_systemd(const char *text);
