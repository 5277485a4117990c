#pragma once
/*
 * tar_pax.h - what extended headers say about the next entry. Inside of oci/tar.
 *
 * tar_ext holds overrides from PAX records and GNU long names, and the sparse map whatever its format.
 * Threads: one at a time. Ownership: tar_ext_reset releases all.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/cleanup.h"
#include "oci/tar.h"

struct err;

struct tar_piece {
    uint64_t offset, n;
};

struct tar_ext {
    char *path, *link, *long_path, *long_link, *sparse_name;
    bool has_size, has_uid, has_gid, has_mtime, has_real_size;
    uint64_t size, uid, gid, real_size;
    struct timespec mtime;
    struct tar_xattr *xattrs;
    size_t n_xattrs;

    bool sparse;
    uint64_t sparse_major;   /* 1: the map stands before the data */
    bool sparse_offset_open; /* 0.0: an offset waits for its length */
    struct tar_piece *map;
    size_t n_map;
};

void tar_ext_reset(struct tar_ext *x);
/* Records of an `x` header, n bytes. */
int tar_ext_records(struct tar_ext *x, const char *data, size_t n, struct err *e) MUST_CHECK;
/* Whatever map there is, is none. */
void tar_ext_drop_map(struct tar_ext *x);
int tar_ext_piece(struct tar_ext *x, uint64_t offset, uint64_t n, struct err *e) MUST_CHECK;
/* Pieces ascend within real_size and hold `stored` bytes in all. */
int tar_ext_check_map(const struct tar_ext *x, uint64_t real_size, uint64_t stored, struct err *e)
    MUST_CHECK;
/* n digits, nothing else. */
bool tar_digits(const char *text, size_t n, uint64_t *ret);
