#pragma once
/*
 * trust.h - the operator's policy of which images may be used. Inside of oci/; loaded by oci_registries_load_trust.
 *
 *   { "registries": ["docker.io/library", "quay.io"],           only these, and what is below them; absent: all
 *     "digestsOnly": true,                                      only images named by digest
 *     "files": false,                                           no images of files (oci:, oci-archive:, docker-archive:)
 *     "signatures": [ { "scope": "quay.io/team",                what is below needs a signature; "*": all
 *                       "keys": ["team.pub"],                   PEM files, beside the policy or absolute; any one will do
 *                       "identity": "any" } ] }                 "match" (default): made for this very repository
 *
 * Of several scopes the longest counts. Members not known are errors: a misspelt rule must not be no rule.
 * Signatures are cosign's: an image of the same repository, tagged sha256-<hex of the digest>.sig, whose layers are
 * "simple signing" payloads with the signature as annotation; or what refers to the image, such payloads or bundles.
 * Threads: any (immutable). Ownership: oci_trust_free.
 * Source: sigstore/cosign SIGNATURE_SPEC; containers/image atomic-signature.
 */
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct err;
struct oci_ref;
struct oci_session;
struct oci_trust;

/* The file must be the caller's own or root's, and writable by nobody else. Keys are read now. */
int oci_trust_load(const char *path, struct oci_trust **ret, struct err *e) MUST_CHECK;
/* dir: where keys named without a directory are. */
int oci_trust_parse(const char *text, size_t n, const char *dir, struct oci_trust **ret,
                    struct err *e) MUST_CHECK;
void oci_trust_free(struct oci_trust *t);
DEFINE_AUTO(oci_trust, oci_trust_free)

/* What can be told by the reference alone. ERR_USER: refused, by which rule. t NULL: no policy, all is well. */
int oci_trust_admits(const struct oci_trust *t, const struct oci_ref *ref, struct err *e)
    MUST_CHECK;
/* Must images of that reference be signed? */
bool oci_trust_wants_signature(const struct oci_trust *t, const struct oci_ref *ref);
/* Is the digest the reference led to signed as wanted? Asks the registry. ERR_USER: no. */
int oci_trust_check_signature(const struct oci_trust *t, struct oci_session *s,
                              const struct oci_ref *ref, const char *digest, struct err *e)
    MUST_CHECK;
