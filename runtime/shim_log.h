#pragma once
/*
 * shim_log.h - the container's own stdout and stderr, kept within BOUND_CTR_STDERR. Not for others.
 *
 * The first half goes to the file as it comes, of what follows the last half is kept behind a mark that says how much
 * lies between: the first words tell what was tried, the last ones why it ended. Nothing is allocated later.
 * Threads: single-threaded programs only. Ownership: plain; shim_log_close.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bounds.h"
#include "base/cleanup.h"

struct err;

enum {
    SHIM_LOG_HEAD = BOUND_CTR_STDERR / 2,
    SHIM_LOG_MARK = 64,
    SHIM_LOG_TAIL = BOUND_CTR_STDERR / 2 - SHIM_LOG_MARK
};

struct shim_log {
    int pipe, file;           /* reading end, not blocking; -1 when closed */
    uint64_t total;           /* bytes that came */
    char tail[SHIM_LOG_TAIL]; /* ring of what came after the head */
};

/* Make the pipe and the file; *ret_write is the end for the container, for the caller to close. */
int shim_log_open(int dirfd, const char *name, struct shim_log *l, int *ret_write, struct err *e)
    MUST_CHECK;
/* Take what is in the pipe, at most `budget` bytes. True when more may be there. Closes the pipe at its end. */
bool shim_log_drain(struct shim_log *l, size_t budget);
void shim_log_close(struct shim_log *l);
