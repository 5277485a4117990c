#pragma once
/*
 * worker_parts.h - all that a running worker consists of. Internal to worker.c (making and taking down the parts),
 * worker_life.c (what it does meanwhile: check-ins, actions, the reasons to end) and worker_start.c (taking bundles).
 * Threads: main only.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "base/units.h"
#include "oci/pull.h"
#include "worker/container.h"
#include "worker/topology.h"

struct action;
struct checkin;
struct ctr_gpu;
struct deps;
struct images;
struct local_api;
struct loop;
struct loop_watch;
struct net;
struct nudge;
struct oci_store;
struct options;
struct replies;
struct run_manager;
struct run_store;
struct service;
struct start_job;
struct wake;

enum lane_name {
    LANE_STATE,
    LANE_CHECKIN,
    LANE_NUDGE,
    LANE_SERVICE,
    LANE_LAUNCH,
    LANE_DISK,
    LANE_UPLOAD,
    LANE_REPLY,
    LANE_STREAM,
    LANE_PULL,
    LANE_DOWNLOAD,
    LANE_COUNT
};
enum phase {
    PHASE_WORKING,
    PHASE_RESTAGING, /* runs are handed back; check-ins tell */
    PHASE_LAST_WORD, /* one more check-in, with is_terminating */
    PHASE_DRAINING,  /* nothing new; jobs end */
};

struct worker {
    struct options *o;
    struct loop *loop;
    struct lane *lanes[LANE_COUNT];
    struct run_store *store;
    struct service *service;
    struct net *net;
    struct oci_store *images_store;
    struct oci_registries registries;
    struct deps *deps;
    struct images *images;
    struct replies *replies;
    struct run_manager *runs;
    struct checkin *checkin;
    struct wake *wake;
    struct nudge *nudge;
    struct local_api *local;
    struct container_env env;
    struct topology topology;
    struct cpu_set cpus;
    struct ctr_gpu *gpus;
    size_t n_gpus;
    int64_t memory;
    char *hostname, *shim_path, *scratch_dir, *runs_dir, *cgroup_runs, *owner;

    /* worker_life.c */
    enum phase phase;
    int64_t runs_started;
    unsigned starting;            /* start_bundle calls in flight */
    struct start_job *start_jobs; /* those */
    uint64_t idle_since_ns, drain_until_ns;
    uint64_t last_run_ns; /* when the last run message came */
    bool ask_owner; /* after an outage: runs are not reported until the service was asked (B054) */
    bool waits_for_owner;  /* it is being asked */
    bool told_terminating; /* in the check-in in flight (B189) */
    /* In the check-in in flight: which runs were told to be handed back, and one that was told to be running, or NULL. */
    struct str_list told_staged;
    char *told_running;
    struct loop_watch *signals[3], *phase_timer;
};

/* A bundle that is offered: ask for it; takes it out of the action. */
void worker_start_bundle(struct worker *w, struct action *a);
/* A kill, before run_manager_act: one of a bundle still asked for is kept until it is ours, as the service sends it once. */
void worker_start_kill(struct worker *w, const struct action *a);
/* Once: bundles the worker was asking for when it died: the answer, if there was one, is lost. */
void worker_start_again(struct worker *w);
/* The first check-in, the websocket, signals. */
void worker_life_begin(struct worker *w);
/* Frees its watches; after the loop. */
void worker_life_end(struct worker *w);
/* For run_manager_opts.changed and .news. */
void worker_life_changed(void *worker);
void worker_life_news(void *worker, bool over);
/* The local socket (local_api.h), when recovery is over; a failure is logged and harms nothing else. */
void worker_local_begin(struct worker *w);
void worker_local_end(struct worker *w);
