#pragma once
/*
 * local_inner.h - what oci/local.c (layouts) and oci/local_docker.c (docker's archives) share.
 */
#include "base/digest.h"
#include "base/str.h"
#include "oci/box.h"
#include "oci/local.h"

/* A blob that is not found as blobs/sha256/…: where it is. */
struct oci_local_alias {
    char digest[DIGEST_TEXT_MAX];
    char *name;
};

struct oci_local {
    struct oci_box *box;
    bool docker;
    struct str_list names;

    /* docker's archives */
    struct oci_local_alias *aliases;
    size_t n_aliases;
};

/* name: as docker writes it ("x:1"), or NULL. */
int oci_local_docker_manifest(struct oci_local *l, const char *name, struct str *ret, struct err *e)
    MUST_CHECK;
