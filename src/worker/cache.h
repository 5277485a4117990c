#pragma once
/*
 * cache.h - what a bounded cache gives up, in which order. Pure; shared by deps and images.
 *
 * Threads: any. Blocks: never.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache_item {
    uint64_t bytes; /* what it takes on disk */
    uint64_t
        key_bytes; /* what its name costs in the check-in's list (B051); 0 where that does not count */
    double last_used; /* epoch seconds */
    bool failed;      /* goes first (protocol 7.6) */
    bool in_use;      /* never goes (B138) */
};

/*
 * Choose what to remove until the rest takes at most max_bytes and max_key_bytes (0: no limit): failed
 * ones by last use, then unused ones by last use (B137, B153). Indices go to victims (room for n), in
 * order; returns how many. Items in use stay even if the limits are then not met.
 */
size_t cache_evict(const struct cache_item *items, size_t n, uint64_t max_bytes,
                   uint64_t max_key_bytes, size_t *victims);
