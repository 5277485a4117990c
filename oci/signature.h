#pragma once
/*
 * signature.h - one "simple signing" payload and the manifest that carries such. Pure. Inside of oci/trust.
 *
 * Threads: any. Ownership: *_free.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "oci/manifest.h"

struct err;
struct oci_ref;
struct str_list;

struct oci_signature {
    struct oci_desc payload;
    unsigned char *bytes; /* the signature */
    size_t n;
};
struct oci_signatures {
    struct oci_signature *items;
    size_t n;
};
/* The manifest of signatures, added to ret: layers of other types are passed over. ERR_USER. */
int oci_signature_manifest(const char *text, size_t n, struct oci_signatures *ret, struct err *e)
    MUST_CHECK;
/*
 * Digests of the manifests of signatures among what refers to an image: an index as the referrers API answers, or one under
 * the tag that stands in for it. ERR_USER. Source: OCI distribution-spec 1.1 "Listing Referrers"; cosign's artifact type.
 */
#define OCI_SIGNATURE_ARTIFACT "application/vnd.dev.cosign.artifact.sig.v1+json"
int oci_signature_referrers(const char *text, size_t n, struct str_list *ret, struct err *e)
    MUST_CHECK;
void oci_signature_free(struct oci_signatures *s);
static inline void auto_release_oci_signatures(struct oci_signatures *s)
{
    oci_signature_free(s);
}

/* Does the payload say that this digest is meant, and (match) this repository? ERR_USER: what it says instead. */
int oci_signature_payload(const char *text, size_t n, const char *digest, const struct oci_ref *ref,
                          bool match, struct err *e) MUST_CHECK;
