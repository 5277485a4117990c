#pragma once
/*
 * bundle_spec.h - bundle + image + dependencies + resources → container spec (protocol 5.1-5.3).
 *
 * Pure: it looks at no file. What has to be looked up (owner of the directory, entries of a "." dependency) is
 * given. Dependencies are mounted read-only at /{uuid}_dependencies/{key}, with a symbolic link of that text in
 * the bundle directory: on the host the link dangles, so no read can follow it into the cache (9.1), and
 * nothing of a dependency can get into results. On a shared file system, and for absolute keys, the mount stands at
 * the key itself.
 * Threads: any. Ownership: the result is the caller's.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/str.h"

struct ctr_spec;
struct err;
struct image_config;
struct run;

/* One thing to be placed, keys of "." already resolved into entries. */
struct dep_place {
    char *key;    /* normalised: relative, or absolute with its '/' */
    char *source; /* host path of the file or directory; NULL: `link` is copied */
    char *link;   /* text of a symbolic link that stood in a "." dependency; else NULL */
};
void dep_places_free(struct dep_place *places, size_t n);

/*
 * No key twice, none below another: the second mount would land inside the first (S57). ERR_USER, with the text
 * for the user ("[Errno 17] File exists: …" for doubles, protocol 5.7).
 */
int dep_places_check(const struct dep_place *places, size_t n, const char *uuid, struct err *e)
    MUST_CHECK;
/* Where a place is mounted in the container, a new string; NULL for links. */
char *dep_place_target(const struct dep_place *p, const char *uuid, bool shared_fs);
/* Text of the symbolic link in the bundle directory, a new string; NULL: there is none (absolute, shared fs). */
char *dep_place_link(const struct dep_place *p, const char *uuid, bool shared_fs);

struct bundle_spec_in {
    const struct run *run;
    const struct image_config *image;
    const struct str_list *lowerdirs;
    const struct dep_place *places;
    size_t n_places;
    const char
        *scratch;       /* host directory of the run: "overlay", "resolv.conf", "hosts" lie in it */
    const char *cgroup; /* cgroupsPath */
    const char *owner;  /* which worker it belongs to, for the sweep after a crash */
    uid_t uid;          /* of the bundle directory */
    gid_t gid;
    uint64_t shm_bytes;
    int64_t pids_limit; /* 0: none */
    bool shared_fs,
        has_gpus; /* has_gpus: the worker offers GPUs, so NVIDIA_VISIBLE_DEVICES is always set */
    bool partial_cgroup;
};
#define BUNDLE_ANNOTATION_OWNER "org.codalab.cworker.owner"

/* ERR_USER: the bundle's own fault (a command longer than the kernel takes, a bad key). */
int bundle_spec(const struct bundle_spec_in *in, struct ctr_spec **ret, struct err *e) MUST_CHECK;

/* "( {command}\n) >stdout 2>stderr": the newline lets commands end in '&', a blank or a comment (D77). */
char *bundle_spec_shell(const char *command);
/* Host name inside: as Docker's, 12 hex digits. */
void bundle_spec_hostname(const char *uuid, char ret[16]);
