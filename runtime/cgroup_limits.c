#include "runtime/cgroup_limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "runtime/cgroup.h"
#include "runtime/spec.h"

static const struct {
    const char *name;
    unsigned bit;
} controllers[] = {
    {"cpuset", CTR_CG_CPUSET}, {"cpu", CTR_CG_CPU},   {"io", CTR_CG_IO},
    {"memory", CTR_CG_MEMORY}, {"pids", CTR_CG_PIDS}, {"hugetlb", CTR_CG_HUGETLB},
    {"rdma", CTR_CG_RDMA},     {"misc", CTR_CG_MISC},
};

unsigned ctr_cgroup_limits_mask(const char *names)
{
    AUTO(str_list) struct str_list l = {0};
    AUTO_FREE char *text = mem_strndup(names, strcspn(names, "\n"));
    unsigned mask = 0;

    str_list_split(&l, text, ' ');
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        if (str_list_has(&l, controllers[i].name))
            mask |= controllers[i].bit;
    return mask;
}

const char *ctr_cgroup_limits_name(unsigned bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        if (controllers[i].bit == bit)
            return controllers[i].name;
    return "?";
}

unsigned ctr_cgroup_limits_controller(const char *file)
{
    size_t n = strcspn(file, ".");

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        if (strlen(controllers[i].name) == n && strncmp(controllers[i].name, file, n) == 0)
            return controllers[i].bit;
    return 0;
}

char *ctr_cgroup_controller_names(unsigned mask, char buf[64])
{
    size_t at = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++)
        if (mask & controllers[i].bit)
            at += (size_t)snprintf(buf + at, 64 - at, "%s%s", at ? ", " : "", controllers[i].name);
    return buf;
}

/*
 * log2(n) and 10^x, to some 1e-12. Not libm's: it would be one library more to map at each start of cwrt, for a value
 * that few containers have.
 */
static double log2_of(uint64_t n)
{
    int whole = 63 - __builtin_clzll(n);
    double m = (double)n / (double)(1ULL << whole), r = whole, bit = 1;

    for (int i = 0; i < 46; i++) {
        m *= m;
        bit /= 2;
        if (m >= 2) {
            m /= 2;
            r += bit;
        }
    }
    return r;
}

static double power_of_10(double x)
{
    const double ln2 = 0.69314718055994530942, log2_10 = 3.32192809488736234787;
    double y = x * log2_10, term = 1, sum = 1;
    int whole = (int)y;

    for (int i = 1; i < 20; i++) {
        term *= (y - whole) * ln2 / i;
        sum += term;
    }
    return sum * (double)(1ULL << whole);
}

/* Linear weights would turn the default of 1024 shares into 39, well below the 100 that every other group has. This
 * curve goes through (2, 1), (1024, 100) and (262144, 10000). */
uint64_t ctr_cgroup_weight_of_shares(uint64_t shares)
{
    if (shares == 0)
        return 0;
    if (shares <= 2)
        return 1;
    if (shares >= 262144)
        return 10000;
    double l = log2_of(shares);
    double weight = power_of_10((l * l + 125 * l) / 612.0 - 7.0 / 34.0);
    uint64_t whole = (uint64_t)(weight - 1e-9);

    return whole + 1; /* rounded up */
}

uint64_t ctr_cgroup_io_weight_of_blkio(uint64_t weight)
{
    if (weight == 0)
        return 0;
    if (weight < 10)
        weight = 10;
    if (weight > 1000)
        weight = 1000;
    return 1 + (weight - 10) * 9999 / 990;
}

static struct ctr_cgroup_write *add(struct ctr_cgroup_limits *l, const char *file)
{
    struct ctr_cgroup_write *w = &l->items[l->n++];

    w->file = file;
    w->value = w->buf;
    l->controllers |= ctr_cgroup_limits_controller(file);
    return w;
}

static void add_u64(struct ctr_cgroup_limits *l, const char *file, uint64_t value)
{
    struct ctr_cgroup_write *w = add(l, file);

    snprintf(w->buf, sizeof(w->buf), "%" PRIu64, value);
}

