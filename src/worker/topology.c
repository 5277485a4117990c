#include "worker/topology.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

#define SYSFS_TEXT 8192

static int read_list(int dir, const char *name, struct cpu_set *ret, struct err *e)
{
    AUTO(str) struct str s = STR_INIT(SYSFS_TEXT);

    if (fd_read_file_at(dir, name, &s, e) < 0)
        return -1;
    if (s.len && s.buf[s.len - 1] == '\n')
        s.buf[--s.len] = '\0';
    return cpu_set_parse(str_text(&s), ret, e);
}

static unsigned core_of(int sysfs, unsigned cpu)
{
    struct err ignored = ERR_INIT;
    struct cpu_set siblings = {0};
    char name[128];

    snprintf(name, sizeof(name), "devices/system/cpu/cpu%u/topology/core_cpus_list", cpu);
    if (read_list(sysfs, name, &siblings, &ignored) < 0)
        return cpu;
    int first = cpu_set_next(&siblings, 0);
    return first < 0 ? cpu : (unsigned)first;
}

static void read_nodes(int sysfs, struct topology *t)
{
    struct err ignored = ERR_INIT;
    struct cpu_set nodes = {0};

    if (read_list(sysfs, "devices/system/node/online", &nodes, &ignored) < 0)
        return; /* a kernel without NUMA: all is node 0 */
    for (int node = cpu_set_next(&nodes, 0); node >= 0;
         node = cpu_set_next(&nodes, (unsigned)node + 1)) {
        struct cpu_set cpus = {0};
        char name[64];

        snprintf(name, sizeof(name), "devices/system/node/node%d/cpulist", node);
        if (read_list(sysfs, name, &cpus, &ignored) < 0)
            continue;
        for (size_t i = 0; i < t->n; i++)
            if (cpu_set_has(&cpus, t->cpus[i].cpu))
                t->cpus[i].node = node;
    }
}

static int read_affinity(struct cpu_set *ret, struct err *e)
{
    size_t size = CPU_ALLOC_SIZE(UNITS_CPU_MAX);
    AUTO_FREE cpu_set_t *mask = mem_zalloc(size);

    if (sched_getaffinity(0, size, mask) < 0)
        return err_sys(e, "read the affinity mask");
    for (unsigned i = 0; i < UNITS_CPU_MAX; i++)
        if (CPU_ISSET_S(i, size, mask))
            cpu_set_add(ret, i);
    return 0;
}

int topology_read(const char *sysfs, struct topology *ret, struct err *e)
{
    AUTO(topology) struct topology t = {0};
    AUTO_CLOSE int dir = open(sysfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct cpu_set online = {0};

    if (dir < 0)
        return err_sys(e, "open %s", sysfs);
    if (read_affinity(&t.affinity, e) < 0 ||
        read_list(dir, "devices/system/cpu/online", &online, e) < 0)
        return -1;
    t.cpus = mem_array(cpu_set_count(&online) + 1, sizeof(*t.cpus));
    for (int cpu = cpu_set_next(&online, 0); cpu >= 0;
         cpu = cpu_set_next(&online, (unsigned)cpu + 1))
        t.cpus[t.n++] =
            (struct topology_cpu){.cpu = (unsigned)cpu, .core = core_of(dir, (unsigned)cpu)};
    read_nodes(dir, &t);
    *ret = t;
    t.cpus = NULL;
    return 0;
}

void topology_free(struct topology *t)
{
    free(t->cpus);
    t->cpus = NULL;
    t->n = 0;
}

/* As Python's int(): blanks and a sign are taken. What cannot be a CPU's number is UNITS_CPU_MAX. */
static int read_cpu(const char *text, unsigned *ret)
{
    struct err ignored = ERR_INIT;
    size_t n = strlen(text);
    int64_t number = 0;

    while (n && strchr(" \t", text[n - 1]))
        n--;
    while (n && strchr(" \t", *text))
        text++, n--;
    if (n > 1 && *text == '+' && text[1] != '-')
        text++, n--;
    AUTO_FREE char *plain = mem_strndup(text, n);
    if (units_i64(plain, INT32_MIN, INT32_MAX, &number, &ignored) < 0)
        return -1;
    *ret = number < 0 || number >= UNITS_CPU_MAX ? UNITS_CPU_MAX : (unsigned)number;
    return 0;
}

int topology_cpuset(const struct topology *t, const char *text, struct cpu_set *ret, struct err *e)
{
    AUTO(str_list) struct str_list parts = {0};
    struct cpu_set set = {0};
    bool twice = false, outside = false;

    if (str_eq(text, "ALL")) {
        *ret = t->affinity;
        return 0;
    }
    str_list_split(&parts, text, ',');
    for (size_t i = 0; i < parts.n; i++) {
        unsigned cpu = 0;

        if (read_cpu(parts.items[i], &cpu) < 0)
            return err_set(
                e, ERR_USER,
                "CPUSET_STR invalid format: must be a string of comma-separated integers");
        for (size_t k = 0; k < i; k++)
            twice |= str_eq(parts.items[i], parts.items[k]);
        twice |= cpu < UNITS_CPU_MAX && cpu_set_has(&set, cpu);
        outside |= cpu >= UNITS_CPU_MAX || !cpu_set_has(&t->affinity, cpu);
        if (cpu < UNITS_CPU_MAX)
            cpu_set_add(&set, cpu);
    }
    /* In the order in which the Python worker looks (11.1). */
    if (twice)
        return err_set(e, ERR_USER, "CPUSET_STR invalid: CPUs not distinct values");
    if (outside)
        return err_set(e, ERR_USER, "CPUSET_STR invalid: CPUs out of range");
    *ret = set;
    return 0;
}

uint64_t topology_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGE_SIZE);

    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}
