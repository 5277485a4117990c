#pragma once
/*
 * cdi.h - Container Device Interface specifications: which edits a device brings.
 *
 * Read from root-owned files in root-owned directories only (S45). JSON and YAML. The edits are made to a spec by
 * ourselves; hooks are never executed: create-symlinks and update-ldcache become mounts, chmod and the like are
 * not needed, anything else is an error that names it.
 * Source: CNCF Container Device Interface specification 0.3 to 1.0. Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct ctr_spec;
struct ctr_cdi;
struct str_list;

/* All specifications of `kind` ("nvidia.com/gpu") in the directories ("/etc/cdi", "/run/cdi"; later ones win). A missing
 * directory is fine; *ret NULL when there is no such specification. */
int ctr_cdi_load(const char *const *dirs, size_t n_dirs, const char *kind, struct ctr_cdi **ret,
                 struct err *e) MUST_CHECK;
void ctr_cdi_free(struct ctr_cdi *c);
DEFINE_AUTO(ctr_cdi, ctr_cdi_free)
bool ctr_cdi_has(const struct ctr_cdi *c, const char *device);
const char *ctr_cdi_file(const struct ctr_cdi *c); /* its path; borrowed */
/* Is it still true of this host? ERR_HOST saying what is not: a file or node is gone, a node has other numbers, the
 * libraries are of another driver than `version` (NULL: unknown): the driver was updated, the specification was not. */
int ctr_cdi_check(const struct ctr_cdi *c, const char *const *devices, size_t n,
                  const char *version, struct err *e) MUST_CHECK;
/* The edits of the devices, and once those common to all. ERR_ABSENT: no such device; ERR_HOST: a file it names is
 * missing on this host, or a hook is unknown. libs: see cdi_edits.h; added to. */
int ctr_cdi_apply(const struct ctr_cdi *c, const char *const *devices, size_t n, struct ctr_spec *s,
                  struct str_list *libs, struct err *e) MUST_CHECK;
