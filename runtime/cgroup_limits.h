#pragma once
/*
 * cgroup_limits.h - resources of config.json as a list of writes to a group's files. Pure.
 *
 * The list is in the order the kernel wants; cgroup.c carries it out. Threads: any. Ownership: plain data, text in
 * `unified` values is borrowed from the resources until the list is dropped.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct ctr_resources;

struct ctr_cgroup_write {
    const char *file;  /* "memory.max" */
    const char *value; /* what is written; several lines are several writes */
    char buf[48];      /* holds value unless it is borrowed */
};

struct ctr_cgroup_limits {
    struct ctr_cgroup_write *items;
    size_t n;
    unsigned controllers; /* CTR_CG_… the writes need */
};

/* Errors: ERR_USER for values that no kernel takes and for names in `unified` that are no file of a controller. */
int ctr_cgroup_limits_of(const struct ctr_resources *r, struct ctr_cgroup_limits *ret,
                         struct err *e) MUST_CHECK;
void ctr_cgroup_limits_free(struct ctr_cgroup_limits *l);
DEFINE_AUTO_VALUE(ctr_cgroup_limits, ctr_cgroup_limits_free)

/* CTR_CG_… of "memory.max"; 0 for other controllers. */
unsigned ctr_cgroup_limits_controller(const char *file);
/* Mask of the known names in "cpuset cpu io …"; and the name of one bit. */
unsigned ctr_cgroup_limits_mask(const char *names);
const char *ctr_cgroup_limits_name(unsigned bit);
