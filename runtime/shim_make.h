#pragma once
/*
 * shim_make.h - make a container for a daemon and become its shim. Door of runtime/, for `cwrt shim`.
 *
 * The daemon spawned us with the descriptors that shim_proto.h names. Threads: single-threaded programs only.
 */
#include "base/cleanup.h"

/*
 * Does not return when all goes well: the process goes on as the program `shim`, with id as its argument. Else the
 * daemon was told, a record was written where it could be, nothing of the container is left, and 1 is returned.
 */
int ctr_shim_make(const char *shim, const char *id) MUST_CHECK;
