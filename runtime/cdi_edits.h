#pragma once
/*
 * cdi_edits.h - the edits of a CDI device, and making them to a spec. Inner header of cdi.c and gpu.c. Threads: any.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/str.h"

struct ctr_spec;
struct err;

struct cdi_node {
    char *path, *host_path, *permissions;
    uint32_t uid, gid;
};
struct cdi_mount {
    char *host_path, *container_path;
    struct str_list options;
};
struct cdi_hook {
    char *name, *path;
    struct str_list args;
};
struct cdi_edits {
    struct str_list env;
    struct cdi_node *nodes;
    size_t n_nodes;
    struct cdi_mount *mounts;
    size_t n_mounts;
    struct cdi_hook *hooks;
    size_t n_hooks;
    cJSON *gids; /* array of numbers, or NULL */
};

/* Device nodes and their rules, mounts, environment, gids; the effects of the known hooks. */
int cdi_edits_apply(const struct cdi_edits *d, struct ctr_spec *s, struct err *e) MUST_CHECK;
/* One node of the host, by its real numbers; the rule beside it. */
int cdi_edits_node(struct ctr_spec *s, const char *path, const char *host_path, const char *access,
                   struct err *e) MUST_CHECK;
/*
 * A driver library of the host at its own path, and under the name programs ask for (its soname) beside it, so that
 * the image's loader finds it without a cache; the directory goes behind LD_LIBRARY_PATH.
 */
int cdi_edits_library(struct ctr_spec *s, const char *host_path, const char *container_path,
                      struct err *e) MUST_CHECK;
