#pragma once
/*
 * deps_fetch.h - download a dependency into its place. Inner header of deps*.c. Threads: any; blocks.
 */
#include <stdatomic.h>
#include <stdint.h>

#include "base/cleanup.h"

struct cancel;
struct deps_dirs;
struct deps_place;
struct err;
struct service;

/* What earlier attempts left in the temporary, so that the next one goes on (D87). All zeroes to begin with. */
struct deps_partial {
    uint64_t size;  /* of the file, as the service told */
    uint64_t bytes; /* of it that are there; 0: nothing */
};

struct deps_fetch {
    const struct deps_dirs *dirs;
    struct service *service;
    const char *uuid, *path;
    struct cancel *cancel;
    atomic_uint_fast64_t *received; /* bytes of the answer so far */
    void (*progress)(void *arg);
    void *progress_arg;
    struct deps_partial *partial;
};
/* One attempt, into the temporary; fills p->bytes and p->is_dir. What failed leaves nothing but what `partial` tells;
 * after the last attempt that goes with deps_fetch_discard (D46). */
int deps_fetch(const struct deps_fetch *f, struct deps_place *p, struct err *e) MUST_CHECK;
void deps_fetch_discard(const struct deps_dirs *dirs, const struct deps_place *p);
