#pragma once
/*
 * topology.h - cores, NUMA nodes and memory of this host, as the kernel tells them.
 *
 * Threads: any. Ownership: plain data, topology_free. Blocks: reads /sys once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/units.h"

struct err;

struct topology_cpu {
    unsigned cpu;
    unsigned core; /* lowest CPU of the same physical core */
    int node;      /* NUMA node; 0 where the kernel knows none */
};
struct topology {
    struct topology_cpu *cpus; /* by number */
    size_t n;
    struct cpu_set affinity; /* the CPUs this process may use */
};

/* sysfs: "/sys", or a test's. */
int topology_read(const char *sysfs, struct topology *ret, struct err *e) MUST_CHECK;
void topology_free(struct topology *t);
DEFINE_AUTO_VALUE(topology, topology_free)

/*
 * --cpuset: "ALL", or CPU numbers with commas, within the affinity mask (B203, D28). ERR_USER with the protocol's
 * texts ("CPUSET_STR invalid: CPUs out of range", …).
 */
int topology_cpuset(const struct topology *t, const char *text, struct cpu_set *ret, struct err *e)
    MUST_CHECK;

/* Physical memory in bytes. */
uint64_t topology_memory(void);
