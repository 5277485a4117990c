#pragma once
/*
 * tar.h - a tar stream as events: ustar, GNU (long names, sparse, base-256), PAX (records, sparse 0.0,
 * 0.1 and 1.0, xattrs), star's prefix, V7.
 *
 * A push parser: bytes are fed as they come off the decoder, nothing is buffered but one header. tar_new,
 * tar_feed until the stream ends, tar_finish, tar_free. For each entry `entry` is called, then for
 * regular files any number of `data` and `hole` in order of offset, then `end`.
 *
 * What it guarantees of an entry: numbers are in range, owners are not -1, names hold no NUL and are at
 * most BOUND_PATH long, sparse maps ascend and add up. What it does not: names may be absolute, hold
 * "..", be empty. Global PAX headers are ignored, as Docker and containerd do.
 * Threads: one at a time. Ownership: entries are borrowed during the call.
 * Source: POSIX.1-2017 pax "ustar Interchange Format"; GNU tar manual, "Storing Sparse Files".
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/cleanup.h"

struct err;
struct tar;

enum tar_type { TAR_FILE, TAR_DIR, TAR_SYMLINK, TAR_HARDLINK, TAR_CHAR, TAR_BLOCK, TAR_FIFO };

struct tar_xattr {
    char *name;
    void *value;
    size_t n;
};

struct tar_entry {
    enum tar_type type;
    const char *path, *link; /* link: "" unless a link */
    uint32_t mode;           /* permission bits, 07777 */
    uint32_t uid, gid;       /* never UINT32_MAX */
    struct timespec mtime;
    uint64_t size; /* of the unpacked file, holes included */
    uint32_t major, minor;
    const struct tar_xattr *xattrs;
    size_t n_xattrs;
};

struct tar_ops {
    int (*entry)(void *arg, const struct tar_entry *t, struct err *e);
    int (*data)(void *arg, const void *data, size_t n, struct err *e);
    int (*hole)(void *arg, uint64_t n, struct err *e);
    int (*end)(void *arg, struct err *e);
    /* Between two entries: so many bytes are done with, and a parser begun there would go on. May be NULL. */
    int (*between)(void *arg, uint64_t offset, struct err *e);
};

struct tar *tar_new(const struct tar_ops *ops, void *arg);
/* Before the first byte: that is at `offset`, between two entries. */
void tar_begin_at(struct tar *t, uint64_t offset);
/* Errors: ERR_USER for what is not a tar, ERR_LIMIT for a bound; or what an op put into e. */
int tar_feed(struct tar *t, const void *data, size_t n, struct err *e) MUST_CHECK;
/* The stream has ended: an error inside an entry. A missing end mark is forgiven, as by Go's reader. */
int tar_finish(struct tar *t, struct err *e) MUST_CHECK;
void tar_free(struct tar *t);
DEFINE_AUTO(tar, tar_free)
