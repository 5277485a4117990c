/*
 * Removing: an image loses its index file first, then its layers are moved, each by one rename under the store's
 * lock, into a work directory; the long part, removing them there, needs no lock and stands in nobody's way. Nor is it
 * in the way of what else wants the processors: it has the least of priorities.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/bounds.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/statefile.h"
#include "base/str.h"
#include "oci/ref.h"
#include "oci/store_inner.h"

enum { LEAST = 19 }; /* of nice(2) */

void store_forget_image(struct oci_store *s, const struct stored_image *i)
{
    AUTO_FREE char *file = mem_printf("%s.json", digest_hex(i->id));
    struct err ignored = ERR_INIT;

    if (statefile_remove(s->images, file, true, &ignored) == 0)
        unlinkat(s->leases, digest_hex(i->id), 0);
}

static void keys_in_use(const struct stored_list *images, struct str_list *ret)
{
    for (size_t i = 0; i < images->n; i++)
        for (size_t k = 0; k < images->items[i].keys.n; k++)
            str_list_add(ret, images->items[i].keys.items[k]);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct str_list *l)
{
    if (l->n)
        qsort(l->items, l->n, sizeof(*l->items), by_text);
}

static bool sorted_has(const struct str_list *l, const char *key)
{
    return l->n && bsearch(&key, l->items, l->n, sizeof(*l->items), by_text);
}

bool store_is_synced(struct oci_store *s, const struct str_list *keys)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO(str_list) struct str_list named = {0};
    struct err ignored = ERR_INIT;
    AUTO_CLOSE int lock = store_lock(s, false, &ignored);

    if (lock < 0 || store_load(s, &images, &ignored) < 0)
        return false;
    keys_in_use(&images, &named);
    sort(&named);
    for (size_t i = 0; i < keys->n; i++)
        if (!sorted_has(&named, keys->items[i]))
            return false;
    return true;
}

