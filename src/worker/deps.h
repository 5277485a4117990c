#pragma once
/*
 * deps.h - dependency manager: bundle contents fetched once, shared by all runs (protocol section 7).
 *
 * Order: deps_open; then, for runs found at start, deps_hold; then deps_keep_runs; from then on deps_get on
 * every step that waits, deps_release when the run is over; deps_stop; deps_free.
 * Downloads are jobs on the lane given; one a key however many runs wait (B135). The work directory may be
 * shared by several workers, also over NFS: a download, and use, hold a lock on the key's lock file; a dead
 * owner's lock falls by itself (B141, D44, D86). Contents appear under their final name only when whole.
 * Threads: main only. Ownership: strings in deps_status are borrowed until the next call of this file.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct loop;
struct lane;
struct service;
struct deps;

enum deps_state { DEPS_DOWNLOADING, DEPS_READY, DEPS_FAILED };

struct deps_status {
    enum deps_state state;
    uint64_t bytes; /* received so far, as the user is shown (protocol 7.5) */
    const char
        *message; /* FAILED: "Dependency download failed: … " with its trailing blank (B133) */
    const char *path; /* READY: absolute host path of the file or directory */
    bool is_dir;      /* READY */
};

struct deps_opts {
    const char
        *work_dir; /* contents in {work_dir}/dependencies, state in {work_dir}/dependencies-state */
    const char *owner; /* worker id: whose dependents these are after a restart */
    struct loop *loop;
    struct lane *lane; /* downloads; its thread count is the number of parallel downloads */
    struct lane *
        disk_lane; /* short disk jobs (leases, eviction); may be the same lane as `lane` in tests */
    struct service *service;
    uint64_t max_bytes;  /* --max-work-dir-size; 0: no limit */
    unsigned attempts;   /* --download-dependencies-max-retries, counting the first (B134); 0: 3 */
    uint64_t backoff_ns; /* first pause between attempts; 0: 1 s */
    /* Called on the main thread when a dependency became READY or FAILED, and about once a second while
     * one is making progress. uuid/path name the key. */
    void (*changed)(void *arg, const char *uuid, const char *path);
    void *changed_arg;
};

/*
 * Make directories, load the state, drop records without contents and contents without records, leave
 * alone what a living worker owns (7.7, B140). Blocks on disk: at start only. A state that cannot be read
 * is set aside.
 */
int deps_open(const struct deps_opts *o, struct deps **ret, struct err *e) MUST_CHECK;

/*
 * The state of a dependency, wanted by a run; the first call starts the download (7.3). `path` may be "".
 * FAILED stays FAILED for 10 s after the last get (B136). Errors (-1): bad uuid or path, ERR_USER.
 */
int deps_get(struct deps *d, const char *uuid, const char *path, const char *run,
             struct deps_status *ret, struct err *e) MUST_CHECK;
/* For a run adopted after a restart: keep what it uses from eviction, without downloading. */
void deps_hold(struct deps *d, const char *uuid, const char *path, const char *run);
/* After recovery: forget dependents of this owner that are not in `runs` (uuids). */
void deps_keep_runs(struct deps *d, const struct str_list *runs);
/* The run wants none of its dependencies any more; downloads nobody wants are cancelled (7.4, B090, B100). */
void deps_release(struct deps *d, const char *run);

/* The check-in's array of [uuid, path], every key known, below BOUND_CHECKIN_DEPENDENCIES bytes (B139, B051). */
/* Borrowed until the next call. */
const char *deps_keys(struct deps *d);
/* Downloads in progress. */
size_t deps_active(const struct deps *d);

/* Cancel all downloads; the loop must run until deps_active is 0 before deps_free. */
void deps_stop(struct deps *d);
void deps_free(struct deps *d); /* leases go; NULL is fine */
DEFINE_AUTO(deps, deps_free)
