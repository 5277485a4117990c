/* rows: S13 S14 S62 */
/* Any bytes as manifest or index, as image configuration, and as the manifest and payload of signatures: whatever is taken has
 * digests of the grammar and lists within their bounds. */
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/str.h"
#include "fuzz.h"
#include "oci/manifest.h"
#include "oci/ref.h"
#include "oci/signature.h"

static void check_desc(const struct oci_desc *d)
{
    BUG_ON(!digest_is_valid(d->digest) || d->size > BOUND_UNPACKED);
}

static void as_document(const char *text, size_t n)
{
    AUTO(oci_doc) struct oci_doc d = {0};
    struct oci_platform host = {"linux", "arm64", "v8"};
    const struct oci_desc *chosen;
    struct err e = ERR_INIT;

    if (oci_doc_parse(text, n, NULL, &d, &e) < 0)
        return;
    BUG_ON(d.n_layers > BOUND_LAYERS || d.n_entries > BOUND_INDEX_MANIFESTS);
    if (d.kind == OCI_DOC_MANIFEST)
        check_desc(&d.config);
    for (size_t i = 0; i < d.n_layers; i++)
        check_desc(&d.layers[i]);
    for (size_t i = 0; i < d.n_entries; i++)
        check_desc(&d.entries[i].desc);
    if (d.kind == OCI_DOC_INDEX && oci_doc_choose(&d, &host, &chosen, &e) == 0)
        check_desc(chosen);
}

static void as_config(const char *text, size_t n)
{
    AUTO(oci_config_doc) struct oci_config_doc c = {0};
    struct err e = ERR_INIT;

    if (oci_config_parse(text, n, &c, &e) < 0)
        return;
    BUG_ON(c.diff_ids.n > BOUND_LAYERS);
    for (size_t i = 0; i < c.diff_ids.n; i++)
        BUG_ON(!digest_is_valid(c.diff_ids.items[i]));
    BUG_ON(!c.config.user || !c.config.working_dir || !c.config.stop_signal);
}

static void as_signatures(const char *text, size_t n)
{
    AUTO(oci_signatures) struct oci_signatures s = {0};
    struct oci_ref ref = {.registry = (char *)"docker.io", .repository = (char *)"library/x"};
    struct err e = ERR_INIT;

    if (oci_signature_manifest(text, n, &s, &e) == 0)
        for (size_t i = 0; i < s.n; i++)
            BUG_ON(!digest_is_valid(s.items[i].payload.digest) ||
                   s.items[i].payload.size > BOUND_SIGNATURE ||
                   (!s.items[i].n && !s.items[i].is_bundle));
    AUTO(str_list) struct str_list referrers = {0};

    if (oci_signature_referrers(text, n, &referrers, &e) == 0)
        for (size_t i = 0; i < referrers.n; i++)
            BUG_ON(!digest_is_valid(referrers.items[i]));
    if (oci_signature_payload(text, n, "sha256:0", &ref, true, &e) == 0)
        BUG_ON(!memmem(text, n, "sha256:0", 8));
}
static void as_bundle(const char *text, size_t n)
{
    AUTO(oci_signature_bundle) struct oci_signature_bundle b = {0};
    struct oci_ref ref = {.registry = (char *)"docker.io", .repository = (char *)"library/x"};
    struct err e = ERR_INIT;

    if (oci_signature_bundle_parse(text, n, &b, &e) < 0)
        return;
    BUG_ON(b.statement_at > b.signed_n || !str_starts(b.signed_text, "DSSEv1 28 application/"));
    if (oci_signature_bundle_statement(&b, "sha256:0", &ref, true, &e) == 0)
        BUG_ON(!memmem(b.signed_text, b.signed_n, "sha256", 6));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = n ? (const char *)data : "";

    as_document(text, n);
    as_config(text, n);
    as_signatures(text, n);
    as_bundle(text, n);
    return 0;
}
