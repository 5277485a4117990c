#include "oci/local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "oci/local_inner.h"
#include "oci/manifest.h"
#include "oci/ref.h"

#define REF_NAME        "org.opencontainers.image.ref.name"
#define CONTAINERD_NAME "io.containerd.image.name"
#define INDEX_TYPE      "application/vnd.oci.image.index.v1+json"

static int check_layout(const struct oci_local *l, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4096);
    AUTO(cJSON) cJSON *doc = NULL;
    const char *version;
    char shown[STR_SHOW_MAX];

    if (oci_box_read(l->box, "oci-layout", &text, e) < 0)
        return e->kind == ERR_ABSENT ? err_set(e, ERR_USER, "is no OCI layout: no file oci-layout")
                                     : -1;
    if (json_parse(str_text(&text), text.len, &doc, e) < 0 ||
        json_get_str(doc, "imageLayoutVersion", 64, &version, e) < 0)
        return err_wrap(e, "oci-layout");
    return str_starts(version, "1.") ? 0
                                     : err_set(e, ERR_USER, "is a layout of another version: %s",
                                               str_show(shown, version));
}

int oci_local_open(const struct oci_ref *ref, struct oci_local **ret, struct err *e)
{
    AUTO(oci_local) struct oci_local *l = mem_new(struct oci_local);

    l->docker = ref->transport == OCI_DOCKER_ARCHIVE;
    if (oci_box_open(ref->path, &l->box, e) < 0)
        return -1;
    if (!l->docker && check_layout(l, e) < 0)
        return err_wrap(e, "%s", ref->path);
    *ret = take_ptr(&l);
    return 0;
}

void oci_local_free(struct oci_local *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_aliases; i++)
        free(l->aliases[i].name);
    free(l->aliases);
    oci_box_free(l->box);
    str_list_free(&l->names);
    free(l);
}

const struct str_list *oci_local_names(const struct oci_local *l)
{
    return &l->names;
}

static char *path_of(const struct oci_local *l, const char *digest)
{
    for (size_t i = 0; i < l->n_aliases; i++)
        if (str_eq(l->aliases[i].digest, digest))
            return mem_strdup(l->aliases[i].name);
    return mem_printf("blobs/%.*s/%s", (int)strcspn(digest, ":"), digest, digest_hex(digest));
}

/* A document, by its digest, which is verified (S12). */
static int read_document(const struct oci_local *l, const char *digest, struct str *ret,
                         struct err *e)
{
    AUTO_FREE char *path = path_of(l, digest);
    AUTO(digest) struct digest *d = digest_new(digest);
    char got[DIGEST_TEXT_MAX];

    if (oci_box_read(l->box, path, ret, e) < 0)
        return -1;
    digest_update(d, str_text(ret), ret->len);
    digest_text(d, got);
    return str_eq(got, digest) ? 0 : err_set(e, ERR_USER, "%s has digest %s", path, got);
}

/* ---- index.json ---- */

static const char *annotation(const cJSON *entry, const char *key)
{
    const cJSON *all = NULL;
    const char *text = NULL;
    struct err ignored = ERR_INIT;

    if (json_opt_object(entry, "annotations", &all, &ignored) < 0 || !all ||
        json_opt_str(all, key, BOUND_REF, &text, &ignored) < 0)
        return NULL;
    return text;
}

static bool is_called(const cJSON *entry, const char *name)
{
    const char *whole = annotation(entry, CONTAINERD_NAME);

    return str_eq(annotation(entry, REF_NAME), name) || str_eq(whole, name);
}

static int several(const cJSON *list, struct err *e)
{
    AUTO(str) struct str names = STR_INIT(300);
    const cJSON *entry;
    char shown[STR_SHOW_MAX];

    cJSON_ArrayForEach(entry, list) {
        const char *name = annotation(entry, REF_NAME);

        if (name && str_appendf(&names, "%s%s", names.len ? ", " : "", name) < 0)
            break;
    }
    str_escape(shown, sizeof(shown), str_text(&names), names.len);
    return err_set(e, ERR_USER, "there are several images in it; say which: %s", shown);
}

