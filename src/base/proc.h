#pragma once
/*
 * proc.h - helper programs (S09): fixed argv, cleaned environment, no inherited descriptors, a
 * time-out, capped output. By posix_spawn; awaited by pidfd, never by number. Threads: any.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct str;

/* Where programs are looked for, and the PATH they get; our own PATH is not trusted. */
#define PROC_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct proc_result {
    int status; /* exit status, or 128 + signal */
};

/*
 * Run argv[0] (absolute path, or looked up in the fixed PATH) and wait.
 *   env         NULL: PATH, HOME=/, LC_ALL=C only
 *   input       written to its stdin (may be NULL)
 *   out, err    bounded; NULL: /dev/null. Excess output kills the program: ERR_LIMIT
 * Errors: ERR_ABSENT not found; ERR_LIMIT time-out or output. A non-zero status is no error here.
 */
int proc_run(char *const argv[], char *const env[], const void *input, size_t input_n,
             struct str *out, struct str *err_out, uint64_t timeout_ns, struct proc_result *ret,
             struct err *e) MUST_CHECK;

/*
 * Start a program of ours with chosen descriptors: fds[i] becomes descriptor i (-1: /dev/null), all
 * others are closed. New session. Returns its pidfd; *ret_pid may be NULL. The caller reaps it with
 * waitid(P_PIDFD).
 */
int proc_spawn(const char *path, char *const argv[], char *const env[], const int *fds,
               size_t n_fds, pid_t *ret_pid, struct err *e) MUST_CHECK;
