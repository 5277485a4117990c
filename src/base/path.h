#pragma once
/*
 * path.h - opening what an outsider named (S01, S02, S04).
 *
 * Every path an image, archive, service or container influenced is opened through this file,
 * relative to a directory descriptor we hold. Threads: any. All descriptors are close-on-exec.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;

/* Open `path` (relative) beneath dirfd: no symbolic links, no "..", no leaving, no mount crossing
 * unless allowed. flags/mode as open(2). Returns the fd; -1 with e. */
int path_open_beneath(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
    MUST_CHECK;
/* The same, with symbolic links followed as long as they stay beneath (middle components, B164). */
int path_open_beneath_links(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
    MUST_CHECK;
/* The host path that leads to: a new string in *ret. path "": dirfd itself. */
int path_real_beneath_links(int dirfd, const char *path, char **ret, struct err *e) MUST_CHECK;
/* Open `path` as if dirfd were "/": links and ".." resolve inside the root (container roots). */
int path_open_in_root(int dirfd, const char *path, int flags, mode_t mode, struct err *e)
    MUST_CHECK;

/* Make directory `path` and its parents inside the root, following links inside it only; existing
 * directories are fine. Returns an O_PATH fd of the last one. */
int path_mkdirs_in_root(int rootfd, const char *path, mode_t mode, struct err *e) MUST_CHECK;
/* Parents and the last component beneath dirfd, no links followed. Returns an O_PATH fd. */
int path_mkdirs_beneath(int dirfd, const char *path, mode_t mode, struct err *e) MUST_CHECK;
/* Host path of ours: mkdir -p, 0 or -1. */
int path_mkdirs(const char *path, mode_t mode, struct err *e) MUST_CHECK;

/* Reopen an O_PATH descriptor (of a regular file or directory) with real flags. */
int path_reopen(int fd, int flags, struct err *e) MUST_CHECK;

/* Lexical: "a//b/./c/" -> "a/b/c"; "a/../b" -> "b". NULL when it climbs above the start. An absolute
 * path loses its leading slashes. A new string ("" for the start itself). */
char *path_normalize(const char *path);
/* True for one plain component: not empty, ".", "..", no '/'. */
bool path_is_component(const char *name);
