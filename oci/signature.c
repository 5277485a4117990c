#include "oci/signature.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/late_crypto.h"
#include "base/mem.h"
#include "base/str.h"
#include "oci/ref.h"

#define PAYLOAD_TYPE "application/vnd.dev.cosign.simplesigning.v1+json"
#define ANNOTATION   "dev.cosignproject.cosign/signature"
#define PREDICATE    "dev.sigstore.bundle.predicateType"

static const char *const kinds[] = {"cosign container image signature",
                                    "atomic container signature"};

void oci_signature_free(struct oci_signatures *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->items[i].bytes);
    free(s->items);
    *s = (struct oci_signatures){0};
}

int oci_signature_decode(const char *text, unsigned char **ret, size_t *ret_n, struct err *e)
{
    size_t n = strlen(text), pad = n && text[n - 1] == '=' ? 1 + (n > 1 && text[n - 2] == '=') : 0;
    AUTO_FREE unsigned char *bytes = mem_zalloc(n + 4);
    int got = n && n % 4 == 0 ? EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) : -1;

    if (got < (int)pad)
        return err_set(e, ERR_USER, "is not base64");
    *ret_n = (size_t)got - pad;
    *ret = take_ptr(&bytes);
    return 0;
}

static int take_descriptor(const cJSON *item, uint64_t max, struct oci_desc *ret, struct err *e)
{
    const char *digest;

    if (json_get_str(item, "digest", DIGEST_TEXT_MAX - 1, &digest, e) < 0 ||
        json_get_u64(item, "size", max, &ret->size, e) < 0)
        return -1;
    if (!digest_is_valid(digest))
        return err_set(e, ERR_USER, "not a digest");
    snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
    return 0;
}

/* Bundles hold other things, too: what is too large for a signature is none. */
static int read_bundle(const cJSON *item, struct oci_signatures *ret, struct err *e)
{
    struct oci_signature *s = &ret->items[ret->n];

    if (take_descriptor(item, INT64_MAX, &s->payload, e) < 0)
        return -1;
    s->is_bundle = true;
    ret->n += s->payload.size <= BOUND_SIGNATURE;
    return 0;
}

static int read_layer(const cJSON *item, struct oci_signatures *ret, struct err *e)
{
    const cJSON *notes = NULL;
    const char *type = "", *text = NULL;
    struct oci_signature *s = &ret->items[ret->n];

    if (!cJSON_IsObject(item))
        return err_set(e, ERR_USER, "not an object");
    if (json_opt_str(item, "mediaType", 255, &type, e) < 0)
        return -1;
    if (str_eq(type, OCI_BUNDLE_ARTIFACT))
        return read_bundle(item, ret, e);
    if (!str_eq(type, PAYLOAD_TYPE))
        return 0;
    if (take_descriptor(item, BOUND_SIGNATURE, &s->payload, e) < 0 ||
        json_get_object(item, "annotations", &notes, e) < 0 ||
        json_get_str(notes, ANNOTATION, BOUND_SIGNATURE, &text, e) < 0)
        return -1;
    ret->n++; /* what decoding allocates is released with the rest */
    return oci_signature_decode(text, &s->bytes, &s->n, e) < 0 ? err_wrap(e, ANNOTATION) : 0;
}

int oci_signature_manifest(const char *text, size_t n, struct oci_signatures *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *list, *item;

    if (json_parse(text, n, &doc, e) < 0 ||
        json_get_array(doc, "layers", BOUND_SIGNATURES, &list, e) < 0)
        return -1;
    size_t more = (size_t)cJSON_GetArraySize(list);

    if (more > BOUND_SIGNATURES - ret->n)
        return err_set(e, ERR_LIMIT, "more than %d signatures", BOUND_SIGNATURES);
    if (!more)
        return 0;
    ret->items = mem_realloc(ret->items, ret->n + more, sizeof(*ret->items));
    memset(ret->items + ret->n, 0, more * sizeof(*ret->items));
    cJSON_ArrayForEach(item, list) {
        if (read_layer(item, ret, e) < 0)
            return err_wrap(e, "signature %zu", ret->n);
    }
    return 0;
}

/* Is that referrer one that may be a signature? 1, 0, -1. */
static int is_signature(const cJSON *item, struct err *e)
{
    const cJSON *notes = NULL;
    const char *kind = "", *predicate = OCI_BUNDLE_PREDICATE;

    if (!cJSON_IsObject(item))
        return err_set(e, ERR_USER, "manifests: not an object");
    if (json_opt_str(item, "artifactType", 255, &kind, e) < 0)
        return -1;
    if (!str_eq(kind, OCI_BUNDLE_ARTIFACT))
        return str_eq(kind, OCI_SIGNATURE_ARTIFACT);
    if (json_opt_object(item, "annotations", &notes, e) < 0 ||
        (notes && json_opt_str(notes, PREDICATE, 255, &predicate, e) < 0))
        return -1;
    return str_eq(predicate, OCI_BUNDLE_PREDICATE);
}

int oci_signature_referrers(const char *text, size_t n, struct str_list *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *list, *item;

    if (json_parse(text, n, &doc, e) < 0 ||
        json_get_array(doc, "manifests", BOUND_INDEX_MANIFESTS, &list, e) < 0)
        return -1;
    cJSON_ArrayForEach(item, list) {
        const char *digest;
        int rc = is_signature(item, e);

        if (rc < 0)
            return -1;
        if (!rc)
            continue;
        if (json_get_str(item, "digest", DIGEST_TEXT_MAX - 1, &digest, e) < 0)
            return -1;
        if (!digest_is_valid(digest))
            return err_set(e, ERR_USER, "not a digest");
        if (!str_list_has(ret, digest))
            str_list_add(ret, digest);
    }
    return 0;
}

static bool is_kind(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_eq(text, kinds[i]))
            return true;
    return false;
}

bool oci_signature_is_of(const char *text, const struct oci_ref *ref)
{
    AUTO(oci_ref) struct oci_ref *said = NULL;
    struct err ignored = ERR_INIT;

    return oci_ref_parse(text, &said, &ignored) == 0 && str_eq(said->registry, ref->registry) &&
           str_eq(said->repository, ref->repository);
}

int oci_signature_payload(const char *text, size_t n, const char *digest, const struct oci_ref *ref,
                          bool match, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *critical, *image, *identity;
    const char *type, *of, *name;
    char shown[STR_SHOW_MAX];

    if (json_parse(text, n, &doc, e) < 0 || json_get_object(doc, "critical", &critical, e) < 0 ||
        json_get_str(critical, "type", 200, &type, e) < 0 ||
        json_get_object(critical, "image", &image, e) < 0 ||
        json_get_str(image, "docker-manifest-digest", DIGEST_TEXT_MAX - 1, &of, e) < 0 ||
        json_get_object(critical, "identity", &identity, e) < 0 ||
        json_get_str(identity, "docker-reference", BOUND_REF, &name, e) < 0)
        return -1;
    if (!is_kind(type))
        return err_set(e, ERR_USER, "is of another kind: %s", str_show(shown, type));
    if (!str_eq(of, digest))
        return err_set(e, ERR_USER, "is of another image: %s", str_show(shown, of));
    if (match && !oci_signature_is_of(name, ref))
        return err_set(e, ERR_USER, "was made for another repository: %s", str_show(shown, name));
    return 0;
}
