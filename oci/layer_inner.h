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
struct gunzip;
struct inflate_crew;
struct tar;
struct str;
struct tar_xattr;
struct treewriter;
struct unpack;

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
    struct codec *codec;       /* the decoder: this one, */
    struct gunzip *gunzip;     /* or this one */
    struct inflate_crew *crew; /* to help it; NULL: nobody does */
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

/* Plain bytes, from the decoder. */
int oci_layer_plain(void *arg, const void *data, size_t n, struct err *e);

/* layer_decoder.c: which decoder it is does not matter to anybody else. */

enum { LAYER_GUNZIP = 16 }; /* a kind beside enum codec_kind's */

bool oci_layer_decoder_is_there(const struct oci_layer *l);
/* By the first bytes; or of the kind that one was. */
void oci_layer_decoder_choose(struct oci_layer *l);
bool oci_layer_decoder_make(struct oci_layer *l, uint64_t kind);
void oci_layer_decoder_free(struct oci_layer *l);
int oci_layer_decoder_feed(struct oci_layer *l, const void *data, size_t n, struct err *e);
/* What it keeps for later it decodes now. */
int oci_layer_decoder_settle(struct oci_layer *l, struct err *e);
int oci_layer_decoder_finish(struct oci_layer *l, struct err *e);
uint64_t oci_layer_decoder_out(const struct oci_layer *l);
/* Kind and state, settled; as codec_save. */
bool oci_layer_decoder_save(const struct oci_layer *l, struct str *out);
bool oci_layer_decoder_restore(struct oci_layer *l, struct unpack *in);

/* layer_checkpoint.c; all do nothing when none are made. */

/* Is it time to take the decoder's state? Then all that was fed is decoded first. Thread: who feeds. */
int oci_layer_checkpoint_decoded(struct oci_layer *l, struct err *e);
/* The tar is between two entries. Thread: who writes. */
int oci_layer_checkpoint_between(struct oci_layer *l, uint64_t offset, struct err *e);
/* Before something that could not be done twice. Thread: who writes. */
int oci_layer_checkpoint_spoil(struct oci_layer *l, struct err *e);
void oci_layer_checkpoint_free(struct checkpoint *c);
