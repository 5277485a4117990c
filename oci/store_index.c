/*
 * The index: one file an image under images/, replaced atomically. A reference is in one file only; it
 * moves when its tag is pulled anew and led to another image.
 */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/str.h"
#include "oci/manifest.h"
#include "oci/ref.h"
#include "oci/store_inner.h"

enum { INDEX_FILE_MAX = 16 * 1024 * 1024, REFS_MAX = 10000 };

static const struct json_field config_fields[] = {
    JSON_FIELD(struct image_config, env, "env", JSON_STR_LIST, 0, 0),
    JSON_FIELD(struct image_config, entrypoint, "entrypoint", JSON_STR_LIST, 0, 0),
    JSON_FIELD(struct image_config, cmd, "cmd", JSON_STR_LIST, 0, 0),
    JSON_FIELD(struct image_config, user, "user", JSON_STR, 0, BOUND_PATH),
    JSON_FIELD(struct image_config, working_dir, "working_dir", JSON_STR, 0, BOUND_PATH),
    JSON_FIELD(struct image_config, stop_signal, "stop_signal", JSON_STR, 0, 64),
    {0},
};

static const struct json_field ref_fields[] = {
    JSON_FIELD(struct stored_ref, text, "ref", JSON_STR, JSON_REQUIRED, 2 * BOUND_REF),
    JSON_FIELD(struct stored_ref, digest, "digest", JSON_STR, JSON_REQUIRED, DIGEST_TEXT_MAX),
    {0},
};

static const struct json_field image_fields[] = {
    JSON_FIELD(struct stored_image, id, "id", JSON_STR, JSON_REQUIRED, DIGEST_TEXT_MAX),
    JSON_FIELD(struct stored_image, manifest_digest, "manifest_digest", JSON_STR, JSON_REQUIRED,
               DIGEST_TEXT_MAX),
    JSON_LIST(struct stored_image, refs, n_refs, "refs", ref_fields, struct stored_ref, 0,
              REFS_MAX),
    JSON_FIELD(struct stored_image, keys, "layers", JSON_STR_LIST, 0, BOUND_LAYERS),
    JSON_FIELD(struct stored_image, size, "size", JSON_U64, JSON_REQUIRED, 0),
    JSON_FIELD(struct stored_image, compressed_size, "compressed_size", JSON_U64, 0, 0),
    JSON_FIELD(struct stored_image, platform, "platform", JSON_STR, 0, 128),
    JSON_SUB(struct stored_image, config, "config", config_fields, JSON_REQUIRED),
    JSON_FIELD(struct stored_image, pulled, "pulled", JSON_DOUBLE, 0, 0),
    JSON_FIELD(struct stored_image, pinned, "pinned", JSON_BOOL, 0, 0),
    {0},
};

void stored_image_free(struct stored_image *i)
{
    json_free_fields(image_fields, i);
    *i = (struct stored_image){0};
}

void stored_list_free(struct stored_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        stored_image_free(&l->items[i]);
    free(l->items);
    *l = (struct stored_list){0};
}

/* The file's name is the id it must hold (S20), and keys become paths. */
static bool is_sound(const struct stored_image *i, const char *file)
{
    if (!digest_is_valid(i->id) || !str_starts(file, digest_hex(i->id)))
        return false;
    for (size_t k = 0; k < i->keys.n; k++)
        if (!path_is_component(i->keys.items[k]))
            return false;
    return true;
}

