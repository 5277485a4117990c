#pragma once
/*
 * dep_links.h - where a bundle's dependencies go, and the links to them in the bundle directory.
 *
 * The bundle directory may be full of a former run's files, made by a hostile program: everything here is done
 * beneath a descriptor of it, and no link in it is followed. Nothing is ever made at an absolute key on the host
 * (D50), and only what we placed is removed, then parents that are empty (D52).
 * Threads: any; blocks on disk. Ownership: the caller's.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/str.h"

struct bundle;
struct dep_place;
struct err;

/*
 * Turn the keys of a bundle into places; a "." becomes one for each entry of its directory (B086),
 * but for stdout and stderr, which the run writes itself.
 *   paths   host path of each dependency, in the bundle's order
 * Errors: ERR_USER, the text for the user (B087, D49). Result freed with dep_places_free.
 */
int dep_links_resolve(const struct bundle *b, const struct str_list *paths, struct dep_place **ret,
                      size_t *ret_n, struct err *e) MUST_CHECK;
/*
 * Make the links; one that is there already with the right text is fine (D53). ret_placed gets the relative paths
 * of all that will appear in the directory, also after a failure. The error's text is the user's.
 */
int dep_links_make(int dirfd, const char *dir, const char *uuid, bool shared_fs,
                   const struct dep_place *places, size_t n, struct str_list *ret_placed,
                   struct err *e) MUST_CHECK;
/* Remove what dep_links_make (or, on a shared file system, the mounts) left; what is not ours stays. */
void dep_links_remove(int dirfd, const struct str_list *placed);
