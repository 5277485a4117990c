#include "oci/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/jobs.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/str.h"
#include "base/tree.h"
#include "oci/ref.h"
#include "oci/store_inner.h"

enum { LAYER_POLL_MS = 50, INDEX_FILE_MAX = 16 * 1024 * 1024, LAYER_FILE_MAX = 4096 };

/* ---- locks ---- */

int store_lock(struct oci_store *s, bool exclusive, struct err *e)
{
    AUTO_CLOSE int fd = openat(s->dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(e, "open %s/lock", s->path);
    while (flock(fd, exclusive ? LOCK_EX : LOCK_SH) < 0)
        if (errno != EINTR)
            return err_sys(e, "lock %s", s->path);
    return take_fd(&fd);
}

/* Was the lock file unlinked between our open and our lock? Then the lock means nothing. */
static bool is_unlinked(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 || st.st_nlink == 0;
}

int store_lock_layer(struct oci_store *s, const char *diff_id, struct cancel *c, struct err *e)
{
    for (;;) {
        AUTO_CLOSE int fd =
            openat(s->locks, digest_hex(diff_id), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

        if (fd < 0)
            return err_sys(e, "open the lock of layer %s", diff_id);
        /* There is no flock with a cancel token; whoever holds it is unpacking, so there is time. */
        while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno != EWOULDBLOCK && errno != EINTR)
                return err_sys(e, "lock layer %s", diff_id);
            struct pollfd p = {.fd = cancel_fd(c), .events = POLLIN};

            poll(&p, 1, LAYER_POLL_MS);
            if (cancel_fired(c))
                return err_set(e, ERR_CANCELLED, "cancelled");
        }
        if (!is_unlinked(fd))
            return take_fd(&fd);
    }
}

