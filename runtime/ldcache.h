#pragma once
/*
 * ldcache.h - the dynamic loader's cache (/etc/ld.so.cache), read and written by ourselves: the driver's libraries get into
 * it without running an ldconfig, neither the image's nor the host's (S45). Threads: any. Ownership: plain.
 */
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;

struct ldcache_entry {
    const char *soname; /* "libcuda.so.1" */
    const char *path;   /* where it is inside */
};

/*
 * The cache of an image with these libraries in front of those of the same name.
 *   old    the image's cache, format "glibc-ld.so.cache1.1" (alone, or behind the older one); n 0: it has none
 *   ret    the new file's bytes; created with its bound by the caller
 * An old cache that cannot be read is left out: then only the given libraries are in it, and the loader finds the others
 * in its default directories. Entries for special CPUs (glibc-hwcaps) are left out too, the plain ones take over.
 * Errors: ERR_LIMIT: more than fits into *ret.
 * Source: glibc sysdeps/generic/dl-cache.h (layout), elf/dl-cache.c "_dl_cache_libcmp" (order).
 */
int ldcache_merge(const void *old, size_t n, const struct ldcache_entry *add, size_t n_add,
                  struct str *ret, struct err *e) MUST_CHECK;
/*
 * The topmost cache file of overlay layers: whiteouts and opaque directories are seen, links stay inside their layer.
 * No such file: *ret stays empty.
 */
int ldcache_of_layers(const struct str_list *lower, struct str *ret, struct err *e) MUST_CHECK;
