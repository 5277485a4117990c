#pragma once
/*
 * shim.h - the daemon's end of cwshim: spawn, talk, adopt after a restart. Door of runtime/.
 *
 * Per run there is a runtime directory (/run/cworker/<id>, 0700) that holds the shim's lock (held by flock for
 * its life), its control socket, the config.json it was given, the pid file, the container's own stdout/stderr
 * ("ctr.log", capped by BOUND_CTR_STDERR) and at last exit.json. Nothing else needs to be remembered: after a
 * restart of the daemon ctr_shim_adopt finds it all again.
 *
 *   spawn ──► created (network namespace handed out) ──► start ──► running ──► exit record, shim ends
 *
 * Threads: one owner a shim (main thread: all but spawn's wait are quick). Ownership: ctr_shim_free closes the
 * connection; the container lives on.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "runtime/exit.h"

struct err;
struct ctr_spec;
struct ctr_shim;

struct ctr_shim_opts {
    const char *shim_path;      /* cwshim binary */
    const char *runtime_dir;    /* /run/cworker */
    const char *id;             /* run id; container name */
    uint64_t create_timeout_ns; /* 0: 60 s */
};

/* Where cwshim is: `given` when not NULL, else beside this program (a build tree), in ../libexec/cworker (installed), or
 * where it was configured to be. A new string. ERR_ABSENT, saying where it was looked for. */
int ctr_shim_find(const char *given, char **ret, struct err *e) MUST_CHECK;

/* Spawn the shim with the spec (as config.json on a memfd) and wait until the container is created: blocks up to
 * the time-out; a lane's work. On failure nothing is left behind. */
int ctr_shim_spawn(const struct ctr_shim_opts *o, const struct ctr_spec *spec,
                   struct ctr_shim **ret, struct err *e) MUST_CHECK;
/* Connect to a shim that lives. ERR_ABSENT: none lives (then read the exit record; without one the run vanished). */
int ctr_shim_adopt(const char *runtime_dir, const char *id, struct ctr_shim **ret, struct err *e)
    MUST_CHECK;
void ctr_shim_free(struct ctr_shim *s);
DEFINE_AUTO(ctr_shim, ctr_shim_free)

/* Readable (HUP) when the shim has ended, that is, when the exit record is there. For the event loop. */
int ctr_shim_fd(const struct ctr_shim *s);
/* Borrowed network namespace fd of the container, -1 when gone. */
int ctr_shim_netns(const struct ctr_shim *s);
pid_t ctr_shim_pid(const struct ctr_shim *s);  /* of the container's init, for display only */
int ctr_shim_cgroup(const struct ctr_shim *s); /* borrowed directory of its cgroup; -1: none */
/*
 * Hold the container's init: a new pidfd. The number cannot have come to mean another process, because the shim, which
 * has to reap it first, is asked once more after the process was opened. ERR_ABSENT: the container has ended.
 */
int ctr_shim_open_init(const struct ctr_shim *s, struct err *e) MUST_CHECK;
bool ctr_shim_is_started(const struct ctr_shim *s);
/* Let the created container execute its program. */
int ctr_shim_start(struct ctr_shim *s, struct err *e) MUST_CHECK;
/* Signal the init; SIGKILL goes to the whole cgroup (cgroup.kill). */
int ctr_shim_kill(struct ctr_shim *s, int signal, struct err *e) MUST_CHECK;

/* Live figures, from files held open. */
struct ctr_stats {
    uint64_t cpu_usage_us, user_us, system_us;
    uint64_t memory_current, memory_peak, oom_kills;
    uint64_t pids_current;
    uint64_t io_read_bytes, io_write_bytes;
    uint64_t cpu_throttled_us;
    uint64_t cpu_stall_us, memory_stall_us,
        io_stall_us; /* somebody waited so long for it (pressure) */
};
int ctr_shim_stats(struct ctr_shim *s, struct ctr_stats *ret, struct err *e) MUST_CHECK;

/* What the container's own stdout and stderr said (bash's syntax errors), at most BOUND_CTR_STDERR; new string. */
char *ctr_shim_log(const char *runtime_dir, const char *id);
/* Remove what is left of a run that ended: kill its cgroup if anything lives there, remove cgroup and directory.
 * Idempotent; also for runs whose shim was killed. */
int ctr_shim_cleanup(const char *runtime_dir, const char *id, struct err *e) MUST_CHECK;
/* Ids of all runtime directories. */
struct str_list;
int ctr_shim_list(const char *runtime_dir, struct str_list *ret, struct err *e) MUST_CHECK;
