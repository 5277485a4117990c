/*
 * What `docker save` writes: manifest.json names the configuration and the layers of each image. Old: "ID.json" and
 * "ID/layer.tar" (some of them links to others); new: "blobs/sha256/…", an OCI layout beside. Layers are plain tars, but
 * some tools write compressed ones; then their digest is told by nobody and has to be computed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "oci/local_inner.h"
#include "oci/manifest.h"

#define CONFIG_TYPE "application/vnd.docker.container.image.v1+json"
#define LAYER_TYPE  "application/vnd.docker.image.rootfs.diff.tar"

static void add_alias(struct oci_local *l, const char *digest, const char *name)
{
    l->aliases = mem_realloc(l->aliases, l->n_aliases + 1, sizeof(*l->aliases));
    struct oci_local_alias *a = &l->aliases[l->n_aliases++];

    snprintf(a->digest, sizeof(a->digest), "%s", digest);
    a->name = mem_strdup(name);
}

static bool has_tag(const cJSON *image, const char *name)
{
    const cJSON *tags = cJSON_GetObjectItemCaseSensitive(image, "RepoTags"), *tag;

    cJSON_ArrayForEach(tag, tags) {
        if (cJSON_IsString(tag) && str_eq(tag->valuestring, name))
            return true;
    }
    return false;
}

static int choose(const cJSON *list, const char *name, const cJSON **ret, struct err *e)
{
    const cJSON *image;
    char shown[STR_SHOW_MAX];

    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > BOUND_INDEX_MANIFESTS)
        return err_set(e, ERR_USER, "is not a list of images");
    cJSON_ArrayForEach(image, list) {
        if (cJSON_IsObject(image) && (!name || has_tag(image, name))) {
            *ret = image;
            break;
        }
    }
    if (!image)
        return err_set(e, ERR_ABSENT, "there is no image %s in it",
                       str_show(shown, name ? name : ""));
    if (!name && cJSON_GetArraySize(list) > 1)
        return err_set(e, ERR_USER,
                       "there are %d images in it; say which: docker-archive:FILE:NAME:TAG",
                       cJSON_GetArraySize(list));
    return 0;
}

static cJSON *describe(const char *type, const char *digest, uint64_t size)
{
    cJSON *d = cJSON_CreateObject();

    json_add_str(d, "mediaType", type);
    json_add_int(d, "size", (int64_t)size);
    json_add_str(d, "digest", digest);
    return d;
}

static int to_digest(void *arg, const void *data, size_t n, struct err *e)
{
    (void)e;
    digest_update(arg, data, n);
    return 0;
}

static int to_head(void *arg, const void *data, size_t n, struct err *e)
{
    (void)e;
    return str_append(arg, data, n);
}

static bool is_compressed(const struct oci_box_piece *p)
{
    struct oci_box_piece start = *p;
    AUTO(str) struct str head = STR_INIT(4);
    struct err ignored = ERR_INIT;

    start.n = p->n < 4 ? p->n : 4;
    if (oci_box_stream(&start, to_head, &head, &ignored) < 0 || head.len < 4)
        return false;
    return !memcmp(head.buf, "\x1f\x8b", 2) || !memcmp(head.buf, "\x28\xb5\x2f\xfd", 4);
}

/* The digest of the layer file as it lies there: of a plain tar it is the diff id. It is verified when it is read. */
static int add_layer(struct oci_local *l, const char *name, const char *diff_id, cJSON *layers,
                     struct err *e)
{
    AUTO(oci_box_piece) struct oci_box_piece p = OCI_BOX_PIECE_INIT;
    char digest[DIGEST_TEXT_MAX];

    if (oci_box_find(l->box, name, &p, e) < 0)
        return -1;
    if (is_compressed(&p)) {
        AUTO(digest) struct digest *d = digest_new("sha256");

        if (oci_box_stream(&p, to_digest, d, e) < 0)
            return -1;
        digest_text(d, digest);
    } else {
        snprintf(digest, sizeof(digest), "%s", diff_id);
    }
    add_alias(l, digest, name);
    cJSON_AddItemToArray(layers, describe(LAYER_TYPE, digest, p.n));
    return 0;
}

static int add_layers(struct oci_local *l, const cJSON *image, const struct str_list *diff_ids,
                      cJSON *manifest, struct err *e)
{
    AUTO(str_list) struct str_list names = {0};
    cJSON *layers = json_add_array(manifest, "layers");

    if (json_opt_str_list(image, "Layers", BOUND_LAYERS, BOUND_PATH, &names, e) < 0)
        return -1;
    if (names.n != diff_ids->n)
        return err_set(e, ERR_USER, "names %zu layers, the configuration %zu", names.n,
                       diff_ids->n);
    for (size_t i = 0; i < names.n; i++)
        if (add_layer(l, names.items[i], diff_ids->items[i], layers, e) < 0)
            return err_wrap(e, "layer %zu", i + 1);
    return 0;
}

static int make_up(struct oci_local *l, const cJSON *image, cJSON *manifest, struct err *e)
{
    AUTO(str) struct str config = STR_INIT(BOUND_IMAGE_CONFIG);
    AUTO(oci_config_doc) struct oci_config_doc doc = {0};
    char digest[DIGEST_TEXT_MAX];
    const char *name;

    if (json_get_str(image, "Config", BOUND_PATH, &name, e) < 0 ||
        json_opt_str_list(image, "RepoTags", 1000, BOUND_REF, &l->names, e) < 0 ||
        oci_box_read(l->box, name, &config, e) < 0 ||
        oci_config_parse(str_text(&config), config.len, &doc, e) < 0)
        return -1;
    digest_of(str_text(&config), config.len, digest);
    add_alias(l, digest, name);
    json_add_int(manifest, "schemaVersion", 2);
    json_add_item(manifest, "config", describe(CONFIG_TYPE, digest, config.len));
    return add_layers(l, image, &doc.diff_ids, manifest, e);
}

int oci_local_docker_manifest(struct oci_local *l, const char *name, struct str *ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_MANIFEST);
    AUTO(cJSON) cJSON *list = NULL;
    AUTO(cJSON) cJSON *manifest = cJSON_CreateObject();
    const cJSON *image = NULL;

    if (oci_box_read(l->box, "manifest.json", &text, e) < 0)
        return e->kind == ERR_ABSENT
                   ? err_set(e, ERR_USER, "is not what docker save writes: no manifest.json")
                   : -1;
    if (json_parse(str_text(&text), text.len, &list, e) < 0 || choose(list, name, &image, e) < 0 ||
        make_up(l, image, manifest, e) < 0)
        return err_wrap(e, "manifest.json");
    AUTO_FREE char *made = json_text(manifest);

    return str_append_text(ret, made) < 0 ? err_set(e, ERR_LIMIT, "manifest is larger than allowed")
                                          : 0;
}
