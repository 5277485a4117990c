#pragma once
/*
 * tree.h - walk, measure, remove a tree by descriptors (S29, S54).
 *
 * Never follows links, never crosses mounts, bounded descriptors and stack whatever the tree is, copes
 * with entries that change or vanish meanwhile. Threads: any; blocks on disk.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/cleanup.h"

struct err;
struct cancel;

/* Visit every entry below dirfd (not the directory itself), parents before children. `path` is relative;
 * parentfd/name allow *at calls. Return 0 to go on, 1 to skip the directory's contents, -1 to stop. */
typedef int tree_visit(void *arg, int parentfd, const char *name, const char *path,
                       const struct stat *st, struct err *e);
int tree_walk(int dirfd, tree_visit *fn, void *arg, struct cancel *cancel, struct err *e)
    MUST_CHECK;

/* Sum of lstat sizes of the directory and everything below (protocol 5.9, B112). */
int tree_size(int dirfd, struct cancel *cancel, uint64_t *ret_bytes, struct err *e) MUST_CHECK;
/* Disk blocks really used; hard links counted once. */
int tree_disk_usage(int dirfd, struct cancel *cancel, uint64_t *ret_bytes, struct err *e)
    MUST_CHECK;

/* Remove `name` in dirfd and all beneath: mode 0000 directories, deep trees, odd names. Missing is fine. */
int tree_remove_at(int dirfd, const char *name, struct err *e) MUST_CHECK;
/* Remove everything in the directory, keep it. */
int tree_empty(int dirfd, struct err *e) MUST_CHECK;
