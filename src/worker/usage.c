#include "worker/usage.h"

#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/quota.h"
#include "runtime/shim.h"

#define FULL_BYTES (1u << 20)

void usage_meter_add(struct usage_meter *m, uint64_t now_ns, const struct ctr_stats *s,
                     int64_t memory_limit)
{
    if (memory_limit > 0) {
        m->memory = (double)s->memory_current / (double)memory_limit;
        m->memory = m->memory > 1 ? 1 : m->memory;
    }
    if (m->last_ns && now_ns - m->last_ns < 200 * NS_PER_MS)
        return;
    if (m->last_ns && s->cpu_usage_us >= m->last_cpu_us)
        m->cpu =
            (double)(s->cpu_usage_us - m->last_cpu_us) * 1000.0 / (double)(now_ns - m->last_ns);
    m->last_ns = now_ns;
    m->last_cpu_us = s->cpu_usage_us;
}

uint64_t usage_disk_bound(int64_t disk)
{
    return (uint64_t)disk + (uint64_t)disk / 4 + (16u << 20);
}

bool usage_is_full(int dirfd)
{
    const uint64_t margin = 256 * 1024; /* a write of more than is left takes nothing of it */
    struct err ignored = ERR_INIT;
    uint64_t used = 0, limit = 0;

    return quota_usage(dirfd, &used, &limit, &ignored) == 0 && used + margin >= limit;
}

bool usage_is_disk_full(const char *path)
{
    struct statvfs v;

    return statvfs(path, &v) == 0 &&
           ((uint64_t)v.f_bavail * v.f_frsize < FULL_BYTES || (v.f_files && !v.f_favail));
}

int64_t usage_free_disk(const char *path)
{
    struct statvfs v;

    if (statvfs(path, &v) < 0)
        return 0;
    return (int64_t)v.f_bavail * (int64_t)v.f_frsize;
}
