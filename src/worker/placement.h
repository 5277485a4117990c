#pragma once
/*
 * placement.h - which CPUs and GPUs a run gets. Pure.
 *
 * Whole cores before shared ones, one NUMA node before several (the fullest node that still fits, so that big
 * requests find room later), CPUs near the GPUs. A set is held from the decision to the end of the container.
 * Source: protocol 5.5 (B075-B077), D27. Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/units.h"

struct err;
struct topology;

struct placement_gpu {
    const char *uuid;
    int node;  /* -1: unknown */
    bool used; /* held by a run, or withdrawn */
};

/*
 * Choose n free CPUs out of `allowed`.
 *   near   NUMA node to prefer, or -1
 *   ret_nodes  the nodes of the CPUs chosen, for cpuset.mems
 * False when fewer are free.
 */
bool placement_cpus(const struct topology *t, const struct cpu_set *allowed,
                    const struct cpu_set *used, unsigned n, int near, struct cpu_set *ret,
                    struct cpu_set *ret_nodes);
/* Choose n free GPUs, all of one node where possible: their indices. False when fewer are free. */
bool placement_gpus(const struct placement_gpu *gpus, size_t n_gpus, unsigned n, size_t *ret_index,
                    int *ret_node);
/* "Unexpectedly unable to assign enough resources to bundle {uuid}: Requested more CPUs (…" (5.5); a new string. */
char *placement_shortage(const char *uuid, const char *what, int64_t wanted, unsigned available,
                         unsigned total);
