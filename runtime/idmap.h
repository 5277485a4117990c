#pragma once
/*
 * idmap.h - id ranges, the user namespaces that carry them, idmapped mounts.
 *
 * A mount is idmapped by a user namespace whose maps say "id on disk → id in the kernel"; it need not be the
 * container's own, so one is made before the container exists and thrown away when its descriptor is closed.
 * Single-threaded programs only (clone). Source: user_namespaces(7), mount_setattr(2).
 */
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct ctr_idmaps;

/* A new user namespace with these maps; its descriptor. */
int idmap_userns(const struct ctr_idmaps *uids, const struct ctr_idmaps *gids, struct err *e)
    MUST_CHECK;
/* Write both maps of a process that is in a new user namespace. */
int idmap_write(pid_t pid, const struct ctr_idmaps *uids, const struct ctr_idmaps *gids,
                struct err *e) MUST_CHECK;

/*
 * The container's maps, but with id `owner` on disk and id `user` inside exchanged, so that what the container's
 * `user` writes belongs to `owner` on the host. Pure. ret->items: free().
 */
void idmap_exchange(const struct ctr_idmaps *container, uint32_t owner, uint32_t user,
                    struct ctr_idmaps *ret);

/* Host id of a container id, or -1 without one. */
int64_t idmap_host_id(const struct ctr_idmaps *m, uint32_t container_id);
