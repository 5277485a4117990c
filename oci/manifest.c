#include "oci/manifest.h"

#include <stdio.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

#define OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"

const char oci_manifest_accept[] =
    "Accept: " OCI_INDEX ", " OCI_MANIFEST ", " DOCKER_LIST ", " DOCKER_MANIFEST;

static const struct {
    const char *type;
    enum oci_doc_kind kind;
} kinds[] = {
    {OCI_INDEX, OCI_DOC_INDEX},
    {DOCKER_LIST, OCI_DOC_INDEX},
    {OCI_MANIFEST, OCI_DOC_MANIFEST},
    {DOCKER_MANIFEST, OCI_DOC_MANIFEST},
};

static const char *const config_types[] = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
};

static const char *const layer_types[] = {
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
};

/* What servers say that know nothing of images: then the document decides. */
static const char *const generic_types[] = {
    "application/json",
    "application/octet-stream",
    "text/plain",
    "binary/octet-stream",
};

static bool listed(const char *const *list, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(list[i], text))
            return true;
    return false;
}

static int kind_of_type(const char *type, enum oci_doc_kind *ret, struct err *e)
{
    char shown[STR_SHOW_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (!str_eq(kinds[i].type, type))
            continue;
        *ret = kinds[i].kind;
        return 0;
    }
    if (str_starts(type, "application/vnd.docker.distribution.manifest.v1"))
        return err_set(e, ERR_USER,
                       "is in Docker's schema 1, which is no longer supported; push it anew");
    return err_set(e, ERR_USER, "is of a type we do not know: %s", str_show(shown, type));
}

static int read_desc(const cJSON *obj, struct oci_desc *ret, struct err *e)
{
    const char *type = "", *digest;

    if (json_opt_str(obj, "mediaType", sizeof(ret->media_type) - 1, &type, e) < 0 ||
        json_get_str(obj, "digest", DIGEST_TEXT_MAX, &digest, e) < 0 ||
        json_get_u64(obj, "size", BOUND_UNPACKED, &ret->size, e) < 0)
        return -1;
    if (!digest_is_valid(digest)) {
        char shown[STR_SHOW_MAX];

        return err_set(e, ERR_USER, "not a digest: %s", str_show(shown, digest));
    }
    snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
    snprintf(ret->media_type, sizeof(ret->media_type), "%s", type);
    return 0;
}

/* os "" when it is not said. */
static int read_platform(const cJSON *p, struct oci_platform *ret, struct err *e)
{
    const char *os = "", *arch = "", *variant = "";

    if (json_opt_str(p, "os", sizeof(ret->os) - 1, &os, e) < 0 ||
        json_opt_str(p, "architecture", sizeof(ret->arch) - 1, &arch, e) < 0 ||
        json_opt_str(p, "variant", sizeof(ret->variant) - 1, &variant, e) < 0)
        return -1;
    snprintf(ret->os, sizeof(ret->os), "%s", os);
    snprintf(ret->arch, sizeof(ret->arch), "%s", arch);
    snprintf(ret->variant, sizeof(ret->variant), "%s", variant);
    return 0;
}

static int read_index(const cJSON *doc, struct oci_doc *d, struct err *e)
{
    const cJSON *list, *item;

    if (json_get_array(doc, "manifests", BOUND_INDEX_MANIFESTS, &list, e) < 0)
        return -1;
    d->entries = mem_array((size_t)cJSON_GetArraySize(list), sizeof(*d->entries));
    cJSON_ArrayForEach(item, list) {
        struct oci_index_entry *entry = &d->entries[d->n_entries++];
        const cJSON *platform = NULL;

        if (!cJSON_IsObject(item))
            return err_set(e, ERR_USER, "manifests: not an object");
        if (read_desc(item, &entry->desc, e) < 0 ||
            json_opt_object(item, "platform", &platform, e) < 0 ||
            (platform && read_platform(platform, &entry->platform, e) < 0))
            return err_wrap(e, "manifest %zu", d->n_entries);
    }
    return 0;
}

static int read_layer(const cJSON *item, struct oci_desc *layer, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (!cJSON_IsObject(item))
        return err_set(e, ERR_USER, "not an object");
    if (read_desc(item, layer, e) < 0)
        return -1;
    return listed(layer_types, ARRAY_SIZE(layer_types), layer->media_type)
               ? 0
               : err_set(e, ERR_USER, "is of a type we do not know: %s",
                         str_show(shown, layer->media_type));
}

