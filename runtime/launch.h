#pragma once
/*
 * launch.h - clone3, id maps, the go-ahead; the child's failures as a struct err.
 *
 *   parent                                   child (child.c)
 *   clone3 into the cgroup ───────────────►
 *   write id maps
 *   LAUNCH_GO ────────────────────────────►  OP_WAIT_MAPS
 *             ◄──────────────── LAUNCH_HOOKS OP_HOOKS        (only when there are hooks)
 *   run hooks
 *   LAUNCH_GO ────────────────────────────►
 *             ◄──────────────── LAUNCH_READY OP_READY        the container is created
 *   LAUNCH_GO ────────────────────────────►  OP_WAIT_START   perhaps by another process, over start_fd
 *             ◄───────────── LAUNCH_NOTIFY_FD OP_SECCOMP      (only with a seccomp listener: notify.h)
 *             ◄───────────────── end of file OP_EXEC          the program runs
 *             ◄─────────────── LAUNCH_FAILED                  anywhere: operation, errno, text; then the child ends
 *
 * A message is one packet of a SOCK_SEQPACKET pair; anything unexpected is an error. End of file before
 * LAUNCH_READY means that the child died.
 * Single-threaded programs only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct ctr_process;
struct ctr_spec;
struct launch_plan;

enum launch_msg_kind { LAUNCH_GO = 1, LAUNCH_HOOKS, LAUNCH_READY, LAUNCH_FAILED, LAUNCH_NOTIFY_FD };

enum { LAUNCH_TEXT = 240 };
struct launch_msg {
    uint16_t kind;          /* enum launch_msg_kind */
    uint16_t op;            /* LAUNCH_FAILED: enum launch_op_kind */
    int32_t sys;            /* errno */
    char text[LAUNCH_TEXT]; /* LAUNCH_NOTIFY_FD: the address of the cell, 8 bytes */
};

/* A child that was created, or is being created. */
struct launch {
    pid_t pid;
    int pidfd;
    int channel; /* our end */
};

struct launch_opts {
    int cgroup_fd;  /* -1: stay where we are */
    int stdio[3];   /* -1: /dev/null */
    int start_fd;   /* listening socket for the start; -1: over the channel */
    int console_fd; /* -1 */
    bool user_namespace;
    bool partial_cgroup; /* CLONE_INTO_CGROUP may fail: go on without */
};

/* Start the child. Namespaces given by path are entered first and left again. */
int launch_start(const struct ctr_spec *s, struct launch_plan *p, const struct launch_opts *o,
                 struct launch *ret, struct err *e) MUST_CHECK;
/* Wait for a message of this kind. LAUNCH_FAILED becomes an error. */
int launch_expect(struct launch *l, enum launch_msg_kind kind, struct err *e) MUST_CHECK;
int launch_go(struct launch *l, struct err *e) MUST_CHECK;
/*
 * The last go, over the channel or a connection to the start socket: 0 when the program was executed, 1 when a seccomp
 * listener is to be handed over first (its cell's address is in *ret_cell), and then launch_outcome tells the rest.
 * ret_cell NULL: there is to be none.
 */
int launch_release(int fd, uint64_t *ret_cell, struct err *e) MUST_CHECK;
int launch_outcome(int fd, struct err *e) MUST_CHECK;
/* Both, and the listener to where it goes (notify NULL: there is none). */
struct notify_to;
int launch_await_exec(int fd, const struct notify_to *notify, struct err *e) MUST_CHECK;
/* What only the host's root may do for a process in a user namespace: raise hard limits, set the OOM score. */
int launch_raise_limits(const struct ctr_process *p, pid_t pid, struct err *e) MUST_CHECK;
/* In a child of ours: descriptors 0, 1, 2. */
void launch_set_stdio(const int stdio[3]);
/* Kill, reap, close; for every failure after launch_start. */
void launch_abort(struct launch *l);
