#pragma once
/*
 * signature.h - what is signed of an image, and the manifests that carry it: "simple signing" payloads, whose signature is an
 * annotation, and sigstore bundles, which hold both. Pure. Inside of oci/trust.
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
    struct oci_desc payload; /* or bundle */
    bool is_bundle;
    unsigned char *bytes; /* the signature, of a payload */
    size_t n;
};
struct oci_signatures {
    struct oci_signature *items;
    size_t n;
};
/* The manifest of signatures, added to ret: layers of other types, and bundles too large for a signature, are passed over.
 * ERR_USER. */
int oci_signature_manifest(const char *text, size_t n, struct oci_signatures *ret, struct err *e)
    MUST_CHECK;
/*
 * Digests of the manifests of signatures among what refers to an image: an index as the referrers API answers, or one under
 * the tag that stands in for it. Bundles that are said to hold something else (a bill of materials, ...) are left out.
 * ERR_USER. Source: OCI distribution-spec 1.1 "Listing Referrers"; cosign's artifact type and BUNDLE_SPEC.
 */
#define OCI_SIGNATURE_ARTIFACT "application/vnd.dev.cosign.artifact.sig.v1+json"
#define OCI_BUNDLE_ARTIFACT    "application/vnd.dev.sigstore.bundle.v0.3+json"
#define OCI_BUNDLE_PREDICATE   "https://sigstore.dev/cosign/sign/v1"
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

/* signature_bundle.c */

struct oci_signature_bundle {
    unsigned char *bytes; /* the signature */
    size_t n;
    char *signed_text; /* what it is over, and behind it a NUL; its last part is the statement */
    size_t signed_n, statement_at;
};
/* ERR_USER: no bundle of version 0.3, or of none of the kinds that are taken. */
int oci_signature_bundle_parse(const char *text, size_t n, struct oci_signature_bundle *ret,
                               struct err *e) MUST_CHECK;
void oci_signature_bundle_free(struct oci_signature_bundle *b);
DEFINE_AUTO_VALUE(oci_signature_bundle, oci_signature_bundle_free)
/* As oci_signature_payload. Bundles name the repository rarely: then there is nothing that could match. */
int oci_signature_bundle_statement(const struct oci_signature_bundle *b, const char *digest,
                                   const struct oci_ref *ref, bool match, struct err *e) MUST_CHECK;

/* Base64 of a signature or payload; ret is allocated. ERR_USER. */
int oci_signature_decode(const char *text, unsigned char **ret, size_t *ret_n, struct err *e)
    MUST_CHECK;
/* "index.docker.io/library/x", "host:5000/a/b", perhaps with a tag: is it the repository of ref? */
bool oci_signature_is_of(const char *text, const struct oci_ref *ref);
