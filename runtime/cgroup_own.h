#pragma once
/*
 * cgroup_own.h - what cgroup*.c share: the group object. Not for others.
 */
#include "runtime/cgroup.h"

enum ctr_cgroup_file {
    CG_CPU_STAT,
    CG_MEMORY_CURRENT,
    CG_MEMORY_PEAK,
    CG_MEMORY_MAX,
    CG_SWAP_CURRENT,
    CG_MEMORY_EVENTS,
    CG_PIDS_CURRENT,
    CG_PIDS_EVENTS,
    CG_IO_STAT,
    CG_CPU_PRESSURE,
    CG_MEMORY_PRESSURE,
    CG_IO_PRESSURE,
    CG_N_FILES
};

/* Values of files[] below 0. */
enum { CG_NOT_OPENED = -1, CG_NOT_THERE = -2 };

struct ctr_cgroup {
    int fd;
    char *path;
    int files[CG_N_FILES]; /* held open by ctr_cgroup_stats */
    uint64_t peak_seen;    /* most memory.current read, for kernels without memory.peak */
};

/* A directory below `at`, for reading; -1 with errno. */
int ctr_cgroup_open_dir(int at, const char *name);
/* Remove all groups below the directory. */
int ctr_cgroup_remove_children(int dir, struct err *e) MUST_CHECK;
