#pragma once
/*
 * treewriter_inner.h - what treewriter.c (entries) and treewriter_dirs.c (directories) share. Inside of both.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/treesum.h"
#include "base/treewriter.h"

struct pending_dir {
    char *path;
    struct tree_meta meta;
    bool implied;
};

struct treewriter {
    struct treewriter_opts o;
    int root;
    uid_t uid;
    gid_t gid;
    bool always_chown; /* a setgid root hands its group down */
    mode_t umask;

    char *parent_path; /* of parent_fd; NULL: nothing remembered */
    int parent_fd;

    int file; /* being written, or -1 */
    struct tree_meta file_meta;
    bool file_meta_done, file_hole;
    uint64_t file_size, file_handed; /* bytes; those the disk was told of */
    uint32_t file_crc;
    char *last; /* path of the entry made last */

    struct pending_dir *dirs;
    size_t n_dirs, cap_dirs;
    uint64_t bytes, entries;

    struct treesum sum;
    bool replaced; /* something that was counted is gone */
};

/* err_sys, err_set, with the path in front. */
int treewriter_fail(struct err *e, const char *path, const char *what);
int treewriter_refuse(struct err *e, const char *path, const char *why);
/* Open what the path leads to, by the rule of this writer's links; "" is the root. An fd, or -1 with errno. */
int treewriter_resolve(const struct treewriter *w, const char *path, int flags);
bool treewriter_is_whiteout(const struct treewriter *w, const struct stat *st);
/* Something that was counted is about to go. */
int treewriter_spoil(struct treewriter *w, struct err *e) MUST_CHECK;
/* What is kept of a mode, and whether an owner has to be set. */
mode_t treewriter_mode(const struct treewriter *w, mode_t mode);
bool treewriter_owner_differs(const struct treewriter *w, const struct tree_meta *m);
/* Every entry begins here: counts, checks, and gives the directory it goes to. */
int treewriter_begin(struct treewriter *w, const char *path, const struct tree_meta *m,
                     const char **name, struct err *e) MUST_CHECK;
