#include <string.h>

#include "base/bounds.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "oci/platform.h"
#include "oci/pull_inner.h"
#include "oci/ref.h"
#include "oci/registry.h"
#include "oci/trust.h"

static int check_desc(const struct oci_desc *d, const struct str *body, struct err *e)
{
    return d->size == body->len
               ? 0
               : err_set(e, ERR_USER, "manifest %s has %zu bytes, not the %llu announced",
                         d->digest, body->len, (unsigned long long)d->size);
}

/* What is asked for, and whether somebody did ask. */
static int wanted_platform(const struct pull *p, struct oci_platform *ret, bool *asked,
                           struct err *e)
{
    const char *text = oci_platform_asked(p->o->platform);

    *asked = text && *text;
    if (*asked)
        return oci_platform_parse(text, ret, e);
    oci_platform_host(ret);
    return 0;
}

/* An image without an index says of which platform it is in its configuration only. */
static int check_platform(struct pull *p, struct err *e)
{
    const struct oci_platform *is = &p->config.platform;
    struct oci_platform wanted;
    char a[OCI_PLATFORM_TEXT], b[OCI_PLATFORM_TEXT], shown[STR_SHOW_MAX];
    bool asked;

    if (wanted_platform(p, &wanted, &asked, e) < 0)
        return -1;
    if (!*is->os || oci_platform_score(&wanted, is))
        return 0;
    str_show(shown, oci_platform_text(is, a));
    oci_platform_text(&wanted, b);
    if (asked)
        return err_set(e, ERR_ABSENT, "is for %s, not for %s", shown, b);
    log_warn("image %s is for %s, this machine is %s", p->manifest_digest, shown, b);
    return 0;
}

/* From index to index to the manifest of the platform. */
int pull_resolve_manifest(struct pull *p, struct err *e)
{
    AUTO_FREE char *reference = mem_strdup(p->ref->digest ? p->ref->digest : p->ref->tag);
    struct oci_platform platform;
    struct oci_desc chosen = {0};
    bool asked;

    if (wanted_platform(p, &platform, &asked, e) < 0)
        return -1;
    for (int depth = 0; depth <= BOUND_INDEX_DEPTH; depth++) {
        AUTO(str) struct str body = STR_INIT(BOUND_MANIFEST);
        AUTO_FREE char *type = NULL;
        const struct oci_desc *next;

        if (oci_session_manifest(p->session, reference, &body, &type, p->manifest_digest, e) < 0)
            return -1;
        if (depth == 0)
            memcpy(p->top_digest, p->manifest_digest, sizeof(p->top_digest));
        else if (check_desc(&chosen, &body, e) < 0)
            return -1;
        oci_doc_free(&p->doc);
        if (oci_doc_parse(str_text(&body), body.len, type, &p->doc, e) < 0)
            return err_wrap(e, "manifest %s", p->manifest_digest);
        if (p->doc.kind == OCI_DOC_MANIFEST)
            return 0;
        if (oci_doc_choose(&p->doc, &platform, &next, e) < 0)
            return err_wrap(e, "index %s", p->manifest_digest);
        chosen = *next;
        mem_replace(&reference, chosen.digest);
    }
    return err_set(e, ERR_LIMIT, "indexes nested more than %d deep", BOUND_INDEX_DEPTH);
}

static int resolve_config(struct pull *p, struct err *e)
{
    AUTO(str) struct str body = STR_INIT(BOUND_IMAGE_CONFIG);

    if (oci_session_config(p->session, &p->doc.config, &body, e) < 0 ||
        oci_config_parse(str_text(&body), body.len, &p->config, e) < 0)
        return err_wrap(e, "config %s", p->doc.config.digest);
    if (p->config.diff_ids.n != p->doc.n_layers)
        return err_set(e, ERR_USER, "config %s names %zu layers, the manifest %zu",
                       p->doc.config.digest, p->config.diff_ids.n, p->doc.n_layers);
    return 0;
}

uint64_t pull_compressed_size(const struct oci_doc *d)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < d->n_layers; i++)
        if (__builtin_add_overflow(sum, d->layers[i].size, &sum))
            return UINT64_MAX;
    return sum;
}

static int check_size(struct pull *p, struct err *e)
{
    uint64_t size = pull_compressed_size(&p->doc), max = p->o->max_compressed_size;
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (!max || size <= max)
        return 0;
    return err_set(e, ERR_LIMIT, "%s compressed, more than the %s allowed",
                   units_decimal_str(a, size), units_decimal_str(b, max));
}

int pull_resolve(struct pull *p, struct err *e)
{
    const struct oci_trust *trust = p->o->registries->trust;

    pull_enter_phase(p, OCI_RESOLVING);
    if (oci_trust_admits(trust, p->ref, e) < 0 || pull_resolve_manifest(p, e) < 0 ||
        oci_trust_check_signature(trust, p->session, p->ref, p->top_digest, e) < 0)
        return -1;
    return check_size(p, e);
}

int pull_resolve_config(struct pull *p, struct err *e)
{
    return resolve_config(p, e) < 0 ? -1 : check_platform(p, e);
}
