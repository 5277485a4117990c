#pragma once
/*
 * devices.h - the part of the plan that populates /dev (S35). Pure. Threads: any.
 * Source: runtime-spec config-linux.md "Default Devices", "Default symlinks" (dev symbolic links).
 */
#include "base/cleanup.h"
#include "runtime/mounts.h"

/* Nodes are bound from the host's where a user namespace forbids mknod(2); the slots are added before OP_ENTER_ROOT. */
void devices_plan_sources(struct launch_plan *p, const struct ctr_spec *s, bool userns,
                          const struct plan_mounts *m, int *ret_first);
void devices_plan_attach(struct launch_plan *p, const struct ctr_spec *s, bool userns,
                         const struct plan_mounts *m, int first);
