#pragma once
/*
 * local.h - images from files: OCI layouts (a directory or an archive of one) and what `docker save` writes, in its old
 * form and its new one. Inside of oci/registry, which asks here when the reference is no registry's.
 *
 * What is read is held against the digest that named it, as if it came from a registry (S12). docker's archives have no
 * manifest of the registry's kind; one is made up from their own manifest.json.
 * Threads: oci_local_blob any, after a manifest was asked for. Ownership: oci_local_free.
 * Source: OCI image-spec 1.1 image-layout.md; moby image/tarexport.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/str.h"

struct err;
struct oci_desc;
struct oci_local;
struct oci_ref;

int oci_local_open(const struct oci_ref *ref, struct oci_local **ret, struct err *e) MUST_CHECK;
void oci_local_free(struct oci_local *l);
DEFINE_AUTO(oci_local, oci_local_free)

/* reference: a digest, a name or tag, or NULL where only one image is there. As oci_session_manifest. */
int oci_local_manifest(struct oci_local *l, const char *reference, struct str *ret, char **ret_type,
                       char ret_digest[DIGEST_TEXT_MAX], struct err *e) MUST_CHECK;
int oci_local_config(const struct oci_local *l, const struct oci_desc *d, struct str *ret,
                     struct err *e) MUST_CHECK;
/* From that byte on. */
int oci_local_blob(const struct oci_local *l, const struct oci_desc *d, uint64_t offset,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e) MUST_CHECK;
/* Names of a registry's kind the archive gives the image chosen by the last manifest asked for; borrowed. */
const struct str_list *oci_local_names(const struct oci_local *l);
