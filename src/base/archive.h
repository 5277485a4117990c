#pragma once
/*
 * archive.h - tar and zip (libarchive readers; our own tree writer) between a stream and a tree.
 *
 * Dependencies are unpacked with archive_unpack_*; results are packed with archive_pack_tar. Only the
 * formats named are enabled in libarchive (S21); nothing but data leaves its reader.
 * Threads: any; blocks.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct cancel;

/* Source of bytes: up to n, 0 at the end, -1 with e. */
typedef long archive_source(void *arg, void *buf, size_t n, struct err *e);
typedef int archive_sink(void *arg, const void *data, size_t n, struct err *e);

struct archive_limits {
    uint64_t max_bytes, max_entries;
    bool keep_owner;
};

/* Plain tar stream (the caller undoes gzip with codec) into dirfd. S21-S25, S28: no devices, no setuid. */
int archive_unpack_tar(int dirfd, archive_source *source, void *arg,
                       const struct archive_limits *lim, struct cancel *cancel, struct err *e)
    MUST_CHECK;
/* Zip from a seekable descriptor. */
int archive_unpack_zip(int dirfd, int zipfd, const struct archive_limits *lim,
                       struct cancel *cancel, struct err *e) MUST_CHECK;

struct archive_pack {
    const struct str_list
        *exclude; /* GNU tar --exclude patterns, unanchored (protocol 6.4, B115) */
    const struct str_list
        *skip_top;           /* exact paths relative to the top left out (dependencies, B091) */
    bool numeric_owner_root; /* write uid 0, gid 0 */
};
/*
 * Tar of the tree below dirfd, members "./…", top entry "./" included, to the sink (plain tar). Files that
 * grow, shrink or vanish while being read are padded, cut or left out; the archive stays valid (S54, B122).
 */
int archive_pack_tar(int dirfd, const struct archive_pack *o, archive_sink *sink, void *arg,
                     struct cancel *cancel, struct err *e) MUST_CHECK;
/* Does `path` ("./a/b" form) match a GNU tar exclude pattern? (B115) Pure. */
bool archive_excluded(const struct str_list *patterns, const char *path);