static int read_manifest(const cJSON *doc, struct oci_doc *d, struct err *e)
{
    const cJSON *config, *list, *item;
    char shown[STR_SHOW_MAX];

    if (json_get_object(doc, "config", &config, e) < 0)
        return -1;
    if (read_desc(config, &d->config, e) < 0)
        return err_wrap(e, "config");
    if (!listed(config_types, ARRAY_SIZE(config_types), d->config.media_type))
        return err_set(e, ERR_USER, "is not a container image: its config is of type %s",
                       str_show(shown, d->config.media_type));
    if (d->config.size > BOUND_IMAGE_CONFIG)
        return err_set(e, ERR_LIMIT, "config above %llu bytes", BOUND_IMAGE_CONFIG);
    if (json_get_array(doc, "layers", BOUND_LAYERS, &list, e) < 0)
        return -1;
    d->layers = mem_array((size_t)cJSON_GetArraySize(list), sizeof(*d->layers));
    cJSON_ArrayForEach(item, list) {
        if (read_layer(item, &d->layers[d->n_layers++], e) < 0)
            return err_wrap(e, "layer %zu", d->n_layers);
    }
    return 0;
}

/* The type the document must be of, from how it was served and what it says itself. */
static int settle_kind(const cJSON *doc, const char *content_type, enum oci_doc_kind *ret,
                       struct err *e)
{
    AUTO_FREE char *served = mem_strndup(content_type ? content_type : "",
                                         strcspn(content_type ? content_type : "", "; \t"));
    const char *said = NULL;
    bool has_manifests = cJSON_HasObjectItem(doc, "manifests"),
         has_layers = cJSON_HasObjectItem(doc, "layers");
    uint64_t version;

    if (json_get_u64(doc, "schemaVersion", 1000, &version, e) < 0 ||
        json_opt_str(doc, "mediaType", 255, &said, e) < 0)
        return -1;
    if (version == 1)
        return err_set(e, ERR_USER,
                       "is in Docker's schema 1, which is no longer supported; push it anew");
    if (version != 2)
        return err_set(e, ERR_USER, "schemaVersion is not 2");
    if (has_manifests && has_layers)
        return err_set(e, ERR_USER, "has both manifests and layers (CVE-2021-41190)");
    bool generic = !*served || listed(generic_types, ARRAY_SIZE(generic_types), served);

    if (said && !generic && !str_eq(said, served)) {
        char shown[STR_SHOW_MAX];

        return err_set(e, ERR_USER, "says it is %s, but was served as another type",
                       str_show(shown, said));
    }
    if (!said && generic)
        *ret = has_manifests ? OCI_DOC_INDEX : OCI_DOC_MANIFEST;
    else if (kind_of_type(said ? said : served, ret, e) < 0)
        return -1;
    if (*ret == OCI_DOC_INDEX ? !has_manifests : !has_layers)
        return err_set(e, ERR_USER, "has no %s", *ret == OCI_DOC_INDEX ? "manifests" : "layers");
    return 0;
}

int oci_doc_parse(const char *text, size_t n, const char *content_type, struct oci_doc *ret,
                  struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO(oci_doc) struct oci_doc d = {0};

    if (json_parse(text, n, &doc, e) < 0)
        return -1;
    if (!cJSON_IsObject(doc))
        return err_set(e, ERR_USER, "is not a JSON object");
    if (settle_kind(doc, content_type, &d.kind, e) < 0 ||
        (d.kind == OCI_DOC_INDEX ? read_index(doc, &d, e) : read_manifest(doc, &d, e)) < 0)
        return -1;
    *ret = d;
    d = (struct oci_doc){0};
    return 0;
}

void oci_doc_free(struct oci_doc *d)
{
    free(d->entries);
    free(d->layers);
    *d = (struct oci_doc){0};
}

static int none_suits(const struct oci_doc *index, const struct oci_platform *host, struct err *e)
{
    char text[OCI_PLATFORM_TEXT];
    AUTO(str) struct str there = STR_INIT(300);

    for (size_t i = 0; i < index->n_entries; i++) {
        const struct oci_platform *p = &index->entries[i].platform;

        if (!*p->os || str_eq(p->os, "unknown"))
            continue;
        if (str_appendf(&there, "%s%s", there.len ? ", " : "", oci_platform_text(p, text)) < 0)
            break;
    }
    char shown[STR_SHOW_MAX];

    str_escape(shown, sizeof(shown), str_text(&there), there.len);
    return err_set(e, ERR_ABSENT, "has no image for %s; there is: %s",
                   oci_platform_text(host, text), there.len ? shown : "none");
}

