#pragma once
/*
 * notify.h - the seccomp listener: a filter's notification descriptor, handed to the agent that config.json names.
 *
 *   child                                             whoever lets it go on (create's caller, `start`, `exec`)
 *   LAUNCH_NOTIFY_FD with the address of a cell ────►
 *   seccomp(NEW_LISTENER); cell.fd = descriptor        reads the cell until there is one
 *   waits, without any system call                     pidfd_getfd, state and descriptor to listenerPath; cell.done = 1
 * From the moment the filter holds, any call of the child could be one that the agent has to answer; so it makes none
 * until the agent has the descriptor.
 * Source: runtime-spec config-linux.md "Seccomp", "The Container Process State"; seccomp_unotify(2).
 * Threads: any.
 */
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;

/* In the child's memory. */
struct notify_cell {
    volatile int fd;   /* -1 until the filter is loaded */
    volatile int done; /* set from outside */
};

struct notify_to {
    pid_t pid;
    int pidfd;
    const char *path;     /* linux.seccomp.listenerPath */
    const char *metadata; /* or NULL */
    const char *state;    /* the container's, as JSON */
};
/* cell: its address in the child. ERR_USER when the agent does not take it. Blocks: until the child has loaded it. */
int notify_hand_over(const struct notify_to *to, uint64_t cell, struct err *e) MUST_CHECK;
