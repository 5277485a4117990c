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

struct deps_fetch {
    const struct deps_dirs *dirs;
    struct service *service;
    const char *uuid, *path;
    struct cancel *cancel;
    atomic_uint_fast64_t *received; /* bytes of the answer so far */
    void (*progress)(void *arg);
    void *progress_arg;
};
/* One attempt, into the temporary; fills p->bytes and p->is_dir. What failed leaves nothing (D46). */
int deps_fetch(const struct deps_fetch *f, struct deps_place *p, struct err *e) MUST_CHECK;
