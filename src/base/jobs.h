#pragma once
/*
 * jobs.h - bounded lanes of threads for work that may block.
 *
 * A job carries copies or immutable references in and a result out; ownership moves with it:
 * sender -> lane -> loop. Only its cancel token is touched from outside. Lanes are separate, so that
 * replies never wait for downloads. `run` is called on a lane thread, `done` on the loop's thread,
 * always, also for a job that was cancelled before it ran (then run is not called).
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct loop;
struct lane;

/* Cancel token: a flag and an eventfd that becomes readable. Counted. Threads: any. */
struct cancel;
struct cancel *cancel_new(void);
struct cancel *cancel_ref(struct cancel *c); /* NULL in, NULL out */
void cancel_unref(struct cancel *c);
DEFINE_AUTO(cancel, cancel_unref)
void cancel_fire(struct cancel *c);
bool cancel_fired(const struct cancel *c); /* NULL: never */
int cancel_fd(const struct cancel *c);     /* for poll(2); -1 for NULL */

struct job {
    void (*run)(struct job *job);  /* lane thread; may block */
    void (*done)(struct job *job); /* loop thread; owns the job again */
    struct cancel *cancel;         /* may be NULL; the job holds a reference */
    struct job *next;              /* the lane's */
    bool ran;                      /* set by the lane before done */
};

/* Threads are started as needed, up to `threads`; they end after 30 s without work. */
struct lane *lane_new(struct loop *l, const char *name, unsigned threads);
/* Main thread. The queue is not bounded here; senders bound what they submit. */
void lane_submit(struct lane *lane, struct job *job);
size_t lane_pending(const struct lane *lane); /* queued and running */
/* Fire the tokens of all jobs, wait up to timeout_ns for running ones; their done is still called by
 * the loop (loop_drain once it has stopped). Nothing may be submitted afterwards. False when some thread did
 * not end (the process must then exit without freeing). */
bool lane_stop(struct lane *lane, unsigned long long timeout_ns);
void lane_free(struct lane *lane);
