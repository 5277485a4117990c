#pragma once
/*
 * layer_inner.h - what oci/layer and oci/layer_checkpoint share. Inside of oci/layer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "oci/layer.h"

struct checkpoint;
struct codec;
struct digest;
struct tar;
struct tar_xattr;
struct treewriter;

/* A file of a lower layer that a hard link here names: an empty file stands in for it until the layer
 * below is there to copy from. */
struct stand_in {
    char *target, *path; /* the file's own path, and that of the first link to it */
    bool at_target;      /* stands at target (else only at path: target is whited out here) */
    ino_t ino;
};

struct oci_layer {
    struct oci_layer_desc desc;
    int dir;
    struct digest *blob, *diff;
    struct codec *codec;
    struct tar *tar;
    struct treewriter *writer;
    uint64_t received;
    unsigned char head[4];
    size_t head_n;

    int (*sink)(void *arg, const void *data, size_t n, struct err *e); /* NULL: write here */
    void *sink_arg;
    bool decoded;
    struct checkpoint *checkpoint; /* NULL: none are made */
    uint64_t plain, skip_to; /* plain bytes written on; those before skip_to the tar has had */

    bool skip; /* the entry's data is not wanted */
    const struct tar_xattr *xattrs;
    size_t n_xattrs;
    struct stand_in *stand_ins;
    size_t n_stand_ins;
    bool depends;
};

/* A decoder that brings its bytes to the layer. */
struct codec *oci_layer_codec(struct oci_layer *l, int kind);

/* layer_checkpoint.c; all do nothing when none are made. */

/* All bytes fed so far are decoded and handed on: is it time to take the decoder's state? Thread: who feeds. */
void oci_layer_checkpoint_decoded(struct oci_layer *l);
/* The tar is between two entries. Thread: who writes. */
int oci_layer_checkpoint_between(struct oci_layer *l, uint64_t offset, struct err *e);
/* Before something that could not be done twice. Thread: who writes. */
int oci_layer_checkpoint_spoil(struct oci_layer *l, struct err *e);
void oci_layer_checkpoint_free(struct checkpoint *c);
