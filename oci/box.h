#pragma once
/*
 * box.h - the files of an image kept as a directory or as a tar archive. Inside of oci/local.
 *
 * An archive is walked once, header to header, for where its files lie; what they hold is read when it is asked for, so
 * an archive is neither unpacked nor read twice. One that is compressed is first decoded into a file without a name.
 * Names are relative, normalised paths; links among the files of an archive are followed, those of a directory are not.
 * Threads: any after opening (everything is read at offsets). Ownership: oci_box_free.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

struct err;
struct oci_box;

/* path: a directory or a regular file. ERR_ABSENT not there; ERR_USER neither, or not a tar. Blocks: reads the disk. */
int oci_box_open(const char *path, struct oci_box **ret, struct err *e) MUST_CHECK;
void oci_box_free(struct oci_box *b);
DEFINE_AUTO(oci_box, oci_box_free)

/* A file of the box: n bytes of fd from offset on. Release with oci_box_piece_free. */
struct oci_box_piece {
    int fd;
    uint64_t offset, n;
};
#define OCI_BOX_PIECE_INIT ((struct oci_box_piece){.fd = -1})
/* ERR_ABSENT: there is no such file. */
int oci_box_find(const struct oci_box *b, const char *name, struct oci_box_piece *ret,
                 struct err *e) MUST_CHECK;
void oci_box_piece_free(struct oci_box_piece *p);
DEFINE_AUTO_VALUE(oci_box_piece, oci_box_piece_free)

/* Its bytes, in order, in pieces of 256 KiB. -1: what the sink said, or the disk. */
int oci_box_stream(const struct oci_box_piece *p,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e) MUST_CHECK;
/* A small file whole; ret has its maximum. ERR_LIMIT when it is larger. */
int oci_box_read(const struct oci_box *b, const char *name, struct str *ret, struct err *e)
    MUST_CHECK;