int oci_doc_choose(const struct oci_doc *index, const struct oci_platform *host,
                   const struct oci_desc **ret, struct err *e)
{
    const struct oci_index_entry *best = NULL;
    int best_score = 0;
    enum oci_doc_kind kind;
    struct err ignored;

    for (size_t i = 0; i < index->n_entries; i++) {
        const struct oci_index_entry *entry = &index->entries[i];
        /* Without a platform it may be a nested index or the only image: better than nothing. */
        int score = *entry->platform.os ? oci_platform_score(host, &entry->platform) * 2 : 1;

        if (*entry->desc.media_type && kind_of_type(entry->desc.media_type, &kind, &ignored) < 0)
            continue;
        if (score > best_score) {
            best = entry;
            best_score = score;
        }
    }
    if (!best)
        return none_suits(index, host, e);
    *ret = &best->desc;
    return 0;
}

void oci_image_config_free(struct image_config *c)
{
    str_list_free(&c->env);
    str_list_free(&c->entrypoint);
    str_list_free(&c->cmd);
    free(c->user);
    free(c->working_dir);
    free(c->stop_signal);
    *c = (struct image_config){0};
}

void oci_config_free(struct oci_config_doc *c)
{
    oci_image_config_free(&c->config);
    str_list_free(&c->diff_ids);
    *c = (struct oci_config_doc){0};
}

static int read_text(const cJSON *obj, const char *key, size_t max, char **ret, struct err *e)
{
    const char *text = "";

    if (json_opt_str(obj, key, max, &text, e) < 0)
        return -1;
    *ret = mem_strdup(text);
    return 0;
}

static int read_run_config(const cJSON *obj, struct image_config *c, struct err *e)
{
    enum { ITEMS = 10000 };

    if (json_opt_str_list(obj, "Env", ITEMS, BOUND_COMMAND, &c->env, e) < 0 ||
        json_opt_str_list(obj, "Entrypoint", ITEMS, BOUND_COMMAND, &c->entrypoint, e) < 0 ||
        json_opt_str_list(obj, "Cmd", ITEMS, BOUND_COMMAND, &c->cmd, e) < 0)
        return -1;
    return read_text(obj, "User", BOUND_PATH, &c->user, e) < 0 ||
                   read_text(obj, "WorkingDir", BOUND_PATH, &c->working_dir, e) < 0 ||
                   read_text(obj, "StopSignal", 64, &c->stop_signal, e) < 0
               ? -1
               : 0;
}

static int read_diff_ids(const cJSON *doc, struct str_list *ret, struct err *e)
{
    const cJSON *rootfs;
    const char *type;
    char shown[STR_SHOW_MAX];

    if (json_get_object(doc, "rootfs", &rootfs, e) < 0 ||
        json_get_str(rootfs, "type", 64, &type, e) < 0)
        return -1;
    if (!str_eq(type, "layers"))
        return err_set(e, ERR_USER, "rootfs.type is not \"layers\": %s", str_show(shown, type));
    if (json_opt_str_list(rootfs, "diff_ids", BOUND_LAYERS, DIGEST_TEXT_MAX, ret, e) < 0)
        return -1;
    for (size_t i = 0; i < ret->n; i++)
        if (!digest_is_valid(ret->items[i]))
            return err_set(e, ERR_USER, "diff id %zu is not a digest: %s", i + 1,
                           str_show(shown, ret->items[i]));
    return 0;
}

int oci_config_parse(const char *text, size_t n, struct oci_config_doc *ret, struct err *e)
{
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO(cJSON) cJSON *empty = cJSON_CreateObject();
    AUTO(oci_config_doc) struct oci_config_doc c = {0};
    const cJSON *config = NULL;

    if (json_parse(text, n, &doc, e) < 0)
        return -1;
    if (!cJSON_IsObject(doc))
        return err_set(e, ERR_USER, "is not a JSON object");
    if (json_opt_object(doc, "config", &config, e) < 0 ||
        read_run_config(config ? config : empty, &c.config, e) < 0 ||
        read_diff_ids(doc, &c.diff_ids, e) < 0 || read_platform(doc, &c.platform, e) < 0)
        return -1;
    *ret = c;
    memset(&c, 0, sizeof(c)); /* handed over: its cleanup finds nothing */
    return 0;
}
