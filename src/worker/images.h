#pragma once
/*
 * images.h - image manager: one pull an image however many runs wait (protocol section 8).
 *
 * A run asks images_get on every step that waits, and images_release when it is over. A run's answer is
 * remembered until then (D30); a later run asks the registry anew whether the tag moved (B147). From the
 * pull to the release the image cannot be evicted (D37). Pulls are jobs on the lane given.
 * Threads: main only. Ownership: pointers in images_status are borrowed until the run is released or the
 * next call of this file; image_ref what is kept.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;
struct loop;
struct lane;
struct image;
struct oci_store;
struct oci_registries;
struct http_client;
struct images;

enum images_state { IMAGES_DOWNLOADING, IMAGES_READY, IMAGES_FAILED };

struct images_status {
    enum images_state state;
    /* DOWNLOADING: "Download starting", "Downloading 20.32MB/28.54MB (71% done)", "Extracting …", or ""
     * (B150); READY: "Image ready" or the text of B148; FAILED: texts of 8.2 and 8.4 */
    const char *message;
    struct image *image; /* READY */
    const char *digest;  /* READY: "{name}@sha256:…", or NULL for a local image (B151) */
};

struct images_opts {
    struct loop *loop;
    struct lane *lane;
    struct lane *disk_lane; /* eviction, local look-ups */
    struct oci_store *store;
    const struct oci_registries *registries;
    struct http_client *http;
    uint64_t max_image_size; /* --max-image-size, compressed; 0: none (B152) */
    uint64_t max_cache_size; /* --max-image-cache-size; 0: nothing is ever removed (B153, B154) */
    uint64_t min_free;       /* --min-free-space: of the store's disk; 0: none */
    /* Main thread: the answer for this image text changed, at most about 2 times a second. */
    void (*changed)(void *arg, const char *image);
    void *changed_arg;
};

struct str_list;
struct images *images_new(const struct images_opts *o);
/* `image` as the bundle names it; never fails: a bad reference is a FAILED status. */
void images_get(struct images *m, const char *image, const char *run, struct images_status *ret);
/* For a run adopted after a restart: hold the local image (by reference or digest) without asking a registry. */
void images_hold(struct images *m, const char *image, const char *run);
/* The run is over: its image may be evicted, its pull is cancelled when nobody else waits. */
void images_release(struct images *m, const char *run);
/* Fetch these now, for nobody yet. What fails is logged, and fetched when a run asks for it. */
void images_prepull(struct images *m, const struct str_list *list);
size_t images_active(const struct images *m); /* pulls and disk jobs in progress */
/* Cancel all; the loop must run until images_active is 0 before images_free. */
void images_stop(struct images *m);
void images_free(struct images *m);
DEFINE_AUTO(images, images_free)
