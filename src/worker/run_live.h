#pragma once
/*
 * run_live.h - a run as the manager holds it: what is saved, and what lives only in memory.
 *
 * Internal to run_manager.c (list, actions, reports), run_inputs.c (dependencies, image, placement), run_jobs.c
 * (container, upload, directory), run_watch.c (the living container) and run_quarantine.c (one that does not die). Every job and callback in flight holds a
 * reference, so a run that was dropped meanwhile is still there to be asked for its stage.
 * Threads: main only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/run.h"
#include "worker/run_manager.h"
#include "worker/run_stage.h"
#include "worker/usage.h"

struct ctr_shim;
struct image;
struct loop_watch;
struct quarantine;
struct upload;

struct live {
    struct run_manager *m;
    struct run *run;
    struct bundle *again; /* given to us once more while this run is on its way out (D20) */
    char *again_killed;   /* ...and killed meanwhile: the message; NULL: it was not */
    struct live *next;
    unsigned refs;
    bool dropped; /* not in the list any more */
    bool silent;  /* not to be reported: given to another worker, or over for the service */
    bool discard; /* its directory goes too, when it is silent: nobody will go on in it */
    bool asking, wants_place; /* PREPARING: inputs asked for; CPUs short */
    bool creating, removing, measuring, in_start;
    bool remove_wanted;               /* as soon as `creating` is over */
    bool untold;                      /* its end is not on disk yet, so it is not reported either */
    uint64_t measured, disk_pause_ns; /* bytes at the last look, and how long to the next */
    bool full;                        /* the disk limit is met, by quota or by the writable layer */
    struct cpu_set held;
    struct image *image;
    char *digest; /* of the image, for reports once it runs */
    struct cancel *create_cancel;
    struct ctr_shim *shim;
    struct loop_watch *shim_watch, *time_timer, *disk_timer;
    struct loop_watch *dir_timer; /* its directory on a shared file system is waited for… */
    uint64_t dir_until_ns;        /* …until then; 0: not yet */
    struct usage_meter meter;
    uint64_t looked_ns;      /* when the kernel was last asked for its figures */
    struct report_text told; /* its part of a check-in */
    struct upload *upload;
};

struct run_manager {
    struct run_manager_opts o;
    struct live *first, **last;
    size_t n, busy;
    struct quarantine *quarantined; /* what containers that do not die hold */
    bool stopped;
    struct run_report *reports; /* of the last check-in; the room is used again */
    size_t n_reports, room_reports;
    unsigned asking; /* questions after an outage in flight */
    struct loop_watch
        *gone_timer; /* every few minutes: does the service still know our runs? (D18) */
};

/* run_manager.c */
struct live *live_add(struct run_manager *m, struct run *r);
struct live *live_ref(struct live *l);
void live_unref(struct live *l);
/* One job or callback in flight more or less; the run stays in memory meanwhile. */
void live_begin(struct live *l);
void live_finish(struct live *l);
/* Step the machine and do what it wants. The run may be dropped by it: hold a reference. */
void live_feed(struct live *l, const struct run_event *ev);
void live_feed_text(struct live *l, enum run_event_kind kind, const char *text);
void live_feed_number(struct live *l, enum run_event_kind kind, int64_t number);
void live_save(struct live *l);
/* Its time here is over: what is left of it is neither reported nor worth keeping. */
bool live_is_leaving(const struct live *l);
/* Out of the list; the manager's reference goes. */
void live_drop(struct live *l);
/* Call fn for every run; runs may come and go meanwhile. */
void manager_each(struct run_manager *m, void (*fn)(struct live *l, const void *arg),
                  const void *arg);
/* For those only of which is_meant is true now. */
void manager_each_that(struct run_manager *m, bool (*is_meant)(const struct live *l),
                       void (*fn)(struct live *l, const void *arg), const void *arg);

/* run_inputs.c */
void live_ask_inputs(struct live *l);
void live_place(struct live *l);
void live_release_inputs(struct live *l);
void manager_place_waiting(struct run_manager *m);

/* run_quarantine.c: what the run holds is given to nobody until its container is gone. */
void manager_quarantine(struct live *l);
void manager_quarantined_cpus(const struct run_manager *m, struct cpu_set *to); /* adds to `to` */
void manager_quarantine_end(struct run_manager *m); /* forgets; no look is in flight */

/* run_jobs.c */
void live_create(struct live *l);
void live_remove(struct live *l);
void live_upload(struct live *l);
void live_remove_dir(struct live *l); /* then forgets */

/* run_watch.c */
void live_start(struct live *l);
void live_watch(struct live *l);
void live_unwatch(struct live *l);     /* watches and timers only; the container lives on */
void live_refresh(struct live *l);     /* figures as of now */
void live_refresh_old(struct live *l); /* if they are too old for a report */
