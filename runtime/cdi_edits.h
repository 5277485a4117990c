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
    char *path, *host_path, *permissions, *type;
    int64_t major, minor, file_mode; /* 0: not said, the host's node tells */
    uint32_t uid, gid;
};
struct cdi_mount {
    char *host_path, *container_path, *type;
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
    cJSON *gids;                    /* array of numbers, or NULL */
    cJSON *intel_rdt, *net_devices; /* not for bundles: refused */
};

/*
 * Device nodes and their rules, mounts, environment, gids; the effects of the known hooks. What comes from the host is
 * read-only whatever a mount's options say, and sockets of host services stay outside (S45, S52).
 *   libs  libraries that the loader's cache shall name, "soname=path" each; added to
 */
int cdi_edits_apply(const struct cdi_edits *d, struct ctr_spec *s, struct str_list *libs,
                    struct err *e) MUST_CHECK;
/* Are all files and nodes there that the edits name? version: of the driver, or NULL. ERR_HOST naming what is not. */
int cdi_edits_check(const struct cdi_edits *d, const char *version, struct err *e) MUST_CHECK;
/* One node of the host, by its real numbers; the rule beside it. */
int cdi_edits_node(struct ctr_spec *s, const char *path, const char *host_path, const char *access,
                   struct err *e) MUST_CHECK;
/* The host's file or directory, read-only; the same place twice is once. */
int cdi_edits_bind(struct ctr_spec *s, const char *host_path, const char *container_path,
                   struct err *e) MUST_CHECK;
/* A driver library of the host at this path, under the name programs ask for (its soname) beside it, and in libs. */
int cdi_edits_library(struct ctr_spec *s, const char *host_path, const char *container_path,
                      struct str_list *libs, struct err *e) MUST_CHECK;
