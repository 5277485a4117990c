#pragma once
/*
 * lower.h - look a path up in the layers below, as overlayfs would show them merged.
 *
 * For the two things a layer may leave to the layers below it: the file a hard link names, and the
 * attributes of directories it only passes through. Nothing is mounted. Threads: any.
 */
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;

struct oci_lowers {
    int dir;              /* the directory the keys are in */
    struct str_list keys; /* "KEY/fs" of each layer, topmost first */
};

/*
 * Open what `path` (normalised) names: 1 found, 0 nothing there, -1 with e. Links among the parents are
 * followed inside the merged tree, the last part is not. *ret_fd: O_PATH.
 */
int oci_lower_find(const struct oci_lowers *l, const char *path, int *ret_fd, struct stat *ret_st,
                   struct err *e) MUST_CHECK;
