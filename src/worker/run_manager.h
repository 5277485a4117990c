#pragma once
/*
 * run_manager.h - holds every run, feeds events to their machines (run_stage.h), and does what they want.
 *
 * Order: run_manager_new; run_manager_recover once; then actions and ticks of the loop; run_manager_stop;
 * run_manager_free when run_manager_busy is 0. Blocking work goes to the lanes given; nothing here waits. An
 * error of one run ends that run and nothing else (B196).
 * Threads: main only. Ownership: the manager owns the runs; pointers handed out live until the loop goes on.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/units.h"
#include "worker/protocol.h"

struct cancel;
struct container_env;
struct ctr_gpu;
struct deps;
struct err;
struct images;
struct lane;
struct loop;
struct replies;
struct run_manager;
struct run_store;
struct service;
struct topology;

struct run_manager_opts {
    struct loop *loop;
    struct lane *launch_lane; /* making and removing containers */
    struct lane *disk_lane;   /* measuring, removing directories */
    struct lane *upload_lane;
    struct lane *service_lane; /* short questions to the service */
    struct run_store *store;
    struct service *service;
    struct deps *deps; /* NULL on a shared file system */
    struct images *images;
    struct replies *replies;
    const struct container_env *env;
    const struct topology *topology;
    struct cpu_set cpus;        /* the worker's set */
    const struct ctr_gpu *gpus; /* the worker's GPUs */
    size_t n_gpus;
    const char *runs_dir; /* {work-dir}/runs */
    const char *remote;   /* worker id, for reports (B030) */
    const char *hostname;
    uint64_t gone_check_ns; /* how often to ask whether bundles still exist (D18) */
    bool own_ids;           /* a user namespace range per run */
    /* Main thread: the number of runs fell, or one became worth reporting. */
    void (*changed)(void *arg);
    /* Main thread: a run has begun, or is over and waits to be finalized: what people look for. */
    void (*news)(void *arg, bool over);
    void *changed_arg; /* of both */
};

struct run_manager *run_manager_new(const struct run_manager_opts *o);
/* Load saved runs, take up what lives, sweep what belongs to none; before the first check-in (protocol 6.8). */
int run_manager_recover(struct run_manager *m, struct err *e) MUST_CHECK;

/*
 * A bundle the service confirmed as ours; takes b. A uuid already held goes on as it is, and is reported; one that is
 * on its way out (finalized, handed back) is waited for, and the bundle begun anew behind it (B059, D20).
 */
void run_manager_add(struct run_manager *m, struct bundle *b);
bool run_manager_has(const struct run_manager *m, const char *uuid);
size_t run_manager_count(const struct run_manager *m);
/* Everything but ACTION_RUN; for an unknown uuid see protocol 3.5 rule 3 (B046, B047). */
void run_manager_act(struct run_manager *m, const struct action *a);

/* For deps_opts.changed and images_opts.changed. */
void run_manager_dep_changed(void *manager, const char *uuid, const char *path);
void run_manager_image_changed(void *manager, const char *image);

/*
 * Reports of all runs for a check-in, borrowed until the loop goes on. Runs that are finalized or were taken away are left
 * out (B049). What the kernel measures is as of now, or, where runs are many, some seconds old (run_watch.c).
 */
void run_manager_reports(struct run_manager *m, const struct run_report **ret, size_t *ret_n);
/* A check-in that told this run to be staged was accepted: it is dropped (B050). */
void run_manager_handed_back(struct run_manager *m, const char *uuid);

/* Hand every run back (--pass-down-termination, 6.7). */
void run_manager_restage(struct run_manager *m);
/*
 * After an outage of more than a minute: ask the service whose the runs are; those that were given away are ended
 * without being reported (B054, D80). Until it is answered run_manager_is_asking is true: do not check in.
 */
void run_manager_ask_after_outage(struct run_manager *m);
bool run_manager_is_asking(const struct run_manager *m);

/* Cancel what can be repeated, start nothing more; containers live on. */
void run_manager_stop(struct run_manager *m);
size_t run_manager_busy(const struct run_manager *m); /* jobs in flight */
void run_manager_free(struct run_manager *m);
DEFINE_AUTO(run_manager, run_manager_free)
