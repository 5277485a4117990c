/*
 * cgroup_stats.c - figures of a group, read from files that are opened once: twelve preads a call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"
#include "runtime/cgroup_own.h"

static const char *const file_names[CG_N_FILES] = {
    [CG_CPU_STAT] = "cpu.stat",           [CG_MEMORY_CURRENT] = "memory.current",
    [CG_MEMORY_PEAK] = "memory.peak", /* Linux 5.19 */
    [CG_MEMORY_MAX] = "memory.max",       [CG_SWAP_CURRENT] = "memory.swap.current",
    [CG_MEMORY_EVENTS] = "memory.events", [CG_PIDS_CURRENT] = "pids.current",
    [CG_PIDS_EVENTS] = "pids.events",     [CG_IO_STAT] = "io.stat",
    [CG_CPU_PRESSURE] = "cpu.pressure",   [CG_MEMORY_PRESSURE] = "memory.pressure",
    [CG_IO_PRESSURE] = "io.pressure",
};

enum { FILE_MAX = 16 << 10 }; /* io.stat of a host with a hundred disks; a longer one is cut */

/* Text of a file, "" when the kernel has none. -1 only when the group itself is gone. */
static int read_held(struct ctr_cgroup *cg, enum ctr_cgroup_file f, char *buf)
{
    ssize_t n = -1;

    buf[0] = '\0';
    if (cg->files[f] == CG_NOT_OPENED) {
        cg->files[f] = openat(cg->fd, file_names[f], O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (cg->files[f] < 0)
            cg->files[f] = CG_NOT_THERE;
    }
    if (cg->files[f] == CG_NOT_THERE)
        return 0;
    n = pread(cg->files[f], buf, FILE_MAX - 1, 0);
    if (n < 0)
        return errno == ENODEV ? -1 : 0; /* EOPNOTSUPP: pressure turned off */
    buf[n] = '\0';
    return 0;
}

/* Value behind "key " at the start of a line; 0 when there is none. */
static uint64_t value_of(const char *text, const char *key)
{
    size_t n = strlen(key);

    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            return strtoull(line + n + 1, NULL, 10);
    }
    return 0;
}

/* Sum over all "key=value" of the text (io.stat). */
static uint64_t sum_of(const char *text, const char *key)
{
    uint64_t sum = 0;

    for (const char *p = text; (p = strstr(p, key)); p += strlen(key))
        sum += strtoull(p + strlen(key), NULL, 10);
    return sum;
}

static uint64_t number(const char *text)
{
    return str_starts(text, "max") ? UINT64_MAX : strtoull(text, NULL, 10);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull …" */
static uint64_t stall_us(const char *text)
{
    const char *total = str_starts(text, "some ") ? strstr(text, "total=") : NULL;

    return total ? strtoull(total + 6, NULL, 10) : 0;
}

static void read_memory(struct ctr_cgroup *cg, struct ctr_cgroup_stats *s, char *buf)
{
    read_held(cg, CG_MEMORY_CURRENT, buf);
    s->memory_current = number(buf);
    if (s->memory_current > cg->peak_seen)
        cg->peak_seen = s->memory_current;
    read_held(cg, CG_MEMORY_PEAK, buf);
    s->memory_peak = *buf ? number(buf) : cg->peak_seen;
    read_held(cg, CG_MEMORY_MAX, buf);
    s->memory_max = *buf ? number(buf) : UINT64_MAX;
    read_held(cg, CG_SWAP_CURRENT, buf);
    s->swap_current = number(buf);
    read_held(cg, CG_MEMORY_EVENTS, buf);
    s->oom = value_of(buf, "oom");
    s->oom_kills = value_of(buf, "oom_kill");
    s->memory_max_hits = value_of(buf, "max");
}

int ctr_cgroup_stats(struct ctr_cgroup *cg, struct ctr_cgroup_stats *ret, struct err *e)
{
    struct ctr_cgroup_stats s = {0};
    char buf[FILE_MAX];

    if (read_held(cg, CG_CPU_STAT, buf) < 0)
        return err_set(e, ERR_ABSENT, "cgroup %s is gone", cg->path);
    s.cpu_usage_us = value_of(buf, "usage_usec");
    s.cpu_user_us = value_of(buf, "user_usec");
    s.cpu_system_us = value_of(buf, "system_usec");
    s.cpu_periods = value_of(buf, "nr_periods");
    s.cpu_throttled = value_of(buf, "nr_throttled");
    s.cpu_throttled_us = value_of(buf, "throttled_usec");
    read_memory(cg, &s, buf);
    read_held(cg, CG_PIDS_CURRENT, buf);
    s.pids_current = number(buf);
    read_held(cg, CG_PIDS_EVENTS, buf);
    s.pids_max_hits = value_of(buf, "max");
    read_held(cg, CG_IO_STAT, buf);
    s.io_read_bytes = sum_of(buf, "rbytes=");
    s.io_write_bytes = sum_of(buf, "wbytes=");
    read_held(cg, CG_CPU_PRESSURE, buf);
    s.cpu_stall_us = stall_us(buf);
    read_held(cg, CG_MEMORY_PRESSURE, buf);
    s.memory_stall_us = stall_us(buf);
    read_held(cg, CG_IO_PRESSURE, buf);
    s.io_stall_us = stall_us(buf);
    *ret = s;
    return 0;
}
