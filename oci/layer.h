#pragma once
/*
 * layer.h - one layer: verify, decode, verify, unpack.
 *
 *   compressed bytes -> sha256 -> inflate -> sha256 (diff id) -> tar -> files, in overlay form
 *
 * oci_layer_new on an empty private directory, oci_layer_feed as the bytes come, oci_layer_finish when
 * they end: then both digests and the size are right, or it fails and the directory is to be removed
 * (S12, S20). The state is all in memory, so a broken transfer goes on where it stopped (S19).
 *
 * Layers are unpacked apart from each other, so a layer may need those below it: for a hard link to a
 * file it does not hold, and for the attributes of directories it passes through without an entry of
 * their own (overlayfs shows those of the topmost layer). oci_layer_depends says so after finish;
 * oci_layer_complete then takes both from the layers below. What comes out is no longer a function of
 * the diff id alone, and the store keeps such layers by chain id.
 * Threads: one at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bounds.h"
#include "base/cleanup.h"
#include "base/digest.h"

struct err;
struct inflate_crew;
struct treesum;
struct oci_layer;
struct oci_lowers;

struct oci_layer_desc {
    const char *digest;  /* of the blob */
    const char *diff_id; /* of the tar inside */
    uint64_t size;       /* of the blob, exactly */
};

/* dirfd is borrowed for the object's life; desc's strings too. */
int oci_layer_new(int dirfd, const struct oci_layer_desc *desc, struct oci_layer **ret,
                  struct err *e) MUST_CHECK;
void oci_layer_free(struct oci_layer *l);
DEFINE_AUTO(oci_layer, oci_layer_free)
/* Who helps to decode it if it is gzip and large (oci/inflate_crew.h), or NULL: right after new. Borrowed, and lent as long
 * as bytes are fed. Smaller layers are over before there is anything ahead. */
#define OCI_LAYER_WORTH_HELP (4 * BOUND_MIB)
void oci_layer_help_by(struct oci_layer *l, struct inflate_crew *crew);
/* Errors: ERR_USER bad layer, ERR_LIMIT a bound or the disk, ERR_HOST. More than `size` bytes is an error. */
int oci_layer_feed(struct oci_layer *l, const void *data, size_t n, struct err *e) MUST_CHECK;
int oci_layer_finish(struct oci_layer *l, struct err *e) MUST_CHECK;
/*
 * The two halves apart, for two threads (oci/unpacker.h): oci_layer_feed gives the plain bytes to `sink`, which
 * brings them to oci_layer_write; oci_layer_decoded ends and judges the first half, oci_layer_finish the rest.
 */
void oci_layer_write_by(struct oci_layer *l,
                        int (*sink)(void *arg, const void *data, size_t n, struct err *e),
                        void *arg);
int oci_layer_write(struct oci_layer *l, const void *data, size_t n, struct err *e) MUST_CHECK;
int oci_layer_decoded(struct oci_layer *l, struct err *e) MUST_CHECK;
/* Descriptor that everything is written beneath; borrowed. */
int oci_layer_dir(const struct oci_layer *l);
/* Close what the calling thread has opened: it has a table of descriptors of its own (base/confine.h). */
void oci_layer_park(struct oci_layer *l);
uint64_t oci_layer_received(const struct oci_layer *l); /* compressed bytes taken so far */
uint64_t oci_layer_bytes(const struct oci_layer *l);    /* bytes of regular files */
/*
 * Checkpoints, so that a later process goes on in the middle. `fd` (borrowed, an empty file or one that an earlier
 * layer object left) gets one every BOUND_CHECKPOINT compressed bytes, at the next place between two entries. It
 * counts for a process that died, not for a machine: nothing is synced, and it names the boot.
 * oci_layer_resume: 1 when it had one of this very layer; then oci_layer_received says which byte comes next, and the
 * directory must be the one it was made in. 0: begin at the start, in an empty directory. Right after oci_layer_new.
 */
int oci_layer_resume(struct oci_layer *l, int fd, const char *boot_id, struct err *e) MUST_CHECK;
int oci_layer_checkpoint_fd(const struct oci_layer *l); /* -1: none are made */
/* Does the file hold a checkpoint of this boot? Its diff id goes to ret. */
bool oci_layer_has_checkpoint(int fd, const char *boot_id, char ret_diff_id[DIGEST_TEXT_MAX]);
/* What the tree must add up to from now on (base/treesum.h); reads it again where that could not be known while it
 * was written. After finish, and after complete for a layer that depends. */
int oci_layer_sum(struct oci_layer *l, struct treesum *ret, struct err *e) MUST_CHECK;
bool oci_layer_depends(const struct oci_layer *l);
int oci_layer_complete(struct oci_layer *l, const struct oci_lowers *below, struct err *e)
    MUST_CHECK;
