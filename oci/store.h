#pragma once
/*
 * store.h - layers and index on disk. Door of oci/.
 *
 *   <dir>/layers/<key>/fs/         an unpacked layer, in overlay form (0:0 whiteouts, trusted.overlay.opaque)
 *   <dir>/layers/<key>/layer.json  its diff id, size, and the boot it was unpacked in
 *   <dir>/images/<id hex>.json     index entry: names, digests, layers, sizes, config; mtime: last use
 *   <dir>/tmp/<random>/            in-flight; owned by a live process (flock) or garbage
 *   <dir>/partial/<diffid hex>/ a layer broken off in the middle, with a checkpoint to go on from
 *   <dir>/leases/<id hex>          flocked (shared) by every process that uses the image
 *   <dir>/locks/<diffid hex>       flocked by who is unpacking that layer
 *
 * <key> is the hex of the diff id; or "c-" and the hex of the chain id for a layer that took something from
 * those below it (oci/layer.h), as it is another tree on other layers.
 *
 * Several processes may use one store (cwrun beside cworkerd): changes are made under <dir>/lock, images in
 * use are held by flocks on their lease, which die with the process (or the shim that inherited one).
 * Layers of a pull under way are named in its temporary directory and stay, too.
 *
 * Crash safety: a layer gets its name when its digests are right, an image when its layers have been synced.
 * After a crash of the machine a layer no image names may lack data that was never written, so it is
 * removed when the boot it was unpacked in is not this one; after the death of a process it is kept.
 * Threads: any. Ownership: oci_store_open/oci_store_close.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct cancel;
struct err;
struct oci_ref;
struct image;
struct oci_store;

/* Makes the directory when missing; adopts or removes what a crash left. */
int oci_store_open(const char *dir, struct oci_store **ret, struct err *e) MUST_CHECK;
void oci_store_close(struct oci_store *s);
DEFINE_AUTO(oci_store, oci_store_close)

/* The image last pulled under that reference (by tag or digest); ERR_ABSENT when there is none. Touches last use. */
int oci_store_find(struct oci_store *s, const struct oci_ref *ref, struct image **ret,
                   struct err *e) MUST_CHECK;

struct oci_image_info {
    char *id, *repo_digest, *platform; /* platform "" when it does not say */
    struct str_list names;             /* familiar references */
    uint64_t size, exclusive_size;     /* bytes; exclusive: layers no other image uses */
    double last_used, pulled;          /* epoch seconds */
    bool in_use, pinned;
};
int oci_store_list(struct oci_store *s, struct oci_image_info **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;
void oci_image_info_free(struct oci_image_info *list, size_t n);

/* Remove the image of that name; layers no other image needs go with it. In use: ERR_LIMIT. */
int oci_store_remove(struct oci_store *s, const char *name_or_id, struct err *e) MUST_CHECK;
/* Remove least recently used, unused images until the layers of the store take at most max_bytes (each
 * counted once); then unreferenced layers. *ret_freed may be NULL. (B153) */
int oci_store_prune(struct oci_store *s, uint64_t max_bytes, uint64_t *ret_freed, struct err *e)
    MUST_CHECK;
/*
 * Check what the store holds (S20): every index file is sound, every layer an image names is there, every tree
 * adds up to what was unpacked. Reads all bytes of all layers; pulls and runs may go on meanwhile. With repair:
 * what is damaged and not in use goes, with the images that need it, so that the next pull fetches just that.
 */
struct oci_check {
    bool repair;
    struct cancel *cancel;
    /* Each finding as it is made; may be NULL. */
    void (*found)(void *arg, const char *text);
    void *arg;
};
struct oci_check_result {
    size_t images, layers; /* looked at */
    size_t damaged, left;  /* findings; those that are still there */
    size_t unknown;        /* layers without a sum, of an older version */
};
int oci_store_check(const char *dir, const struct oci_check *o, struct oci_check_result *ret,
                    struct err *e) MUST_CHECK;

/* Keep the image of that name whatever space is wanted for, or no longer. */
int oci_store_pin(struct oci_store *s, const char *name_or_id, bool pinned, struct err *e)
    MUST_CHECK;
/* Source of an overlay mount that shows the image; while it is mounted the image is in use. */
#define OCI_MOUNT_SOURCE "cwrun-" /* and the hex of the id */

/* Bytes all layers take, each once. */
uint64_t oci_store_bytes(struct oci_store *s);
/* Bytes that can still be written where the store is. */
uint64_t oci_store_free(struct oci_store *s);
