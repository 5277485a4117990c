#pragma once
/*
 * shim_hand.h - what the maker of a container leaves to the shim it becomes: the same process, another program.
 *
 *   daemon ── spawns ──► cwrt shim CWSHIM ID    lock, socket, HELLO, config.json parsed, container created
 *                           └── execve ──► cwshim ID    STATE, wait, answer, record, end
 *
 * The kernel keeps children, descriptors and the lock over an exec, and lets go of all memory. So what parses and compiles
 * may be large, and what stays for days is a static program of a few pages that knows neither specs nor JSON.
 * Descriptors lie at fixed numbers, those that are not there are closed; the rest is a struct on a memfd. Both ends are
 * of one installation: a struct of another size or mark is refused.
 * Threads: single-threaded programs only.
 */
#include <stdint.h>

#include "base/bounds.h"
#include "base/cleanup.h"
#include "runtime/shim_proto.h"

struct err;

/* Behind the runtime directory and the connection to the daemon, which stay where the daemon put them. */
enum {
    SHIM_FD_HAND = SHIM_FD_CONFIG, /* the struct */
    SHIM_FD_LOCK = SHIM_N_FDS,     /* held by flock */
    SHIM_FD_LISTENER,              /* the control socket */
    SHIM_FD_INIT,                  /* pidfd of the container's first process */
    SHIM_FD_CHANNEL,               /* to it, for the start */
    SHIM_FD_CGROUP,                /* may be missing, as the next one */
    SHIM_FD_NETNS,
    SHIM_FD_LOG_PIPE,
    SHIM_FD_LOG_FILE,
    SHIM_FD_END,
};

struct shim_hand {
    uint32_t magic, size;
    int32_t pid; /* of the first process */
    int32_t reserved;
    char cgroup[BOUND_PATH]; /* in the hierarchy; "" when there is none */
    char note[sizeof(((struct shim_msg *)0)->text)];
};

/* Before anything is opened: keep the numbers, so that what is opened from now on lies above them and survives an exec
 * that fails. */
int shim_hand_reserve(struct err *e) MUST_CHECK;
/*
 * Become `shim`. Returns only when that failed, and then nothing of ours has changed.
 *   fds   by number from SHIM_FD_LOCK on, all from SHIM_FD_END up; -1 for one that is not there
 */
int shim_hand_over(const char *shim, const char *id, const struct shim_hand *h,
                   const int fds[SHIM_FD_END], struct err *e) MUST_CHECK;
/* The other end: read and judge it; all descriptors are close-on-exec again. fds[i]: i, or -1. */
int shim_hand_take(struct shim_hand *ret, int fds[SHIM_FD_END], struct err *e) MUST_CHECK;