/* -1 is "max". */
static int add_limit(struct ctr_cgroup_limits *l, const char *file, int64_t value, struct err *e)
{
    if (value < -1)
        return err_set(e, ERR_USER, "%s: %" PRId64 " is not a limit", file, value);
    if (value == -1)
        snprintf(add(l, file)->buf, sizeof(l->items[0].buf), "max");
    else
        add_u64(l, file, (uint64_t)value);
    return 0;
}

static int add_memory(const struct ctr_resources *r, struct ctr_cgroup_limits *l, struct err *e)
{
    if (r->memory_limit && add_limit(l, "memory.max", r->memory_limit, e) < 0)
        return -1;
    if (r->memory_swap_limit != INT64_MIN &&
        add_limit(l, "memory.swap.max", r->memory_swap_limit, e) < 0)
        return -1;
    if (r->memory_reservation && add_limit(l, "memory.low", r->memory_reservation, e) < 0)
        return -1;
    return 0;
}

static int add_cpu(const struct ctr_resources *r, struct ctr_cgroup_limits *l, struct err *e)
{
    if (r->cpu_shares)
        add_u64(l, "cpu.weight", ctr_cgroup_weight_of_shares(r->cpu_shares));
    if (r->cpu_idle < 0 || r->cpu_idle > 1)
        return err_set(e, ERR_USER, "cpu.idle: %" PRId64 " is neither 0 nor 1", r->cpu_idle);
    if (r->cpu_idle)
        add_u64(l, "cpu.idle", 1);
    if (r->cpu_burst < 0)
        return err_set(e, ERR_USER, "cpu.max.burst: %" PRId64 " is below 0", r->cpu_burst);
    /* A burst above the quota is refused, whichever is written first: empty it, set the quota, set it. */
    if (r->cpu_burst)
        add_u64(l, "cpu.max.burst", 0);
    if (r->cpu_quota || r->cpu_period) {
        struct ctr_cgroup_write *w = add(l, "cpu.max");
        uint64_t period = r->cpu_period ? r->cpu_period : 100000;

        if (r->cpu_quota > 0)
            snprintf(w->buf, sizeof(w->buf), "%" PRId64 " %" PRIu64, r->cpu_quota, period);
        else
            snprintf(w->buf, sizeof(w->buf), "max %" PRIu64, period);
    }
    if (r->cpu_burst)
        add_u64(l, "cpu.max.burst", (uint64_t)r->cpu_burst);
    return 0;
}

static void add_borrowed(struct ctr_cgroup_limits *l, const char *file, const char *value)
{
    add(l, file)->value = value;
}

static int add_unified(const struct ctr_resources *r, struct ctr_cgroup_limits *l, struct err *e)
{
    for (size_t i = 0; i < r->n_unified; i++) {
        const char *file = r->unified[i].key;

        /* A file of a controller or a knob of the group, never a way out of the directory. */
        if (!path_is_component(file) || !strchr(file, '.') || file[0] == '.')
            return err_set(e, ERR_USER, "unified: \"%s\" is not the name of a cgroup file", file);
        add_borrowed(l, file, r->unified[i].value);
    }
    return 0;
}

int ctr_cgroup_limits_of(const struct ctr_resources *r, struct ctr_cgroup_limits *ret,
                         struct err *e)
{
    enum { FIXED = 16 };
    AUTO(ctr_cgroup_limits) struct ctr_cgroup_limits l = {0};

    l.items = mem_array(FIXED + r->n_unified, sizeof(l.items[0]));
    /* The cpuset comes first: a process that enters a group with an old set would be moved twice. */
    if (r->cpuset_cpus && *r->cpuset_cpus)
        add_borrowed(&l, "cpuset.cpus", r->cpuset_cpus);
    if (r->cpuset_mems && *r->cpuset_mems)
        add_borrowed(&l, "cpuset.mems", r->cpuset_mems);
    if (add_memory(r, &l, e) < 0 || add_cpu(r, &l, e) < 0)
        return -1;
    if (r->pids_limit && add_limit(&l, "pids.max", r->pids_limit, e) < 0)
        return -1;
    if (add_unified(r, &l, e) < 0)
        return -1;
    *ret = l;
    l = (struct ctr_cgroup_limits){0};
    return 0;
}

void ctr_cgroup_limits_free(struct ctr_cgroup_limits *l)
{
    free(l->items);
    *l = (struct ctr_cgroup_limits){0};
}
