#pragma once
/*
 * image.h - a pulled image: immutable, counted. Door of oci/.
 *
 * While a reference is held (from pull to the end of the run) the image and its layers are not removed
 * (B153, D37). Threads: any. Ownership: image_ref/image_unref.
 */
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct image_config {
    struct str_list env; /* "NAME=value" */
    struct str_list entrypoint, cmd;
    char *user;        /* "", "1000", "app:staff" */
    char *working_dir; /* "" or absolute */
    char *stop_signal; /* "" or a name */
};

struct image {
    char *name; /* familiar reference it was asked by */
    char *
        repo_digest; /* "{name}@sha256:…": digest of the manifest or index the tag pointed to; NULL if local (B151) */
    char *manifest_digest;     /* of the platform's manifest */
    char *id;                  /* config digest */
    char *platform;            /* "linux/amd64", "" when it does not say */
    struct str_list lowerdirs; /* host paths, topmost first, no path twice: ready for overlay */
    struct image_config config;
    uint64_t size; /* unpacked bytes of its layers (shared ones counted) */
    uint64_t compressed_size;
};

struct image *image_ref(struct image *i);
void image_unref(struct image *i);
/*
 * The lock that keeps the image; borrowed. A process that inherits it (dup it without close-on-exec, or
 * pass it on) keeps the image from being removed after we are gone: meant for the shim of a run, so that
 * nothing goes while the worker is down. -1 when the image is not of a store.
 */
int image_lease_fd(const struct image *i);
DEFINE_AUTO(image, image_unref)
