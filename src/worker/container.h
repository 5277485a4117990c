#pragma once
/*
 * container.h - make a run's container, and take it away with all that belongs to it.
 *
 *   container_create: leftovers away ─► links ─► spec ─► cwshim (created, stopped) ─► network ─► resolver files
 *   container_remove: kill ─► exit record ─► network, cgroup, writable layer, links away ─► measure
 *
 * Both block and belong on a lane. Both may be repeated: create begins by removing what an earlier attempt, or a
 * dead worker, left under the same name (B198, D55); remove finds nothing the second time.
 * Threads: any, one at a time for a run. Ownership: see the results.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "runtime/exit.h"

struct cancel;
struct ctr_shim;
struct err;
struct image;
struct net;
struct run;

/* What all runs of this worker share; constant. */
struct container_env {
    const char *runtime_dir, *shim_path;
    const char *scratch_dir; /* absolute; a directory a run */
    const char *cgroup_runs; /* parent of the runs' groups */
    const char *owner;       /* worker id and work directory */
    struct net *net;
    uint64_t shm_bytes;
    int64_t pids_limit;
    bool shared_fs, has_gpus, partial_cgroup;
    bool keep_scratch;           /* the writable layer stays behind, for somebody to look at it */
    uint64_t shared_dir_wait_ns; /* for a bundle directory that the server has made (6.1 step 5) */
};

struct container_made {
    struct ctr_shim *shim; /* created, not started */
    struct str_list links; /* placed in the bundle directory; also after a failure */
    bool
        no_dir; /* shared file system, and the server's directory is not to be seen: it may come yet */
};
/*
 *   run       a copy of the run: cpus, mems, gpus, userns_first_id are set
 *   paths     host path of each dependency, in the bundle's order
 * Errors: e->msg is the failure_message for the user (5.7). Nothing but links is left behind then.
 */
int container_create(const struct container_env *env, const struct run *run,
                     const struct image *image, const struct str_list *paths, struct cancel *cancel,
                     struct container_made *ret, struct err *e) MUST_CHECK;

struct container_end {
    bool has_record;
    struct exit_record record;
    int64_t bytes; /* in the bundle directory afterwards (B111); -1: unknown */
};
/*
 * Bounded: what cannot be killed within some 20 s is ERR_HOST (its CPUs and GPUs must stay reserved); the rest has
 * been done all the same.
 *   shim  taken; NULL: found by name, if one lives
 */
int container_remove(const struct container_env *env, const struct run *run, struct ctr_shim *shim,
                     struct container_end *ret, struct err *e) MUST_CHECK;

/*
 * Has a container that could not be killed ended by now? Then what is left of it is removed, and those of its GPUs that
 * pass their check are offered again. Does not wait for it; blocks on the driver and the disk.
 */
bool container_is_gone(const struct container_env *env, const char *uuid,
                       const struct str_list *gpus);

/* End and remove a container nobody holds a run for, as a dead worker left it. Bounded as container_remove. */
int container_sweep(const struct container_env *env, const char *uuid, struct err *e) MUST_CHECK;

/* The directory of the writable layer, whose use counts against the disk limit; -1: not there. */
int container_open_layer(const struct container_env *env, const char *uuid);

/* The exit record of a run whose shim has ended. ERR_ABSENT. Quick: tmpfs. */
int container_record(const char *runtime_dir, const char *uuid, struct exit_record *ret,
                     struct err *e) MUST_CHECK;
/* Whose a runtime directory is: the owner annotation of its config.json; NULL when it cannot be told. New string. */
char *container_owner(const char *runtime_dir, const char *uuid);
