#pragma once
/*
 * loop.h - the event loop (libuv): descriptors, pidfds, timers, signals, mailbox.
 *
 * The thread that makes the loop runs it and owns every struct behind it; all calls are main thread
 * only, except loop_post. Callbacks never block.
 * Ownership: loop_new/loop_free; watches belong to the caller and are freed before the loop. Freeing a
 * watch inside its own callback is allowed.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct loop;
struct loop_watch;

int loop_new(struct loop **ret, struct err *e) MUST_CHECK;
void loop_free(struct loop *l);
DEFINE_AUTO(loop, loop_free)
/* Run until loop_stop. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Run what was posted so far, without waiting: for the end, when the loop itself has stopped. */
void loop_drain(struct loop *l);
/* Aborts when called from another thread than the loop's. */
void loop_assert_main(struct loop *l);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };
typedef void loop_fd_fn(void *arg, int fd, int events);
typedef void loop_fn(void *arg);

/* Watch fd (borrowed) for events; also pidfds (readable when the process ended). Errors and hang-ups are
 * told as readiness. The descriptor's blocking mode stays as it is. One watch a descriptor. */
struct loop_watch *loop_add_fd(struct loop *l, int fd, int events, loop_fd_fn *fn, void *arg);
/* A timer, not armed. */
struct loop_watch *loop_add_timer(struct loop *l, loop_fn *fn, void *arg);
/* Once, after delay_ns. */
void loop_arm(struct loop_watch *timer, uint64_t delay_ns);
void loop_disarm(struct loop_watch *timer);
struct loop_watch *loop_add_signal(struct loop *l, int signo, loop_fn *fn, void *arg);
void loop_watch_free(struct loop_watch *w); /* NULL is fine */

/* From any thread: run fn(arg) on the loop's thread, in order of posting. What was never delivered is
 * forgotten by loop_free. */
void loop_post(struct loop *l, loop_fn *fn, void *arg);
