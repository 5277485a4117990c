#pragma once
/*
 * images_room.h - how much of the image cache must go (protocol 8.6, and the disk's own limit).
 *
 * Two limits: what the layers take together, and what must stay free on their disk. Threads: any; blocks on disk.
 */
#include <stdbool.h>
#include <stdint.h>

struct err;
struct oci_store;

struct images_room {
    uint64_t max_bytes; /* of layers; 0: no limit */
    uint64_t min_free;  /* of the disk; 0: no limit */
};

/* The bytes that layers of `bytes` together may keep with `free_bytes` free; UINT64_MAX: all. Pure. */
uint64_t images_room_target(const struct images_room *r, uint64_t bytes, uint64_t free_bytes);
/* Remove unused images until both limits hold, and `more` bytes beside, or nothing unused is left. Does nothing without
 * a limit (B154). *ret_above: a limit does not hold even so. Returns the bytes freed. */
uint64_t images_room_make(struct oci_store *s, const struct images_room *r, uint64_t more,
                          bool *ret_above);
