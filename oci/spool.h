#pragma once
/*
 * spool.h - compressed bytes of a layer kept beside its tree while it is unpacked. Inside of oci/.
 *
 * A zstd frame has no state that could be put aside in its middle (oci/layer.h's checkpoints go from frame to frame), and
 * most layers are one frame. So what came of such a layer is kept as it came, and decoded once more after a restart
 * instead of fetched once more. The file goes when the layer is there; one that was not there for half a minute
 * never reaches the disk. It is for the boot it was made in: after a power cut a file may hold less than it says.
 * Threads: one at a time. Ownership: oci_spool_close.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

struct err;
struct oci_desc;

struct oci_spool {
    int fd;        /* -1: none */
    uint64_t size; /* bytes of the layer in it: its first ones */
};
#define OCI_SPOOL_NAME "spool"
#define OCI_SPOOL_NONE ((struct oci_spool){.fd = -1})

/*
 * The one in that directory if it is of that layer and this boot, else an empty one; none for a layer that has no use for
 * it, or when it cannot be made. Never fails: who has none fetches again.
 */
void oci_spool_open(int dir, const struct oci_desc *d, const char *diff_id, const char *boot_id,
                    struct oci_spool *ret);
void oci_spool_close(struct oci_spool *s);
/* More bytes. A full disk ends the spool, not the pull. */
void oci_spool_add(struct oci_spool *s, const void *data, size_t n);
/* All of it, from `offset` on, to the sink. */
int oci_spool_read(const struct oci_spool *s, uint64_t offset,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e) MUST_CHECK;
/* Does that directory hold one of this boot with bytes in it? */
bool oci_spool_is_in(int dir, const char *boot_id, char ret_diff_id[DIGEST_TEXT_MAX]);
