#pragma once
/*
 * registry.h - distribution client: manifests and blobs of one repository. Inside of oci/.
 *
 * Images of files (oci/local.h) are had by the same doors.
 *
 * A session is one pull's view of a repository: its places (mirrors, then the registry itself), its
 * tokens, its patience. Each request goes through the places in order, starting at the one that answered
 * last; is authenticated when challenged; follows redirects itself, so that credentials, TLS exceptions
 * and the check of addresses are decided anew for each hop (S15-S17); and is repeated with back-off when
 * the server is busy or the connection breaks.
 * Threads: any. Ownership: oci_session_free.
 * Source: OCI distribution-spec 1.1 "Pull"; RFC 9110 (Retry-After, ranges).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/str.h"

struct cancel;
struct err;
struct http_client;
struct oci_desc;
struct oci_ref;
struct oci_registries;

struct oci_session;
/* All borrowed for the session's life. */
struct oci_session *oci_session_new(const struct oci_ref *ref, const struct oci_registries *r,
                                    struct http_client *http, struct cancel *c);
void oci_session_free(struct oci_session *s);
DEFINE_AUTO(oci_session, oci_session_free)
/* Requests from now on end with that token instead. Before threads share the session. */
void oci_session_stop_with(struct oci_session *s, struct cancel *c);

/*
 * The document a tag or digest names; a digest is verified (S12). content_type: a new string or NULL.
 * ERR_ABSENT: no place has it.
 */
/* reference NULL: of a file, the only image there is. Before the first of the others, from one thread. */
int oci_session_manifest(struct oci_session *s, const char *reference, struct str *ret,
                         char **ret_type, char ret_digest[DIGEST_TEXT_MAX], struct err *e)
    MUST_CHECK;
/*
 * What refers to that digest (signatures, for one), a page of an index: from a registry only. artifact_type: what is
 * wanted; the registry may answer with more. *page: NULL for the first; set to what the next is asked with, or to NULL.
 * Its owner is the caller.
 */
int oci_session_referrers(struct oci_session *s, const char *digest, const char *artifact_type,
                          char **page, struct str *ret, struct err *e) MUST_CHECK;
/* Names the image's own archive gives it ("x:1"); borrowed; empty for a registry's. */
const struct str_list *oci_session_names(const struct oci_session *s);
/* A small blob (the configuration) whole, its size and digest verified. */
int oci_session_config(struct oci_session *s, const struct oci_desc *d, struct str *ret,
                       struct err *e) MUST_CHECK;
/* Would a mirror be asked? */
bool oci_session_has_mirrors(struct oci_session *s);
/* What a mirror gave was not what its digest says: from now on only the registry itself is asked. */
void oci_session_leave_mirrors(struct oci_session *s);
/*
 * A blob's bytes to the sink, from `offset` on and exactly once each, over as many connections as it takes
 * (S19). The digest is the caller's to verify.
 */
typedef int oci_blob_sink(void *arg, const void *data, size_t n, struct err *e);
int oci_session_blob(struct oci_session *s, const struct oci_desc *d, uint64_t offset,
                     oci_blob_sink *sink, void *arg, struct err *e) MUST_CHECK;
