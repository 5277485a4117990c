/*
 * What is read takes long and needs no lock: all layers are named in a work directory of ours meanwhile, so
 * none goes. What is wrong is put right afterwards, under the lock and from a fresh look at the index.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/digest.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/treesum.h"
#include "oci/store_inner.h"

struct check {
    struct oci_store *s;
    const struct oci_check *o;
    struct oci_check_result *ret;
    struct str_list layers;  /* keys of all that are there */
    struct str_list damaged; /* keys of those that are not what they were */
};

static void found(const struct check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void found(const struct check *c, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (c->o->found)
        c->o->found(c->o->arg, text);
}

static const char *name_of(const struct stored_image *i)
{
    return i->n_refs ? i->refs[i->n_refs - 1].text : i->id;
}

/* ---- looking ---- */

static int list_layers(struct check *c, struct err *e)
{
    return store_names(c->s->layers, &c->layers) ? 0 : err_sys(e, "read %s/layers", c->s->path);
}

/* 0 sound, 1 damaged and *why says how, -1 could not look. */
static int look_at(struct check *c, const char *key, char **why, struct err *e)
{
    AUTO(cJSON) cJSON *meta = NULL;
    AUTO_FREE char *path = mem_printf("%s/fs", key);
    AUTO_CLOSE int fs = openat(c->s->layers, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct treesum sum;
    const char *wanted = NULL;
    char got[TREESUM_TEXT_MAX];

    if (fs < 0 || store_layer_file(c->s, key, &meta, e) < 0 ||
        json_opt_str(meta, "sum", TREESUM_TEXT_MAX, &wanted, e) < 0) {
        *why = fs < 0 ? mem_printf("its tree is gone: %s", strerror(errno)) : mem_strdup(e->msg);
        err_clear(e);
        return 1;
    }
    if (!wanted) {
        c->ret->unknown++;
        return 0;
    }
    if (treesum_of(fs, c->o->cancel, &sum, e) < 0) {
        if (e->kind == ERR_CANCELLED)
            return -1;
        *why = mem_strdup(e->msg);
        err_clear(e);
        return 1;
    }
    treesum_text(&sum, got);
    if (str_eq(got, wanted))
        return 0;
    *why = mem_printf("adds up to %s, not to %s as unpacked", got, wanted);
    return 1;
}

static int look_at_layers(struct check *c, struct err *e)
{
    for (size_t i = 0; i < c->layers.n; i++) {
        const char *key = c->layers.items[i];
        AUTO_FREE char *why = NULL;
        int rc = look_at(c, key, &why, e);

        if (rc < 0)
            return -1;
        c->ret->layers++;
        if (rc == 0)
            continue;
        c->ret->damaged++;
        str_list_add(&c->damaged, key);
        found(c, "layer %s: %s", key, why);
    }
    return 0;
}

static bool needs_damaged(const struct check *c, const struct stored_image *i)
{
    for (size_t k = 0; k < i->keys.n; k++)
        if (str_list_has(&c->damaged, i->keys.items[k]) || !store_has(c->s, i->keys.items[k]))
            return true;
    return false;
}

static void look_at_images(struct check *c, const struct stored_list *images,
                           const struct str_list *bad)
{
    c->ret->images = images->n + bad->n / 2;
    for (size_t i = 0; i < bad->n; i += 2) {
        c->ret->damaged++;
        found(c, "index file %s: %s", bad->items[i], bad->items[i + 1]);
    }
    for (size_t i = 0; i < images->n; i++) {
        const struct stored_image *image = &images->items[i];

        for (size_t k = 0; k < image->keys.n; k++) {
            if (store_has(c->s, image->keys.items[k]))
                continue;
            c->ret->damaged++;
            found(c, "image %s: layer %s is not there", name_of(image), image->keys.items[k]);
        }
    }
}

static int look(struct check *c, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO(str_list) struct str_list bad = {0};
    struct store_work pins = STORE_WORK_INIT;

    /* Pinned before the index is read: what that names and is missing was missing then. */
    if (list_layers(c, e) < 0 || store_begin(c->s, &c->layers, &pins, e) < 0)
        return -1;
    AUTO_CLOSE int lock = store_lock(c->s, false, e);
    int rc = lock < 0 ? -1 : store_load_telling(c->s, &images, &bad, e);

    if (rc == 0)
        look_at_images(c, &images, &bad);
    close_fd(&lock);
    if (rc == 0)
        rc = look_at_layers(c, e);
    store_end(c->s, &pins);
    return rc;
}

/* ---- repairing ---- */

static bool is_damaged(struct oci_store *s UNUSED, const char *key, const void *arg)
{
    return str_list_has(arg, key);
}

static void forget_damaged(struct check *c, struct stored_list *images)
{
    size_t kept = 0;

    for (size_t i = 0; i < images->n; i++) {
        struct stored_image *image = &images->items[i];
        bool hit = needs_damaged(c, image);

        if (hit && !store_in_use(c->s, image->id)) {
            found(c, "image %s is removed: it must be pulled again", name_of(image));
            store_forget_image(c->s, image);
            stored_image_free(image);
            continue;
        }
        if (hit) {
            found(c, "image %s is in use: repair it when its runs are over", name_of(image));
            c->ret->left++;
        }
        images->items[kept++] = *image;
    }
    images->n = kept;
}

static int repair(struct check *c, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO(str_list) struct str_list bad = {0};
    struct store_work grave = STORE_WORK_INIT;

    if (store_begin(c->s, NULL, &grave, e) < 0)
        return -1;
    AUTO_CLOSE int lock = store_lock(c->s, true, e);
    int rc = lock < 0 ? -1 : store_load_telling(c->s, &images, &bad, e);

    if (rc == 0) {
        for (size_t i = 0; i < bad.n; i += 2)
            c->ret->left += unlinkat(c->s->images, bad.items[i], 0) < 0 && errno != ENOENT;
        forget_damaged(c, &images);
        store_bury_layers(c->s, &images, &grave, is_damaged, &c->damaged);
    }
    close_fd(&lock);
    store_end(c->s, &grave);
    return rc;
}

int oci_store_check(const char *dir, const struct oci_check *o, struct oci_check_result *ret,
                    struct err *e)
{
    AUTO(oci_store) struct oci_store *s = NULL;
    struct check c = {.o = o, .ret = ret};

    *ret = (struct oci_check_result){0};
    if (store_open(dir, &s, e) < 0)
        return -1;
    c.s = s;
    int rc = look(&c, e);

    if (rc == 0 && o->repair && ret->damaged)
        rc = repair(&c, e);
    else
        ret->left = ret->damaged;
    str_list_free(&c.layers);
    str_list_free(&c.damaged);
    return rc;
}
