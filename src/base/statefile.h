#pragma once
/*
 * statefile.h - small files replaced atomically.
 *
 * The new content is written to a temporary in the same directory, synced, renamed over the old one,
 * and the directory synced (when `durable`). A reader sees the old or the new content, never a torn
 * one, after a crash at any instruction. Threads: any, one writer a name.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct str;

/* mode: usually 0600. */
int statefile_replace(int dirfd, const char *name, const void *data, size_t n, mode_t mode,
                      bool durable, struct err *e) MUST_CHECK;
/*
 * The same on a full disk, in the file `spare` of the directory, which has its blocks already (posix_fallocate) and is used up
 * by it. Nobody can take that room between: it is never given back. After a failure the spare is still there, whatever is in it.
 */
int statefile_replace_in(int dirfd, const char *spare, const char *name, const void *data, size_t n,
                         bool durable, struct err *e) MUST_CHECK;
/* A file that is on disk already (fsync, syncfs) into its place in another directory of the same file system, which is
 * synced. */
int statefile_move(int from, const char *name, int dirfd, const char *to, struct err *e) MUST_CHECK;
int statefile_read(int dirfd, const char *name, struct str *s, struct err *e) MUST_CHECK;
/* Unlink and sync the directory; a missing file is fine. */
int statefile_remove(int dirfd, const char *name, bool durable, struct err *e) MUST_CHECK;
/* Remove temporaries a crash left (names statefile makes). */
void statefile_sweep(int dirfd);
/* Rename a damaged file aside to "NAME.bad-<epoch>" (B192). */
int statefile_set_aside(int dirfd, const char *name, struct err *e) MUST_CHECK;
