#pragma once
/*
 * store_inner.h - what oci/pull needs of the store, and the store's own files share. Inside of oci/.
 *
 * Order of a pull: store_begin (pins the layers it wants) - for each layer store_has, or store_lock_layer,
 * store_has again, unpack into the work directory, store_publish, close the lock - store_stage - store_sync -
 * store_commit - store_end. Threads: any; a work is used by the threads of one pull.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "oci/image.h"
#include "oci/store.h"

struct cancel;
struct err;
struct treesum;

struct oci_store {
    char *path; /* absolute */
    int dir, layers, images, tmp, leases, locks, partial;
    char *boot_id;
};

/* As oci_store_open, but what a crash left stays as it is. */
int store_open(const char *dir, struct oci_store **ret, struct err *e) MUST_CHECK;

/* flock of <dir>/lock; an fd to close. Held for moments only, never across I/O of a size from outside. */
int store_lock(struct oci_store *s, bool exclusive, struct err *e) MUST_CHECK;

/* All names in one of its directories but "." and "..". False, with errno: it cannot be read. */
bool store_names(int dir, struct str_list *ret);

/* "KEY" of a diff id, "c-KEY" of a chain id; new strings. */
char *store_key(const char *diff_id);
char *store_chain_key(const char *chain_id);

struct store_work {
    int fd; /* the directory, flocked */
    char name[40];
};
#define STORE_WORK_INIT ((struct store_work){.fd = -1})
/* pins: keys that must stay; NULL: none. */
int store_begin(struct oci_store *s, const struct str_list *pins, struct store_work *ret,
                struct err *e) MUST_CHECK;
/* Remove what is left of it. */
void store_end(struct oci_store *s, struct store_work *w);

bool store_has(struct oci_store *s, const char *key);
/* Wait for the right to unpack that layer. An fd; closing it lets others go on. */
int store_lock_layer(struct oci_store *s, const char *diff_id, struct cancel *c, struct err *e)
    MUST_CHECK;
/* What is told of a layer in its layer.json. */
struct store_layer {
    const char *key, *diff_id;
    uint64_t size; /* bytes of its files */
    const struct treesum *sum;
};
/* `name` in the work directory holds "fs"; it becomes that layer. Somebody else's being there is fine. */
int store_publish(struct oci_store *s, struct store_work *w, const char *name,
                  const struct store_layer *l, struct err *e) MUST_CHECK;
/* Have all of them been written to disk? Those an image names have; others may be of a pull that was killed
 * before it came to that. */
bool store_is_synced(struct oci_store *s, const struct str_list *keys);
int store_sync(struct oci_store *s, struct err *e) MUST_CHECK;
uint64_t store_free_bytes(struct oci_store *s);

/*
 * store_partial.c: layers that were not finished, with a checkpoint to go on from, by diff id. Who holds the layer's
 * lock takes one out of partial/ into its work directory, and puts it back if it is broken off, too. Those of a
 * process that was killed are found when the store is opened next.
 */
/* True when there was one: it is `name` in the work directory now. */
bool store_partial_take(struct oci_store *s, const struct store_work *w, const char *name,
                        const char *diff_id);
/* `name` in that work directory (or one left by a crash), if there is a checkpoint in it. */
bool store_partial_keep(struct oci_store *s, int work, const char *name);
/* All in a work directory that a crash left. */
void store_partial_rescue(struct oci_store *s, const char *work);
/* Remove those that are of no use any more, or older than that. */
#define STORE_PARTIAL_DAYS 7
void store_partial_sweep(struct oci_store *s, double max_age_s);

/* One file of images/. */
struct stored_ref {
    char *text, *digest; /* "docker.io/library/x:latest" or "…@sha256:…"; the digest it led to */
};
struct stored_image {
    char *id, *manifest_digest;
    struct stored_ref *refs;
    size_t n_refs;
    struct str_list keys; /* lowest layer first */
    uint64_t size, compressed_size;
    struct image_config config;
    char *platform;           /* NULL: not known */
    double pulled, last_used; /* last_used: the file's mtime */
    bool pinned;
};
void stored_image_free(struct stored_image *i);
DEFINE_AUTO_VALUE(stored_image, stored_image_free)

struct stored_list {
    struct stored_image *items;
    size_t n;
};
void stored_list_free(struct stored_list *l);
DEFINE_AUTO_VALUE(stored_list, stored_list_free)
/* All images, under the caller's lock. A file that cannot be read is left out; bad, if not NULL, gets its name
 * and why it was. */
int store_load(struct oci_store *s, struct stored_list *ret, struct err *e) MUST_CHECK;
int store_load_telling(struct oci_store *s, struct stored_list *ret, struct str_list *bad,
                       struct err *e) MUST_CHECK;
int store_save(struct oci_store *s, const struct stored_image *i, struct err *e) MUST_CHECK;
/* Size of a layer by key, 0 when unknown. */
uint64_t store_layer_size(struct oci_store *s, const char *key);
/* layer.json of a layer. */
int store_layer_file(struct oci_store *s, const char *key, cJSON **ret, struct err *e) MUST_CHECK;
/* Forget an image, its lease, too; under the exclusive lock. */
void store_forget_image(struct oci_store *s, const struct stored_image *i);
/* Move layers that no image names and no pull wants, and that `fn` (if any) picks, into the work directory,
 * which is removed later without the lock. Returns their bytes. Under the exclusive lock. */
typedef bool store_layer_filter(struct oci_store *s, const char *key, const void *arg);
uint64_t store_bury_layers(struct oci_store *s, const struct stored_list *images,
                           struct store_work *grave, store_layer_filter *fn, const void *arg);
/* Was it unpacked before the machine was last started? Or does it not say so? */
bool store_is_other_boot(struct oci_store *s, const char *key);
/* Is the image leased by anybody, or mounted? */
bool store_in_use(struct oci_store *s, const char *id);

/*
 * Write what the commit will most probably write to the work directory, so that one store_sync is for it, too. *ret: its
 * text, for store_commit.
 */
int store_stage(struct oci_store *s, struct store_work *w, struct stored_image *i, char **ret,
                struct err *e) MUST_CHECK;
/*
 * Write the image under these references (taken from any other image that had them) and hand it out. Its
 * size is filled in. staged: the text that was staged and synced, or NULL. ref: the one it was asked by.
 * An entry that is there already is only touched.
 */
int store_commit(struct oci_store *s, struct store_work *w, struct stored_image *i,
                 const char *staged, const struct oci_ref *ref, struct image **ret, struct err *e)
    MUST_CHECK;
/* The image handed out: takes the lease. */
int store_image(struct oci_store *s, const struct stored_image *i, const struct oci_ref *ref,
                struct image **ret, struct err *e) MUST_CHECK;

/* image.c: an image with no members set, holding lease (an fd, taken). */
struct image *image_new(int lease);
