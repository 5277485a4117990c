/*
 * A sigstore bundle with a DSSE envelope around an in-toto statement, as cosign's `sign --key` has made them since its
 * version 3. Of what a bundle may hold besides (certificates, entries of logs, time stamps) nothing is looked at: the key
 * is the operator's, and what was not signed by it says nothing.
 *
 * Source: sigstore bundle format 0.3; DSSE 1.0 "Signature Definition"; in-toto Statement v1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/ref.h"
#include "oci/signature.h"

#define STATEMENT_TYPE "application/vnd.in-toto+json"
enum { SUBJECTS_MAX = 64 };

static const char *const statement_kinds[] = {"https://in-toto.io/Statement/v1",
                                              "https://in-toto.io/Statement/v0.1"};

void oci_signature_bundle_free(struct oci_signature_bundle *b)
{
    free(b->bytes);
    free(b->signed_text);
    *b = (struct oci_signature_bundle){0};
}

/* "DSSEv1", the type and the payload, each behind its length: this is what is signed. */
static void authenticate(const char *type, const unsigned char *payload, size_t n,
                         struct oci_signature_bundle *ret)
{
    AUTO_FREE char *front = mem_printf("DSSEv1 %zu %s %zu ", strlen(type), type, n);
    size_t at = strlen(front);

    ret->signed_text = mem_alloc(at + n + 1);
    memcpy(ret->signed_text, front, at);
    memcpy(ret->signed_text + at, payload, n);
    ret->signed_text[at + n] = '\0';
    ret->signed_n = at + n;
    ret->statement_at = at;
}

static int read_envelope(const cJSON *envelope, struct oci_signature_bundle *ret, struct err *e)
{
    AUTO_FREE unsigned char *payload = NULL;
    const char *type, *text, *signature;
    const cJSON *list;
    char shown[STR_SHOW_MAX];
    size_t n;

    if (json_get_str(envelope, "payloadType", 255, &type, e) < 0 ||
        json_get_str(envelope, "payload", BOUND_SIGNATURE, &text, e) < 0 ||
        json_get_array(envelope, "signatures", 1, &list, e) < 0)
        return -1;
    if (!str_eq(type, STATEMENT_TYPE))
        return err_set(e, ERR_USER, "is of another kind: %s", str_show(shown, type));
    if (!cJSON_IsObject(cJSON_GetArrayItem(list, 0)))
        return err_set(e, ERR_USER, "holds no signature");
    if (json_get_str(cJSON_GetArrayItem(list, 0), "sig", BOUND_SIGNATURE, &signature, e) < 0 ||
        oci_signature_decode(signature, &ret->bytes, &ret->n, e) < 0)
        return err_wrap(e, "signatures");
    if (oci_signature_decode(text, &payload, &n, e) < 0)
        return err_wrap(e, "payload");
    authenticate(type, payload, n, ret);
    return 0;
}

int oci_signature_bundle_parse(const char *text, size_t n, struct oci_signature_bundle *ret,
                               struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *envelope = NULL;
    const char *type;

    if (json_parse(text, n, &doc, e) < 0 || json_get_str(doc, "mediaType", 255, &type, e) < 0)
        return -1;
    if (!str_eq(type, OCI_BUNDLE_ARTIFACT))
        return err_set(e, ERR_USER, "is not a bundle of version 0.3");
    if (json_opt_object(doc, "dsseEnvelope", &envelope, e) < 0)
        return -1;
    return envelope ? read_envelope(envelope, ret, e)
                    : err_set(e, ERR_USER, "holds no signed statement");
}

static bool is_kind(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(statement_kinds); i++)
        if (str_eq(text, statement_kinds[i]))
            return true;
    return false;
}

/* Does that subject mean the digest? 1, 0, or -1. *ret_name: what it calls the image, or "". */
static int is_about(const cJSON *subject, const char *digest, const char **ret_name, struct err *e)
{
    AUTO_FREE char *algorithm = mem_strndup(digest, strcspn(digest, ":"));
    const cJSON *digests = NULL;
    const char *hex = "";

    *ret_name = "";
    if (!cJSON_IsObject(subject))
        return err_set(e, ERR_USER, "subject: not an object");
    if (json_opt_object(subject, "digest", &digests, e) < 0 ||
        json_opt_str(subject, "name", BOUND_REF, ret_name, e) < 0 ||
        (digests && json_opt_str(digests, algorithm, DIGEST_TEXT_MAX - 1, &hex, e) < 0))
        return -1;
    return str_eq(hex, digest_hex(digest));
}

static int check_name(const char *name, const struct oci_ref *ref, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (!*name)
        return err_set(e, ERR_USER,
                       "names no repository, as bundles of cosign do not: identity \"any\" of the "
                       "rule takes such");
    return oci_signature_is_of(name, ref)
               ? 0
               : err_set(e, ERR_USER, "was made for another repository: %s", str_show(shown, name));
}

int oci_signature_bundle_statement(const struct oci_signature_bundle *b, const char *digest,
                                   const struct oci_ref *ref, bool match, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *subjects, *item;
    const char *type, *predicate, *name;
    char shown[STR_SHOW_MAX];

    if (json_parse(b->signed_text + b->statement_at, b->signed_n - b->statement_at, &doc, e) < 0 ||
        json_get_str(doc, "_type", 200, &type, e) < 0 ||
        json_get_str(doc, "predicateType", 200, &predicate, e) < 0 ||
        json_get_array(doc, "subject", SUBJECTS_MAX, &subjects, e) < 0)
        return -1;
    if (!is_kind(type) || !str_eq(predicate, OCI_BUNDLE_PREDICATE))
        return err_set(e, ERR_USER, "is of another kind: %s",
                       str_show(shown, is_kind(type) ? predicate : type));
    cJSON_ArrayForEach(item, subjects) {
        int rc = is_about(item, digest, &name, e);

        if (rc < 0)
            return -1;
        if (rc)
            return match ? check_name(name, ref, e) : 0;
    }
    return err_set(e, ERR_USER, "is of another image");
}
