#pragma once
/*
 * treewriter.h - create entries beneath one directory descriptor and nowhere else (S01, S22-S24).
 *
 * Used by layer unpacking (oci/layer) and archive unpacking (base/archive). Parents are resolved by
 * openat2 beneath the root without following links; an entry replaces a non-directory of the same
 * name; data goes only to files created here with O_EXCL|O_NOFOLLOW; metadata goes to the descriptor.
 * Directory times and modes are applied at the end. Threads: one at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"

struct err;
struct treesum;
struct treewriter;

struct tree_meta {
    mode_t mode; /* permission bits with setuid/setgid/sticky */
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
};

struct treewriter_opts {
    bool keep_owner; /* chown to meta.uid/gid (layers), else ours (dependencies) */
    bool
        keep_special; /* device nodes, setuid and setgid bits (layers), else refused/stripped (S28) */
    bool create_parents; /* missing parents are made 0755 */
    bool
        inside_links; /* links among the parents are followed, inside the root (layers); else refused */
    bool overlay;     /* 0:0 character devices in the tree are whiteouts: a directory that takes the
                            place of one becomes opaque, and they are no target of hard links (S25) */
    bool
        write_early; /* larger files begin to go to disk as they end, not all at the caller's sync */
    uint64_t max_bytes, max_entries;
    /* Before anything that writing the same entries once more, after a crash, would not repair: something that is
     * there is replaced or removed, or a parent is made that has no entry. May be NULL. */
    int (*spoil)(void *arg, struct err *e);
    void *spoil_arg;
};

int treewriter_new(int rootfd, const struct treewriter_opts *o, struct treewriter **ret,
                   struct err *e) MUST_CHECK;
void treewriter_free(struct treewriter *w);
DEFINE_AUTO(treewriter, treewriter_free)

/* `path`: relative, already normalised (path_normalize); "" is the root itself. */
int treewriter_dir(struct treewriter *w, const char *path, const struct tree_meta *m, struct err *e)
    MUST_CHECK;
/* Start a file; then data; then end. */
int treewriter_file(struct treewriter *w, const char *path, const struct tree_meta *m,
                    uint64_t size, struct err *e) MUST_CHECK;
int treewriter_data(struct treewriter *w, const void *data, size_t n, struct err *e) MUST_CHECK;
int treewriter_hole(struct treewriter *w, uint64_t n, struct err *e) MUST_CHECK; /* sparse */
int treewriter_file_end(struct treewriter *w, struct err *e) MUST_CHECK;
int treewriter_symlink(struct treewriter *w, const char *path, const char *target,
                       const struct tree_meta *m, struct err *e) MUST_CHECK;
/* target: path of an earlier entry, resolved like path, last part not followed, not a directory. */
int treewriter_hardlink(struct treewriter *w, const char *path, const char *target, struct err *e)
    MUST_CHECK;
/* Character and block devices, FIFOs: type in mode. */
int treewriter_node(struct treewriter *w, const char *path, const struct tree_meta *m, dev_t rdev,
                    struct err *e) MUST_CHECK;
/* Extended attribute of the entry made last (file: before file_end). The caller applied the allow-list. */
int treewriter_xattr(struct treewriter *w, const char *name, const void *value, size_t n,
                     struct err *e) MUST_CHECK;
/* Remove path and all beneath (whiteouts within one tree); missing is fine. */
int treewriter_remove(struct treewriter *w, const char *path, struct err *e) MUST_CHECK;
/*
 * Descriptor of the directory `path` is in, made when missing; borrowed until the next call. *ret_name is
 * the last part of `path`, which is not empty. Tell treewriter_changed after removing a directory there.
 */
int treewriter_parent(struct treewriter *w, const char *path, const char **ret_name, struct err *e)
    MUST_CHECK;
void treewriter_changed(struct treewriter *w);
/* Call fn for each directory that was only made as a parent, without an entry of its own, parents first;
 * valid after treewriter_finish. fn returns -1 to stop. */
int treewriter_implied(struct treewriter *w, int (*fn)(void *arg, const char *path, struct err *e),
                       void *arg, struct err *e) MUST_CHECK;
/* The sum of the tree as it was written (base/treesum.h), after finish. False: an entry took the place of another
 * one, so it must be measured. */
bool treewriter_sum(const struct treewriter *w, struct treesum *ret);
/* The caller made a node of that name itself, by treewriter_parent. */
void treewriter_count_node(struct treewriter *w, const char *name, mode_t mode, dev_t rdev);
/*
 * Between two entries: what is remembered of those before, for a writer of a later process with the same options on
 * the same tree. It may find there what its predecessor made of the entries that come next (see spoil). False when
 * the buffer is full, or is no such state.
 */
struct str;
struct unpack;
bool treewriter_save(const struct treewriter *w, struct str *out);
bool treewriter_restore(struct treewriter *w, struct unpack *in);
/* The root's descriptor; borrowed. */
int treewriter_root(const struct treewriter *w);
/* Close all but the root's descriptor: before a thread with a descriptor table of its own hands it on. A file being
 * written is given up. */
void treewriter_park(struct treewriter *w);
/* Apply what was delayed. More entries may follow, and finish be called again. */
int treewriter_finish(struct treewriter *w, struct err *e) MUST_CHECK;
uint64_t treewriter_bytes(const struct treewriter *w);
