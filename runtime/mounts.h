#pragma once
/*
 * mounts.h - the part of the plan that mounts. Pure. Threads: any.
 * Source: runtime-spec config.md "Mounts", config-linux.md "Masked Paths", "Readonly Paths"; S34, S36, S41.
 */
#include "base/cleanup.h"
#include "runtime/plan.h"

struct ctr_mount;

/* What later parts refer to; -1: none. */
struct plan_mounts {
    int root, proc, devpts, null_node;
    bool own_dev; /* /dev is a tmpfs of ours, or the root's directory: to be populated */
};

/* An option that a bind is given and that is for file systems; the kernel passes it over too. NULL: none; borrowed. */
const char *mounts_option_of_no_effect(const struct ctr_mount *m);

/* File systems and sources: before OP_ENTER_ROOT. */
int mounts_plan_sources(struct launch_plan *p, const struct ctr_spec *s,
                        const struct plan_input *in, struct plan_mounts *ret, struct err *e)
    MUST_CHECK;
/* Putting them in place, in the order of the spec. */
void mounts_plan_attach(struct launch_plan *p, const struct ctr_spec *s,
                        const struct plan_mounts *m);
/* Masks, read-only paths, read-only file systems, the root's propagation: after everything was written. */
void mounts_plan_seal(struct launch_plan *p, const struct ctr_spec *s, const struct plan_mounts *m);
