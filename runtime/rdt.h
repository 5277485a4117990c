#pragma once
/*
 * rdt.h - linux.intelRdt: a container's share of cache and memory bandwidth, by the kernel's resctrl file system.
 *
 *   <resctrl>/<closID, or the container's id>/schemata, tasks, mon_groups/<container's id>/tasks
 *
 * A group of the container's id is made and removed by us. One that config.json names may be others' as well: it is made
 * when it is missing and schemata are given, and stays. Children inherit the group of their parent.
 * Source: runtime-spec config-linux.md "IntelRdt"; Linux Documentation/arch/x86/resctrl.rst. Threads: any.
 */
#include <sys/types.h>

#include "base/cleanup.h"

struct cJSON;
struct ctr_rdt;
struct err;

/* config.json's object, judged. */
int rdt_read(const struct cJSON *o, struct ctr_rdt *ret, struct err *e) MUST_CHECK;
struct cJSON *rdt_write(const struct ctr_rdt *r);
void rdt_free(struct ctr_rdt *r);

/*
 * root: where resctrl is mounted; NULL: it is looked for, ERR_HOST when the host has none.
 * Make or judge the container's group and put the process in. On failure no group of ours is left.
 */
int rdt_place(const char *root, const struct ctr_rdt *r, const char *id, pid_t pid, struct err *e)
    MUST_CHECK;
/* Another process of a container that has been placed. */
int rdt_join(const char *root, const struct ctr_rdt *r, const char *id, pid_t pid, struct err *e)
    MUST_CHECK;
/* Take away what rdt_place made for this container alone; what is not there is fine. */
void rdt_remove(const char *root, const struct ctr_rdt *r, const char *id);
