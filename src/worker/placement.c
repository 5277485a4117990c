#include "worker/placement.h"

#include "base/err.h"
#include "base/mem.h"
#include "worker/topology.h"

static bool is_free(const struct cpu_set *allowed, const struct cpu_set *used, unsigned cpu)
{
    return cpu_set_has(allowed, cpu) && !cpu_set_has(used, cpu);
}

static unsigned free_on(const struct topology *t, const struct cpu_set *allowed,
                        const struct cpu_set *used, int node)
{
    unsigned n = 0;

    for (size_t i = 0; i < t->n; i++)
        n += (node < 0 || t->cpus[i].node == node) && is_free(allowed, used, t->cpus[i].cpu);
    return n;
}

/* Free CPUs of one core; *whole: no sibling is held by anybody else. */
static unsigned free_in_core(const struct topology *t, const struct cpu_set *allowed,
                             const struct cpu_set *used, unsigned core, bool *whole)
{
    unsigned n = 0;

    *whole = true;
    for (size_t i = 0; i < t->n; i++) {
        if (t->cpus[i].core != core)
            continue;
        n += is_free(allowed, used, t->cpus[i].cpu);
        *whole &= !cpu_set_has(used, t->cpus[i].cpu);
    }
    return n;
}

static unsigned take_core(const struct topology *t, const struct cpu_set *allowed,
                          const struct cpu_set *used, unsigned core, unsigned n,
                          struct cpu_set *ret)
{
    unsigned taken = 0;

    for (size_t i = 0; i < t->n && taken < n; i++) {
        unsigned cpu = t->cpus[i].cpu;
        if (t->cpus[i].core != core || cpu_set_has(ret, cpu) || !is_free(allowed, used, cpu))
            continue;
        cpu_set_add(ret, cpu);
        taken++;
    }
    return taken;
}

/* Up to n CPUs of a node: cores that fit whole, then parts of cores already shared, then anything. */
static unsigned take_node(const struct topology *t, const struct cpu_set *allowed,
                          const struct cpu_set *used, int node, unsigned n, struct cpu_set *ret)
{
    unsigned taken = 0;

    for (int pass = 0; pass < 3; pass++)
        for (size_t i = 0; i < t->n && taken < n; i++) {
            const struct topology_cpu *c = &t->cpus[i];
            bool whole;
            if (c->node != node || !is_free(allowed, used, c->cpu) || cpu_set_has(ret, c->cpu))
                continue;
            unsigned here = free_in_core(t, allowed, used, c->core, &whole);
            if ((pass == 0 && (!whole || here > n - taken)) || (pass == 1 && whole))
                continue;
            taken += take_core(t, allowed, used, c->core, n - taken, ret);
        }
    return taken;
}

static int highest_node(const struct topology *t)
{
    int most = 0;

    for (size_t i = 0; i < t->n; i++)
        most = t->cpus[i].node > most ? t->cpus[i].node : most;
    return most;
}

/* The node with the fewest free CPUs that still suffice; none: the one with the most. -1: nothing is free. */
static int best_node(const struct topology *t, const struct cpu_set *allowed,
                     const struct cpu_set *used, unsigned n, int near)
{
    unsigned best_free = 0;
    int best = -1;

    if (near >= 0 && free_on(t, allowed, used, near) >= n)
        return near;
    for (int node = 0; node <= highest_node(t); node++) {
        unsigned here = free_on(t, allowed, used, node);
        bool fits = here >= n, best_fits = best_free >= n;
        if (here && (best < 0 || (fits && (!best_fits || here < best_free)) ||
                     (!fits && !best_fits && here > best_free))) {
            best = node;
            best_free = here;
        }
    }
    return best;
}

bool placement_cpus(const struct topology *t, const struct cpu_set *allowed,
                    const struct cpu_set *used, unsigned n, int near, struct cpu_set *ret,
                    struct cpu_set *ret_nodes)
{
    struct cpu_set taken = *used;

    *ret = *ret_nodes = (struct cpu_set){0};
    if (free_on(t, allowed, used, -1) < n)
        return false;
    while (n > 0) {
        int node = best_node(t, allowed, &taken, n, near);
        BUG_ON(node < 0);
        struct cpu_set got = {0};
        n -= take_node(t, allowed, &taken, node, n, &got);
        cpu_set_add(ret_nodes, (unsigned)node);
        for (int cpu = cpu_set_next(&got, 0); cpu >= 0;
             cpu = cpu_set_next(&got, (unsigned)cpu + 1)) {
            cpu_set_add(ret, (unsigned)cpu);
            cpu_set_add(&taken, (unsigned)cpu);
        }
        near = -1;
    }
    return true;
}

static unsigned gpus_on(const struct placement_gpu *gpus, size_t n_gpus, int node)
{
    unsigned n = 0;

    for (size_t i = 0; i < n_gpus; i++)
        n += !gpus[i].used && gpus[i].node == node;
    return n;
}

bool placement_gpus(const struct placement_gpu *gpus, size_t n_gpus, unsigned n, size_t *ret_index,
                    int *ret_node)
{
    unsigned available = 0, best_free = 0, taken = 0;
    int best = -1;

    for (size_t i = 0; i < n_gpus; i++) {
        unsigned here = gpus_on(gpus, n_gpus, gpus[i].node);
        available += !gpus[i].used;
        if (!gpus[i].used && gpus[i].node >= 0 && here >= n && (best < 0 || here < best_free)) {
            best = gpus[i].node;
            best_free = here;
        }
    }
    if (available < n)
        return false;
    *ret_node = n ? best : -1;
    for (int pass = best >= 0 ? 0 : 1; pass < 2; pass++)
        for (size_t i = 0; i < n_gpus && taken < n; i++)
            if (!gpus[i].used && (pass == 1 || gpus[i].node == best))
                ret_index[taken++] = i;
    return true;
}

char *placement_shortage(const char *uuid, const char *what, int64_t wanted, unsigned available,
                         unsigned total)
{
    return mem_printf(
        "Unexpectedly unable to assign enough resources to bundle %s: Requested more %s (%lld) than "
        "available (%u currently out of %u on the machine)",
        uuid, what, (long long)wanted, available, total);
}
