#pragma once
/*
 * local_api.h - both ends of the socket behind `cwrun ps/logs/exec/stats/kill` (S60).
 *
 * {runtime-dir}/control.sock, 0600; a peer must be root or run as the worker's own user (SO_PEERCRED). One JSON
 * object a line each way:
 *
 *   ──► {"method": "runs"}                              every run, as `list` of the hooks gives it
 *   ──► {"method": "runs", "uuid": "0x…", "stats": true} one run, with live figures
 *   ──► {"method": "kill", "uuid": "0x…", "message": "…"}  as a kill from the server; the message may be missing
 *   ──► {"method": "worker"}                            id, version, uptime of the worker
 *   ◄── {"result": …}   or   {"error": "text", "kind": "user" | "absent" | …}
 *
 * Nothing here blocks the loop: requests are capped (BOUND_LOCAL_REQUEST), at most BOUND_LOCAL_CLIENTS are
 * connected, each has its own buffers and some seconds to send its line or to take its answer; one that does not is cut
 * off, and the others do not notice.
 * Threads: the server main thread only; local_api_call any. Ownership: local_api_open/local_api_close.
 */
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct loop;
struct local_api;

/* What the worker does for the socket; called on the main thread, must not block. */
struct local_api_hooks {
    /*
     * New array of objects, one a run: "uuid", "stage", "state", "status", "image", "dir", "command", "pid" (0: none),
     * "start" (epoch), "cpus", "gpus", "memory_limit"; with stats also "cpu" (cores), "memory", "memory_peak", "pids",
     * "net_sent", "net_received" (bytes), and those of local_api_add_figures().
     *   uuid   only this run; NULL: all. Unknown: an empty array
     */
    cJSON *(*runs)(void *arg, const char *uuid, bool stats);
    /* ERR_ABSENT: no such run. */
    int (*kill)(void *arg, const char *uuid, const char *message, struct err *e);
    /* New object: "id", "version", "start", "server". */
    cJSON *(*worker)(void *arg);
    void *arg;
};

/* Bind and listen; a socket that a dead worker left is replaced. ERR_LIMIT: another live worker answers there. */
int local_api_open(struct loop *l, const char *runtime_dir, const struct local_api_hooks *hooks,
                   struct local_api **ret, struct err *e) MUST_CHECK;
void local_api_close(struct local_api *a); /* removes the socket; NULL is fine */
DEFINE_AUTO(local_api, local_api_close)

struct ctr_stats;
/* "memory", "memory_peak", "io_read", "io_written" (bytes), "pids", "oom_kills", "cpu_seconds", "throttled_seconds" and for
 * how many seconds the run waited: "cpu_stall", "memory_stall", "io_stall". */
void local_api_add_figures(cJSON *o, const struct ctr_stats *s);

/*
 * The other end: ask, and wait up to timeout_ns for the answer.
 *   request  borrowed
 *   ret      the "result"; freed with cJSON_Delete
 * Errors: ERR_ABSENT with sys ENOENT or ECONNREFUSED: no worker runs there; else what the worker answered.
 */
int local_api_call(const char *runtime_dir, const cJSON *request, uint64_t timeout_ns, cJSON **ret,
                   struct err *e) MUST_CHECK;