static void pinned_keys(struct oci_store *s, struct str_list *ret)
{
    AUTO(str_list) struct str_list works = {0};

    store_names(s->tmp, &works);
    for (size_t i = 0; i < works.n; i++) {
        AUTO(str) struct str text = STR_INIT(BOUND_MIB);
        struct err ignored = ERR_INIT;
        AUTO_CLOSE int fd =
            openat(s->tmp, works.items[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        /* Only of those that live: what a killed pull wanted, nobody wants now. */
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 &&
            statefile_read(fd, "pins", &text, &ignored) == 0)
            str_list_split(ret, str_text(&text), '\n');
    }
}

uint64_t store_bury_layers(struct oci_store *s, const struct stored_list *images,
                           struct store_work *grave, store_layer_filter *fn, const void *arg)
{
    AUTO(str_list) struct str_list used = {0}, all = {0};
    uint64_t bytes = 0;

    store_names(s->layers, &all);
    keys_in_use(images, &used);
    pinned_keys(s, &used);
    sort(&used);
    for (size_t i = 0; i < all.n; i++) {
        const char *key = all.items[i];

        if (sorted_has(&used, key) || (fn && !fn(s, key, arg)))
            continue;
        uint64_t size = store_layer_size(s, key);

        if (renameat(s->layers, key, grave->fd, key) == 0)
            bytes += size;
    }
    return bytes;
}

static int commit_removal(struct oci_store *s, struct store_work *grave, struct str_list *ids,
                          uint64_t *freed, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    uint64_t bytes;

    for (size_t i = 0; i < ids->n; i++) {
        struct stored_image gone = {.id = ids->items[i]};

        store_forget_image(s, &gone);
    }
    if (store_load(s, &images, e) < 0)
        return -1;
    bytes = store_bury_layers(s, &images, grave, NULL, NULL);
    if (freed)
        *freed = bytes;
    return 0;
}

static bool is_tag_ref(const struct stored_ref *r)
{
    return !strchr(r->text, '@');
}

static size_t count_tags(const struct stored_image *i)
{
    size_t n = 0;

    for (size_t r = 0; r < i->n_refs; r++)
        n += is_tag_ref(&i->refs[r]);
    return n;
}

static struct stored_ref *find_ref(struct stored_image *i, const char *text)
{
    for (size_t r = 0; r < i->n_refs; r++)
        if (str_eq(i->refs[r].text, text))
            return &i->refs[r];
    return NULL;
}

static void drop_ref(struct stored_image *i, struct stored_ref *r)
{
    free(r->text);
    free(r->digest);
    *r = i->refs[--i->n_refs];
}

/* By id, at least 12 digits of it, or by reference; *ref is NULL when by id. */
static struct stored_image *find_named(struct stored_list *l, const char *name,
                                       struct stored_ref **ref)
{
    AUTO(oci_ref) struct oci_ref *parsed = NULL;
    const char *hex = str_starts(name, "sha256:") ? name + 7 : name;
    struct err ignored = ERR_INIT;

    *ref = NULL;
    if (oci_ref_parse_local(name, &parsed, &ignored) == 0) {
        AUTO_FREE char *text = oci_ref_text(parsed);

        for (size_t i = 0; i < l->n; i++)
            if ((*ref = find_ref(&l->items[i], text)))
                return &l->items[i];
    }
    if (strlen(hex) >= 12 && strspn(hex, "0123456789abcdef") == strlen(hex))
        for (size_t i = 0; i < l->n; i++)
            if (str_starts(digest_hex(l->items[i].id), hex))
                return &l->items[i];
    return NULL;
}

static int remove_locked(struct oci_store *s, const char *name, struct store_work *grave,
                         struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO(str_list) struct str_list ids = {0};
    AUTO_CLOSE int lock = store_lock(s, true, e);
    struct stored_ref *ref;
    char shown[STR_SHOW_MAX];

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    struct stored_image *i = find_named(&images, name, &ref);

    if (!i)
        return err_set(e, ERR_ABSENT, "no image %s", str_show(shown, name));
    /* One of several names: only the name goes. */
    if (ref && is_tag_ref(ref) && count_tags(i) > 1) {
        drop_ref(i, ref);
        return store_save(s, i, e);
    }
    if (store_in_use(s, i->id))
        return err_set(e, ERR_LIMIT, "image %s is in use", str_show(shown, name));
    str_list_add(&ids, i->id);
    return commit_removal(s, grave, &ids, NULL, e);
}

struct emptying {
    struct oci_store *s;
    struct store_work *grave;
};

static void *empty(void *arg)
{
    const struct emptying *w = arg;

    if (setpriority(PRIO_PROCESS, 0, LEAST) < 0)
        errno = 0; /* then it is as important as the rest */
    store_end(w->s, w->grave);
    return NULL;
}

/* On a thread of its own: a priority that was lowered cannot be raised by everybody. */
static void empty_grave(struct oci_store *s, struct store_work *grave)
{
    struct emptying w = {s, grave};
    pthread_t thread;

    if (pthread_create(&thread, NULL, empty, &w) == 0)
        pthread_join(thread, NULL);
    else
        store_end(s, grave);
}

int oci_store_remove(struct oci_store *s, const char *name_or_id, struct err *e)
{
    struct store_work grave = STORE_WORK_INIT;

    if (store_begin(s, NULL, &grave, e) < 0)
        return -1;
    int rc = remove_locked(s, name_or_id, &grave, e);

    empty_grave(s, &grave);
    return rc;
}

int oci_store_pin(struct oci_store *s, const char *name_or_id, bool pinned, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO_CLOSE int lock = store_lock(s, true, e);
    struct stored_ref *ref;
    char shown[STR_SHOW_MAX];

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    struct stored_image *i = find_named(&images, name_or_id, &ref);

    if (!i)
        return err_set(e, ERR_ABSENT, "no image %s", str_show(shown, name_or_id));
    if (i->pinned == pinned)
        return 0;
    i->pinned = pinned;
    return store_save(s, i, e);
}

static uint64_t total_bytes(struct oci_store *s, struct str_list *keys)
{
    uint64_t sum = 0;

    sort(keys);
    for (size_t i = 0; i < keys->n; i++)
        if (i == 0 || !str_eq(keys->items[i], keys->items[i - 1]))
            sum += store_layer_size(s, keys->items[i]);
    return sum;
}

static uint64_t image_bytes(struct oci_store *s, const struct stored_list *l)
{
    AUTO(str_list) struct str_list keys = {0};

    keys_in_use(l, &keys);
    return total_bytes(s, &keys);
}

static int least_recently_used_first(const void *a, const void *b)
{
    double x = ((const struct stored_image *)a)->last_used,
           y = ((const struct stored_image *)b)->last_used;

    return (x > y) - (x < y);
}

static int prune_locked(struct oci_store *s, uint64_t max_bytes, struct store_work *grave,
                        uint64_t *freed, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    AUTO(str_list) struct str_list ids = {0};
    AUTO_CLOSE int lock = store_lock(s, true, e);

    if (lock < 0 || store_load(s, &images, e) < 0)
        return -1;
    if (images.n)
        qsort(images.items, images.n, sizeof(*images.items), least_recently_used_first);
    struct stored_list left = images;

    for (size_t i = 0; i < left.n && image_bytes(s, &left) > max_bytes;) {
        if (left.items[i].pinned || store_in_use(s, left.items[i].id)) {
            i++;
            continue;
        }
        /* Moved behind the end: `images` still owns it. */
        struct stored_image gone = left.items[i];

        str_list_add(&ids, gone.id);
        memmove(&left.items[i], &left.items[i + 1], (left.n - i - 1) * sizeof(gone));
        left.items[--left.n] = gone;
    }
    return commit_removal(s, grave, &ids, freed, e);
}

int oci_store_prune(struct oci_store *s, uint64_t max_bytes, uint64_t *ret_freed, struct err *e)
{
    struct store_work grave = STORE_WORK_INIT;

    if (store_begin(s, NULL, &grave, e) < 0)
        return -1;
    int rc = prune_locked(s, max_bytes, &grave, ret_freed, e);

    if (!max_bytes)
        store_partial_sweep(s, 0);

    empty_grave(s, &grave);
    return rc;
}

uint64_t oci_store_bytes(struct oci_store *s)
{
    AUTO(str_list) struct str_list all = {0};
    uint64_t sum = 0;

    store_names(s->layers, &all);
    for (size_t i = 0; i < all.n; i++)
        sum += store_layer_size(s, all.items[i]);
    return sum;
}
