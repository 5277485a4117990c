#pragma once
/*
 * whiteout.h - an image's whiteouts in the form overlayfs understands (S25, S26).
 *
 * ".wh.NAME" hides NAME of the layers below: a 0:0 character device NAME. ".wh..wh..opq" hides all the
 * layers below have in its directory: trusted.overlay.opaque=y on it. Both say something of lower layers
 * only, wherever in the layer they stand: what the layer itself has under that name stays, and a
 * directory that stays so becomes opaque. Threads: one at a time a writer.
 * Source: OCI image-spec 1.1 layer.md "Whiteouts"; Documentation/filesystems/overlayfs.rst.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "base/cleanup.h"

struct err;
struct treewriter;

enum whiteout_kind {
    WHITEOUT_NONE,
    WHITEOUT_FILE,
    WHITEOUT_OPAQUE,
    WHITEOUT_AUFS, /* ".wh..wh.…": aufs' own bookkeeping; carries nothing */
};

/* Of an entry by its normalised path, whatever its type. ERR_USER for ".wh.", ".wh.." and the like. */
int oci_whiteout_kind(const char *path, enum whiteout_kind *ret, struct err *e) MUST_CHECK;
/* Carry out a WHITEOUT_FILE or WHITEOUT_OPAQUE marker. */
int oci_whiteout_apply(struct treewriter *w, const char *path, enum whiteout_kind kind,
                       struct err *e) MUST_CHECK;
/* Is this the stat of a whiteout in overlay form? */
bool oci_whiteout_is(const struct stat *st);
/* Is the directory opaque? */
bool oci_whiteout_is_opaque(int dirfd);