bool store_in_use(struct oci_store *s, const char *id)
{
    AUTO_CLOSE int fd = openat(s->leases, digest_hex(id), O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
}

/* ---- layers ---- */

char *store_key(const char *diff_id)
{
    return mem_strdup(digest_hex(diff_id));
}

char *store_chain_key(const char *chain_id)
{
    return mem_printf("c-%s", digest_hex(chain_id));
}

bool store_has(struct oci_store *s, const char *key)
{
    return faccessat(s->layers, key, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void random_name(char *buf, size_t n)
{
    unsigned char raw[12];

    BUG_ON(getrandom(raw, sizeof(raw), 0) != sizeof(raw));
    for (size_t i = 0; i < sizeof(raw) && 2 * i + 2 < n; i++)
        snprintf(buf + 2 * i, 3, "%02x", raw[i]);
}

int store_begin(struct oci_store *s, const struct str_list *pins, struct store_work *ret,
                struct err *e)
{
    static const struct str_list none = {0};
    struct store_work w = STORE_WORK_INIT;
    /* Under the lock: between mkdir and flock it looks like garbage to a store being opened. */
    AUTO_CLOSE int lock = store_lock(s, true, e);
    AUTO_FREE char *text = str_list_join(pins ? pins : &none, "\n");

    if (lock < 0)
        return -1;
    random_name(w.name, sizeof(w.name));
    if (mkdirat(s->tmp, w.name, 0700) < 0)
        return err_sys(e, "make a directory in %s/tmp", s->path);
    w.fd = openat(s->tmp, w.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (w.fd < 0 || flock(w.fd, LOCK_EX | LOCK_NB) < 0) {
        close_fd(&w.fd);
        return err_sys(e, "lock %s/tmp/%s", s->path, w.name);
    }
    *ret = w;
    if (statefile_replace(w.fd, "pins", text, strlen(text), 0600, false, e) < 0) {
        store_end(s, ret);
        return -1;
    }
    return 0;
}

void store_end(struct oci_store *s, struct store_work *w)
{
    struct err ignored = ERR_INIT;

    if (w->fd < 0)
        return;
    if (tree_remove_at(s->tmp, w->name, &ignored) < 0)
        err_clear(&ignored); /* what stays is swept when the store is opened next */
    close_fd(&w->fd);
}

int store_publish(struct oci_store *s, struct store_work *w, const char *name, const char *key,
                  const char *diff_id, uint64_t size, struct err *e)
{
    AUTO_CLOSE int dir = openat(w->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO(cJSON) cJSON *meta = cJSON_CreateObject();

    if (dir < 0)
        return err_sys(e, "open unpacked layer");
    json_add_str(meta, "diff_id", diff_id);
    json_add_int(meta, "size", (int64_t)size);
    json_add_str(meta, "boot_id", s->boot_id);
    AUTO_FREE char *text = json_text(meta);

    if (statefile_replace(dir, "layer.json", text, strlen(text), 0600, false, e) < 0)
        return -1;
    if (renameat2(w->fd, name, s->layers, key, RENAME_NOREPLACE) < 0 && errno != EEXIST)
        return err_sys(e, "name layer %s", key);
    return 0;
}

static int read_layer_file(struct oci_store *s, const char *key, cJSON **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(LAYER_FILE_MAX);
    AUTO_CLOSE int dir = openat(s->layers, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, "layer %s", key);
    return statefile_read(dir, "layer.json", &text, e) < 0 ||
                   json_parse(text.buf, text.len, ret, e) < 0
               ? -1
               : 0;
}

uint64_t store_layer_size(struct oci_store *s, const char *key)
{
    AUTO(cJSON) cJSON *meta = NULL;
    struct err ignored = ERR_INIT;
    uint64_t size = 0;

    if (read_layer_file(s, key, &meta, &ignored) < 0 ||
        json_get_u64(meta, "size", INT64_MAX, &size, &ignored) < 0)
        return 0;
    return size;
}

int store_sync(struct oci_store *s, struct err *e)
{
    return syncfs(s->dir) < 0 ? err_sys(e, "write the image to disk") : 0;
}

uint64_t store_free_bytes(struct oci_store *s)
{
    struct statvfs v;

    return fstatvfs(s->dir, &v) < 0 ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
}

/* ---- opening ---- */

static int open_dir(struct oci_store *s, const char *name, int *ret, struct err *e)
{
    if (mkdirat(s->dir, name, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "make %s/%s", s->path, name);
    *ret = openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret < 0 ? err_sys(e, "open %s/%s", s->path, name) : 0;
}

/* Work directories whose owner is gone, each locked by us now: [fd], names. */
static void find_garbage(struct oci_store *s, struct str_list *names)
{
    int copy = openat(s->tmp, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

    if (!d) {
        close_fd(&copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        if (!path_is_component(entry->d_name))
            continue;
        AUTO_CLOSE int fd =
            openat(s->tmp, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            str_list_add(names, entry->d_name);
    }
    closedir(d);
}

static bool is_other_boot(struct oci_store *s, const char *key)
{
    AUTO(cJSON) cJSON *meta = NULL;
    struct err ignored = ERR_INIT;
    const char *boot;

    return read_layer_file(s, key, &meta, &ignored) < 0 ||
           json_get_str(meta, "boot_id", 64, &boot, &ignored) < 0 || !str_eq(boot, s->boot_id);
}

static bool image_is_whole(struct oci_store *s, const struct stored_image *i)
{
    for (size_t k = 0; k < i->keys.n; k++)
        if (!store_has(s, i->keys.items[k]))
            return false;
    return true;
}

static void forget_image(struct oci_store *s, const struct stored_image *i)
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

static void pinned_keys(struct oci_store *s, struct str_list *ret)
{
    int copy = openat(s->tmp, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

    if (!d) {
        close_fd(&copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        AUTO(str) struct str text = STR_INIT(BOUND_MIB);
        struct err ignored = ERR_INIT;
        AUTO_CLOSE int fd =
            openat(s->tmp, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (path_is_component(entry->d_name) && fd >= 0 &&
            statefile_read(fd, "pins", &text, &ignored) == 0)
            str_list_split(ret, str_text(&text), '\n');
    }
    closedir(d);
}

typedef bool layer_filter(struct oci_store *s, const char *key);

/* Move layers that no image names and no pull wants, and that `fn` (if any) picks, into the work
 * directory, which is removed later without the lock. Returns their bytes. */
static uint64_t bury_layers(struct oci_store *s, const struct stored_list *images,
                            struct store_work *grave, layer_filter *fn)
{
    AUTO(str_list) struct str_list used = {0};
    int copy = openat(s->layers, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    uint64_t bytes = 0;

    if (!d) {
        close_fd(&copy);
        return 0;
    }
    keys_in_use(images, &used);
    pinned_keys(s, &used);
    sort(&used);
    for (struct dirent *entry; (entry = readdir(d));) {
        const char *key = entry->d_name;

        if (!path_is_component(key) || sorted_has(&used, key) || (fn && !fn(s, key)))
            continue;
        uint64_t size = store_layer_size(s, key);

        if (renameat(s->layers, key, grave->fd, key) == 0)
            bytes += size;
    }
    closedir(d);
    return bytes;
}

/* What a crash left: images that lack a layer, layers that may lack data. */
static int adopt(struct oci_store *s, struct err *e)
{
    AUTO(str_list) struct str_list garbage = {0};
    AUTO(stored_list) struct stored_list images = {0}, whole = {0};
    struct store_work grave = STORE_WORK_INIT;

    if (store_begin(s, NULL, &grave, e) < 0)
        return -1;
    AUTO_CLOSE int lock = store_lock(s, true, e);

    if (lock < 0 || store_load(s, &images, e) < 0) {
        store_end(s, &grave);
        return -1;
    }
    statefile_sweep(s->images);
    find_garbage(s, &garbage);
    whole.items = mem_array(images.n, sizeof(*whole.items));
    for (size_t i = 0; i < images.n; i++) {
        if (!image_is_whole(s, &images.items[i])) {
            forget_image(s, &images.items[i]);
            continue;
        }
        whole.items[whole.n++] = images.items[i];
        images.items[i] = (struct stored_image){0};
    }
    bury_layers(s, &whole, &grave, is_other_boot);
    close_fd(&lock);
    for (size_t i = 0; i < garbage.n; i++) {
        struct err ignored = ERR_INIT;

        if (tree_remove_at(s->tmp, garbage.items[i], &ignored) < 0)
            err_clear(&ignored);
    }
    store_end(s, &grave);
    return 0;
}

static char *read_boot_id(void)
{
    AUTO(str) struct str s = STR_INIT(100);
    struct err ignored = ERR_INIT;

    if (fd_read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &s, &ignored) < 0)
        return mem_strdup("unknown");
    return mem_strndup(str_text(&s), strcspn(str_text(&s), "\n"));
}

int oci_store_open(const char *dir, struct oci_store **ret, struct err *e)
{
    AUTO(oci_store) struct oci_store *s = mem_new(struct oci_store);

    s->dir = s->layers = s->images = s->tmp = s->leases = s->locks = -1;
    if (path_mkdirs(dir, 0700, e) < 0)
        return -1;
    s->path = realpath(dir, NULL);
    s->dir = s->path ? open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (s->dir < 0)
        return err_sys(e, "open image store %s", dir);
    /* Setuid files of images must be out of reach of local users (S11, S28). */
    if (fchmod(s->dir, 0700) < 0)
        return err_sys(e, "close image store %s to others", dir);
    s->boot_id = read_boot_id();
    if (open_dir(s, "layers", &s->layers, e) < 0 || open_dir(s, "images", &s->images, e) < 0 ||
        open_dir(s, "tmp", &s->tmp, e) < 0 || open_dir(s, "leases", &s->leases, e) < 0 ||
        open_dir(s, "locks", &s->locks, e) < 0)
        return -1;
    if (mkdirat(s->dir, "empty", 0755) < 0 && errno != EEXIST)
        return err_sys(e, "make %s/empty", s->path);
    if (adopt(s, e) < 0)
        return err_wrap(e, "image store %s", dir);
    *ret = take_ptr(&s);
    return 0;
}

void oci_store_close(struct oci_store *s)
{
    if (!s)
        return;
    close_fd(&s->locks);
    close_fd(&s->leases);
    close_fd(&s->tmp);
    close_fd(&s->images);
    close_fd(&s->layers);
    close_fd(&s->dir);
    free(s->boot_id);
    free(s->path);
    free(s);
}

/* ---- removing ---- */

static int commit_removal(struct oci_store *s, struct store_work *grave, struct str_list *ids,
                          uint64_t *freed, struct err *e)
{
    AUTO(stored_list) struct stored_list images = {0};
    uint64_t bytes;

    for (size_t i = 0; i < ids->n; i++) {
        struct stored_image gone = {.id = ids->items[i]};

        forget_image(s, &gone);
    }
    if (store_load(s, &images, e) < 0)
        return -1;
    bytes = bury_layers(s, &images, grave, NULL);
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
    if (oci_ref_parse(name, &parsed, &ignored) == 0) {
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

int oci_store_remove(struct oci_store *s, const char *name_or_id, struct err *e)
{
    struct store_work grave = STORE_WORK_INIT;

    if (store_begin(s, NULL, &grave, e) < 0)
        return -1;
    int rc = remove_locked(s, name_or_id, &grave, e);

    store_end(s, &grave);
    return rc;
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

    store_end(s, &grave);
    return rc;
}

uint64_t oci_store_bytes(struct oci_store *s)
{
    int copy = openat(s->layers, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    uint64_t sum = 0;

    if (!d) {
        close_fd(&copy);
        return 0;
    }
    for (struct dirent *entry; (entry = readdir(d));)
        if (path_is_component(entry->d_name))
            sum += store_layer_size(s, entry->d_name);
    closedir(d);
    return sum;
}