static int read_one(struct oci_store *s, const char *file, struct stored_image *ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(INDEX_FILE_MAX);
    AUTO(cJSON) cJSON *doc = NULL;
    AUTO(stored_image) struct stored_image i = {0};
    struct stat st;

    if (fstatat(s->images, file, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(e, "stat %s", file);
    if (statefile_read(s->images, file, &text, e) < 0 ||
        json_parse(str_text(&text), text.len, &doc, e) < 0 ||
        json_read_fields(doc, image_fields, &i, e) < 0)
        return -1;
    if (!is_sound(&i, file))
        return err_set(e, ERR_HOST, "%s does not hold what its name says", file);
    i.last_used = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
    *ret = i;
    i = (struct stored_image){0};
    return 0;
}

int store_load(struct oci_store *s, struct stored_list *ret, struct err *e)
{
    return store_load_telling(s, ret, NULL, e);
}

int store_load_telling(struct oci_store *s, struct stored_list *ret, struct str_list *bad,
                       struct err *e)
{
    AUTO(str_list) struct str_list files = {0};

    if (!store_names(s->images, &files))
        return err_sys(e, "read %s/images", s->path);
    ret->items = mem_array(files.n, sizeof(*ret->items));
    for (size_t i = 0; i < files.n; i++) {
        const char *file = files.items[i];
        struct err why = ERR_INIT;

        if (*file == '.' || !str_ends(file, ".json"))
            continue;
        if (read_one(s, file, &ret->items[ret->n], &why) == 0) {
            ret->n++;
        } else if (bad) {
            str_list_add(bad, file);
            str_list_add(bad, why.msg);
        }
    }
    return 0;
}

static char *text_of(const struct stored_image *i)
{
    AUTO(cJSON) cJSON *doc = json_write_fields(image_fields, i);

    return json_text(doc);
}

int store_save(struct oci_store *s, const struct stored_image *i, struct err *e)
{
    AUTO_FREE char *file = mem_printf("%s.json", digest_hex(i->id));
    AUTO_FREE char *text = text_of(i);

    if (statefile_replace(s->images, file, text, strlen(text), 0600, true, e) < 0)
        return -1;
    if (i->last_used > 0) {
        time_t whole = (time_t)i->last_used;
        const struct timespec t = {.tv_sec = whole,
                                   .tv_nsec = (long)((i->last_used - (double)whole) * 1e9)};

        /* The file's time is the last use, and writing it is none. */
        if (utimensat(s->images, file, (const struct timespec[2]){t, t}, AT_SYMLINK_NOFOLLOW) < 0)
            return err_sys(e, "set the time of %s", file);
    }
    return 0;
}

static void touch(struct oci_store *s, const char *id)
{
    AUTO_FREE char *file = mem_printf("%s.json", digest_hex(id));

    /* Only the order of removal depends on it. */
    if (utimensat(s->images, file, NULL, AT_SYMLINK_NOFOLLOW) < 0)
        return;
}

/* ---- handing out ---- */

static int take_lease(struct oci_store *s, const char *id, struct err *e)
{
    AUTO_CLOSE int fd =
        openat(s->leases, digest_hex(id), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    /* Under the store's lock: who removes images looks at leases and unlinks them under it, too. */
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0)
        return err_sys(e, "lease image %s", id);
    return take_fd(&fd);
}

/* Overlay refuses a directory given twice; only the topmost place of a layer counts. */
static void add_lowerdirs(struct oci_store *s, const struct str_list *keys, struct str_list *ret)
{
    for (size_t k = keys->n; k--;) {
        AUTO_FREE char *path = mem_printf("%s/layers/%s/fs", s->path, keys->items[k]);

        if (!str_list_has(ret, path))
            str_list_add(ret, path);
    }
    if (!ret->n)
        str_list_take(ret, mem_printf("%s/empty", s->path));
}

static const struct stored_ref *ref_of(const struct stored_image *i, const struct oci_ref *ref)
{
    AUTO_FREE char *text = oci_ref_text(ref);

    for (size_t r = 0; r < i->n_refs; r++)
        if (str_eq(i->refs[r].text, text))
            return &i->refs[r];
    return NULL;
}

int store_image(struct oci_store *s, const struct stored_image *i, const struct oci_ref *ref,
                struct image **ret, struct err *e)
{
    const struct stored_ref *r = ref_of(i, ref);
    int lease = take_lease(s, i->id, e);

    if (lease < 0)
        return -1;
    struct image *img = image_new(lease);

    img->name = oci_ref_familiar(ref);
    img->repo_digest =
        r && ref->transport == OCI_REGISTRY ? mem_printf("%s@%s", ref->name, r->digest) : NULL;
    img->manifest_digest = mem_strdup(i->manifest_digest);
    img->id = mem_strdup(i->id);
    img->platform = mem_strdup(i->platform ? i->platform : "");
    add_lowerdirs(s, &i->keys, &img->lowerdirs);
    str_list_copy(&img->config.env, &i->config.env);
    str_list_copy(&img->config.entrypoint, &i->config.entrypoint);
    str_list_copy(&img->config.cmd, &i->config.cmd);
    img->config.user = mem_strdup(i->config.user ? i->config.user : "");
    img->config.working_dir = mem_strdup(i->config.working_dir ? i->config.working_dir : "");
    img->config.stop_signal = mem_strdup(i->config.stop_signal ? i->config.stop_signal : "");
    img->size = i->size;
    img->compressed_size = i->compressed_size;
    *ret = img;
    return 0;
}

int oci_store_find(struct oci_store *s, const struct oci_ref *ref, struct image **ret,
                   struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO_CLOSE int lock = store_lock(s, false, e);
    AUTO_FREE char *familiar = oci_ref_familiar(ref);

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    for (size_t i = 0; i < images.n; i++) {
        if (!ref_of(&images.items[i], ref))
            continue;
        touch(s, images.items[i].id);
        return store_image(s, &images.items[i], ref, ret, e);
    }
    return err_set(e, ERR_ABSENT, "no such image here: %s", familiar);
}

/* ---- committing ---- */

static uint64_t size_of_layers(struct oci_store *s, const struct str_list *keys)
{
    AUTO(str_list) struct str_list seen = {0};
    uint64_t sum = 0;

    for (size_t k = 0; k < keys->n; k++) {
        if (str_list_has(&seen, keys->items[k]))
            continue;
        str_list_add(&seen, keys->items[k]);
        sum += store_layer_size(s, keys->items[k]);
    }
    return sum;
}

static void add_ref(struct stored_image *i, const struct stored_ref *r)
{
    i->refs = mem_realloc(i->refs, i->n_refs + 1, sizeof(*i->refs));
    i->refs[i->n_refs++] = (struct stored_ref){mem_strdup(r->text), mem_strdup(r->digest)};
}

static bool has_text(const struct stored_image *i, const char *text)
{
    for (size_t r = 0; r < i->n_refs; r++)
        if (str_eq(i->refs[r].text, text))
            return true;
    return false;
}

static void drop_last(struct stored_image *i)
{
    const struct stored_ref *last = &i->refs[--i->n_refs];

    free(last->text);
    free(last->digest);
}

static bool drop_text(struct stored_image *i, const char *text)
{
    for (size_t r = 0; r < i->n_refs; r++) {
        if (!str_eq(i->refs[r].text, text))
            continue;
        free(i->refs[r].text);
        free(i->refs[r].digest);
        i->refs[r] = i->refs[--i->n_refs];
        return true;
    }
    return false;
}

/* What this image was called before stays. */
static void keep_own_refs(const struct stored_list *images, struct stored_image *i)
{
    for (size_t k = 0; k < images->n; k++) {
        const struct stored_image *old = &images->items[k];

        if (!str_eq(old->id, i->id))
            continue;
        for (size_t r = 0; r < old->n_refs; r++)
            if (!has_text(i, old->refs[r].text))
                add_ref(i, &old->refs[r]);
        i->pinned |= old->pinned;
    }
}

/* What other images were called and this one is called now. */
static int take_refs(struct oci_store *s, struct stored_list *images, const struct stored_image *i,
                     struct err *e)
{
    for (size_t k = 0; k < images->n; k++) {
        struct stored_image *other = &images->items[k];
        bool changed = false;

        if (str_eq(other->id, i->id))
            continue;
        for (size_t r = 0; r < i->n_refs; r++)
            changed |= drop_text(other, i->refs[r].text);
        if (changed && store_save(s, other, e) < 0)
            return -1;
    }
    return 0;
}

#define STAGED "index"

int store_stage(struct oci_store *s, struct store_work *w, struct stored_image *i, char **ret,
                struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO_CLOSE int lock = store_lock(s, false, e);
    size_t own = i->n_refs;
    bool pinned = i->pinned;

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    i->size = size_of_layers(s, &i->keys);
    i->pulled = clock_epoch();
    keep_own_refs(&images, i);
    AUTO_FREE char *text = text_of(i);

    /* What was there before may be gone when it comes to the commit. */
    while (i->n_refs > own)
        drop_last(i);
    i->pinned = pinned;
    if (statefile_replace(w->fd, STAGED, text, strlen(text), 0600, false, e) < 0)
        return -1;
    *ret = take_ptr(&text);
    return 0;
}

/* Is the index entry there already, as it would be written? */
static bool is_there(const struct stored_list *images, const struct stored_image *i)
{
    for (size_t k = 0; k < images->n; k++) {
        struct stored_image same = *i;

        if (!str_eq(images->items[k].id, i->id))
            continue;
        same.pulled = images->items[k].pulled;
        AUTO_FREE char *a = text_of(&same);
        AUTO_FREE char *b = text_of(&images->items[k]);

        return str_eq(a, b);
    }
    return false;
}

/* The staged file in its place; it has been synced with the layers. */
static int put_staged(struct oci_store *s, struct store_work *w, const struct stored_image *i,
                      struct err *e)
{
    AUTO_FREE char *file = mem_printf("%s.json", digest_hex(i->id));

    return statefile_move(w->fd, STAGED, s->images, file, e);
}

static int save_commit(struct oci_store *s, struct store_work *w, const struct stored_image *i,
                       const char *staged, struct err *e)
{
    AUTO_FREE char *text = text_of(i);

    return str_eq(text, staged) ? put_staged(s, w, i, e) : store_save(s, i, e);
}

int store_commit(struct oci_store *s, struct store_work *w, struct stored_image *i,
                 const char *staged, const struct oci_ref *ref, struct image **ret, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO_CLOSE int lock = store_lock(s, true, e);

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    if (!staged) {
        i->size = size_of_layers(s, &i->keys);
        i->pulled = clock_epoch();
    }
    keep_own_refs(&images, i);
    bool there = is_there(&images, i);

    if (there)
        touch(s, i->id);
    /* Ours first: a crash between the two leaves a name twice, never a name lost. */
    if ((!there && save_commit(s, w, i, staged, e) < 0) || take_refs(s, &images, i, e) < 0)
        return err_wrap(e, "write the index of %s", s->path);
    return store_image(s, i, ref, ret, e);
}

/* ---- listing ---- */

static uint64_t exclusive_bytes(struct oci_store *s, const struct stored_list *l, size_t of)
{
    AUTO(str_list) struct str_list own = {0};
    const struct str_list *keys = &l->items[of].keys;

    for (size_t k = 0; k < keys->n; k++) {
        bool shared = str_list_has(&own, keys->items[k]);

        for (size_t i = 0; i < l->n && !shared; i++)
            shared = i != of && str_list_has(&l->items[i].keys, keys->items[k]);
        if (!shared)
            str_list_add(&own, keys->items[k]);
    }
    return size_of_layers(s, &own);
}

static void describe(struct oci_store *s, const struct stored_list *l, size_t n,
                     struct oci_image_info *ret)
{
    const struct stored_image *i = &l->items[n];
    struct err ignored = ERR_INIT;

    ret->id = mem_strdup(i->id);
    ret->platform = mem_strdup(i->platform ? i->platform : "");
    ret->size = i->size;
    ret->exclusive_size = exclusive_bytes(s, l, n);
    ret->last_used = i->last_used;
    ret->pulled = i->pulled;
    ret->pinned = i->pinned;
    ret->in_use = store_in_use(s, i->id);
    for (size_t r = 0; r < i->n_refs; r++) {
        AUTO(oci_ref) struct oci_ref *ref = NULL;

        if (oci_ref_parse_local(i->refs[r].text, &ref, &ignored) < 0)
            continue;
        if (!ref->digest)
            str_list_take(&ret->names, oci_ref_familiar(ref));
        else if (!ret->repo_digest)
            ret->repo_digest = oci_ref_familiar(ref);
    }
}

int oci_store_list(struct oci_store *s, struct oci_image_info **ret, size_t *ret_n, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    /* Exclusive: trying a lease would make another one's trial fail. */
    AUTO_CLOSE int lock = store_lock(s, true, e);

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    *ret = mem_array(images.n, sizeof(**ret));
    *ret_n = images.n;
    for (size_t i = 0; i < images.n; i++)
        describe(s, &images, i, &(*ret)[i]);
    return 0;
}

void oci_image_info_free(struct oci_image_info *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].id);
        free(list[i].repo_digest);
        free(list[i].platform);
        str_list_free(&list[i].names);
    }
    free(list);
}
