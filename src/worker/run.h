#pragma once
/*
 * run.h - one bundle's run on this worker: all of it that is saved.
 *
 * Plain data. What lives only in memory (descriptors, timers, jobs) is the run manager's. The state machine
 * (run_stage.h) is the only code that changes a run; the store (run_store.h) writes it as one JSON file.
 * Threads: main thread only. Ownership: the run manager; run_free.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "worker/protocol.h"

struct err;

enum run_stage {
    RUN_PREPARING,
    RUN_RUNNING,
    RUN_CLEANING_UP,
    RUN_UPLOADING_RESULTS,
    RUN_FINALIZING,
    RUN_FINISHED,
    RUN_RESTAGED,
};
#define RUN_STAGE_COUNT 7

struct run {
    struct bundle bundle;
    enum run_stage stage;
    char *status;        /* shown to the user; never NULL */
    char *dir;           /* the bundle directory on the host */
    double bundle_start; /* epoch: when the run was created here */

    bool has_contents;           /* it has reached RUNNING: there is something to upload */
    bool started;                /* the container's program may have been executed */
    char *docker_image;          /* digest form, NULL before RUNNING */
    char *cpus, *mems;           /* cpuset lists, NULL when none are held */
    struct str_list gpus;        /* uuids held */
    uint32_t userns_first_id;    /* 0: host user namespace */
    uint64_t container_start_ns; /* CLOCK_BOOTTIME; 0 before */
    double container_start, container_end;     /* epoch; 0 before */
    double time_total, time_user, time_system; /* seconds, as last known; never fall (B038) */

    struct str_list links; /* what we placed in the bundle directory, relative paths */

    bool killed, restaged, finalized;
    char *kill_message, *failure_message, *upload_error; /* NULL: none */
    bool has_exitcode;
    int exitcode;
    bool upload_had_5xx; /* the server may hold a stale failure message (D09) */
    uint64_t disk_utilization;
    struct stage_time times[STAGE_COUNT];
};

/* A run in PREPARING from the `run` message; takes b. */
struct run *run_new(struct bundle *b, const char *dir, double now);
void run_free(struct run *r);
DEFINE_AUTO(run, run_free)

const char *run_stage_name(enum run_stage s);  /* "RUN_STAGE.PREPARING" */
const char *run_stage_state(enum run_stage s); /* "preparing": the wire's name (1.3) */

cJSON *run_to_json(const struct run *r);
/* ERR_USER naming the field. */
int run_from_json(const cJSON *v, struct run **ret, struct err *e) MUST_CHECK;

/* "a. b", or the one that is there; takes a, which may be NULL, and returns a new string or NULL. */
char *run_join_texts(char *a, const char *b);

/* What is finally reported (5.7): new strings or NULL for null. */
char *run_failure_text(const struct run *r);
