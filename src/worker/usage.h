#pragma once
/*
 * usage.h - measured use of a run and of the host (protocol 5.8, 3.1). Threads: any; one owner a meter.
 */
#include <stdbool.h>
#include <stdint.h>

struct ctr_stats;

/* CPU use over the time since the last look; zeroed at first. */
struct usage_meter {
    uint64_t last_ns, last_cpu_us;
    double cpu;    /* multiple of a core; -1 before two looks */
    double memory; /* fraction of the limit */
};
#define USAGE_METER_INIT ((struct usage_meter){.cpu = -1, .memory = -1})
/* Looks closer than 200 ms to the last only refresh the memory. memory_limit 0: memory stays unknown. */
void usage_meter_add(struct usage_meter *m, uint64_t now_ns, const struct ctr_stats *s,
                     int64_t memory_limit);

/*
 * How far a run may go on disk: its request for the bundle directory, and once more for the writable layer (12: where the
 * file system has project quotas they hold it, else measuring does). Blocks are counted, so small files get some room.
 */
uint64_t usage_disk_bound(int64_t disk);
/* A directory held to a quota has come to its end. False where there is none. */
bool usage_is_full(int dirfd);

/* Nobody can write there any more: less than a megabyte or no file is left. */
bool usage_is_disk_full(const char *path);
/* What an unprivileged user could write on that file system; 0 when it cannot be told: always a number (B023). */
int64_t usage_free_disk(const char *path);