/* The entry of that name, or the only one. *ret NULL: the index itself is meant, a manifest a platform. */
static int choose(const cJSON *list, const char *name, const cJSON **ret, struct err *e)
{
    const cJSON *entry;
    char shown[STR_SHOW_MAX];
    bool named = false;

    *ret = NULL;
    cJSON_ArrayForEach(entry, list) {
        named |= annotation(entry, REF_NAME) != NULL;
        if (name ? is_called(entry, name) : cJSON_GetArraySize(list) == 1) {
            *ret = entry;
            return 0;
        }
    }
    if (name)
        return err_set(e, ERR_ABSENT, "there is no image of that name in it: %s",
                       str_show(shown, name));
    if (named || !list->child)
        return list->child ? several(list, e) : err_set(e, ERR_ABSENT, "there is no image in it");
    return 0;
}

/* What the image was called where it comes from: whole references only, a bare tag says nothing. */
static void take_names(struct oci_local *l, const cJSON *entry)
{
    const char *name = annotation(entry, CONTAINERD_NAME);

    if (!name)
        name = annotation(entry, REF_NAME);
    if (name && strpbrk(name, ":/"))
        str_list_add(&l->names, name);
}

static int from_index(struct oci_local *l, const char *name, struct str *ret, char **ret_type,
                      char ret_digest[DIGEST_TEXT_MAX], struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_MANIFEST);
    AUTO(cJSON) cJSON *doc = NULL;
    const cJSON *list, *entry;
    const char *digest, *type = "";

    if (oci_box_read(l->box, "index.json", &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &doc, e) < 0 ||
        json_get_array(doc, "manifests", BOUND_INDEX_MANIFESTS, &list, e) < 0 ||
        choose(list, name, &entry, e) < 0)
        return err_wrap(e, "index.json");
    if (!entry) {
        digest_of(str_text(&text), text.len, ret_digest);
        *ret_type = mem_strdup(INDEX_TYPE);
        str_free(ret);
        *ret = text;
        text = STR_INIT(0);
        return 0;
    }
    if (json_get_str(entry, "digest", DIGEST_TEXT_MAX - 1, &digest, e) < 0 ||
        json_opt_str(entry, "mediaType", 255, &type, e) < 0)
        return err_wrap(e, "index.json");
    if (!digest_is_valid(digest))
        return err_set(e, ERR_USER, "index.json: not a digest");
    take_names(l, entry);
    snprintf(ret_digest, DIGEST_TEXT_MAX, "%s", digest);
    *ret_type = *type ? mem_strdup(type) : NULL;
    return read_document(l, digest, ret, e);
}

/* ---- doors ---- */

int oci_local_manifest(struct oci_local *l, const char *reference, struct str *ret, char **ret_type,
                       char ret_digest[DIGEST_TEXT_MAX], struct err *e)
{
    *ret = STR_INIT(BOUND_MANIFEST);
    *ret_type = NULL;
    if (reference && digest_is_valid(reference)) {
        snprintf(ret_digest, DIGEST_TEXT_MAX, "%s", reference);
        return read_document(l, reference, ret, e);
    }
    str_list_free(&l->names);
    if (!l->docker)
        return from_index(l, reference, ret, ret_type, ret_digest, e);
    if (oci_local_docker_manifest(l, reference, ret, e) < 0)
        return -1;
    digest_of(str_text(ret), ret->len, ret_digest);
    return 0;
}

int oci_local_config(const struct oci_local *l, const struct oci_desc *d, struct str *ret,
                     struct err *e)
{
    *ret = STR_INIT(BOUND_IMAGE_CONFIG);
    if (read_document(l, d->digest, ret, e) < 0)
        return -1;
    return ret->len == d->size ? 0
                               : err_set(e, ERR_USER, "has %zu bytes, not the %llu announced",
                                         ret->len, (unsigned long long)d->size);
}

int oci_local_blob(const struct oci_local *l, const struct oci_desc *d, uint64_t offset,
                   int (*sink)(void *arg, const void *data, size_t n, struct err *e), void *arg,
                   struct err *e)
{
    AUTO_FREE char *path = path_of(l, d->digest);
    AUTO(oci_box_piece) struct oci_box_piece p = OCI_BOX_PIECE_INIT;

    if (oci_box_find(l->box, path, &p, e) < 0)
        return -1;
    if (p.n != d->size)
        return err_set(e, ERR_USER, "%s has %llu bytes, not the %llu announced", path,
                       (unsigned long long)p.n, (unsigned long long)d->size);
    BUG_ON(offset > d->size);
    p.offset += offset;
    p.n -= offset;
    return oci_box_stream(&p, sink, arg, e);
}
