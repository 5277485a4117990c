#pragma once
/*
 * exit.h - how a container ended, as the kernel told it. Door of runtime/.
 *
 * Written once by cwshim, atomically, where the container has no path to (S48, S56). DESIGN §5.
 * Threads: any.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;

struct exit_record {
    bool started;    /* the user's program was executed */
    int status;      /* 0..255 exit status, or 128 + signal; -1 unknown */
    int signal;      /* 0, or the signal that ended it */
    bool oom_killed; /* memory.events oom_kill > 0 of the run's cgroup */
    uint64_t oom_kills;
    uint64_t start_ns, end_ns; /* CLOCK_BOOTTIME */
    double start_epoch, end_epoch;
    uint64_t user_us, system_us; /* cpu.stat */
    uint64_t memory_peak;        /* bytes; 0 unknown */
    uint64_t max_rss_kib;        /* rusage of the init */
    char start_error[504];       /* why it could not be started; "" */
    int start_error_kind;        /* enum err_kind */
};

#define EXIT_FILE "exit.json"

/* The file in the run's runtime directory. ERR_ABSENT while it runs. */
int ctr_exit_read(int dirfd, struct exit_record *ret, struct err *e) MUST_CHECK;
int ctr_exit_write(int dirfd, const struct exit_record *r, struct err *e) MUST_CHECK;
