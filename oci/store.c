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
#include "base/log.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/statefile.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "oci/ref.h"
#include "oci/store_inner.h"

enum {
    LAYER_POLL_MS = 50,
    INDEX_FILE_MAX = 16 * 1024 * 1024,
    LAYER_FILE_MAX = 4096,
    MOUNTINFO_MAX = 64 * 1024 * 1024
};

bool store_names(int dir, struct str_list *ret)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

    if (!d) {
        close_fd(&copy);
        return false;
    }
    for (struct dirent *entry; (entry = readdir(d));)
        if (path_is_component(entry->d_name))
            str_list_add(ret, entry->d_name);
    closedir(d);
    return true;
}

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

/* `cwrun mount` leaves no process behind that could hold a lock: the mount itself says whose it is. */
static bool is_mounted(const char *id)
{
    AUTO_FREE char *source = mem_printf(" overlay " OCI_MOUNT_SOURCE "%s ", digest_hex(id));
    AUTO_CLOSE int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    AUTO(str) struct str text = STR_INIT(MOUNTINFO_MAX);
    struct err ignored = ERR_INIT;

    return fd >= 0 && fd_read_all(fd, &text, &ignored) == 0 && strstr(str_text(&text), source);
}

bool store_in_use(struct oci_store *s, const char *id)
{
    AUTO_CLOSE int fd = openat(s->leases, digest_hex(id), O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    return (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) || is_mounted(id);
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

int store_publish(struct oci_store *s, struct store_work *w, const char *name,
                  const struct store_layer *l, struct err *e)
{
    AUTO_CLOSE int dir = openat(w->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    AUTO(cJSON) cJSON *meta = cJSON_CreateObject();
    char sum[TREESUM_TEXT_MAX];

    if (dir < 0)
        return err_sys(e, "open unpacked layer");
    treesum_text(l->sum, sum);
    json_add_str(meta, "diff_id", l->diff_id);
    json_add_int(meta, "size", (int64_t)l->size);
    json_add_str(meta, "sum", sum);
    json_add_str(meta, "boot_id", s->boot_id);
    AUTO_FREE char *text = json_text(meta);

    if (statefile_replace(dir, "layer.json", text, strlen(text), 0600, false, e) < 0)
        return -1;
    if (renameat2(w->fd, name, s->layers, l->key, RENAME_NOREPLACE) < 0 && errno != EEXIST)
        return err_sys(e, "name layer %s", l->key);
    return 0;
}

int store_layer_file(struct oci_store *s, const char *key, cJSON **ret, struct err *e)
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

    if (store_layer_file(s, key, &meta, &ignored) < 0 ||
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

uint64_t oci_store_free(struct oci_store *s)
{
    return store_free_bytes(s);
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
    AUTO(str_list) struct str_list all = {0};

    store_names(s->tmp, &all);
    for (size_t i = 0; i < all.n; i++) {
        AUTO_CLOSE int fd =
            openat(s->tmp, all.items[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            str_list_add(names, all.items[i]);
    }
}

bool store_is_other_boot(struct oci_store *s, const char *key)
{
    AUTO(cJSON) cJSON *meta = NULL;
    struct err ignored = ERR_INIT;
    const char *boot;

    return store_layer_file(s, key, &meta, &ignored) < 0 ||
           json_get_str(meta, "boot_id", 64, &boot, &ignored) < 0 || !str_eq(boot, s->boot_id);
}

static bool image_is_whole(struct oci_store *s, const struct stored_image *i)
{
    for (size_t k = 0; k < i->keys.n; k++)
        if (!store_has(s, i->keys.items[k]))
            return false;
    return true;
}

/* Files to lock that a crash left; whoever holds one holds it locked, and who waits for one looks again. */
static void sweep_locks(int dir, const struct stored_list *keep)
{
    AUTO(str_list) struct str_list all = {0};

    store_names(dir, &all);
    for (size_t k = 0; k < all.n; k++) {
        const char *name = all.items[k];
        bool kept = false;

        for (size_t i = 0; i < keep->n && !kept; i++)
            kept = str_eq(digest_hex(keep->items[i].id), name);
        AUTO_CLOSE int fd = kept ? -1 : openat(dir, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dir, name, 0);
    }
}

static bool is_of_no_use(struct oci_store *s, const char *key, const void *arg UNUSED)
{
    return store_is_other_boot(s, key);
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
            log_warn("image id=%s lacks a layer and is forgotten", images.items[i].id);
            store_forget_image(s, &images.items[i]);
            continue;
        }
        whole.items[whole.n++] = images.items[i];
        images.items[i] = (struct stored_image){0};
    }
    store_bury_layers(s, &whole, &grave, is_of_no_use, NULL);
    for (size_t i = 0; i < garbage.n; i++)
        store_partial_rescue(s, garbage.items[i]);
    sweep_locks(s->leases, &whole);
    sweep_locks(s->locks, &(struct stored_list){0});
    close_fd(&lock);
    store_partial_sweep(s, STORE_PARTIAL_DAYS * 86400.0);
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

int store_open(const char *dir, struct oci_store **ret, struct err *e)
{
    AUTO(oci_store) struct oci_store *s = mem_new(struct oci_store);

    s->dir = s->layers = s->images = s->tmp = s->leases = s->locks = s->partial = -1;
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
        open_dir(s, "locks", &s->locks, e) < 0 || open_dir(s, "partial", &s->partial, e) < 0)
        return -1;
    if (mkdirat(s->dir, "empty", 0755) < 0 && errno != EEXIST)
        return err_sys(e, "make %s/empty", s->path);
    *ret = take_ptr(&s);
    return 0;
}

int oci_store_open(const char *dir, struct oci_store **ret, struct err *e)
{
    AUTO(oci_store) struct oci_store *s = NULL;

    if (store_open(dir, &s, e) < 0)
        return -1;
    if (adopt(s, e) < 0)
        return err_wrap(e, "image store %s", dir);
    *ret = take_ptr(&s);
    return 0;
}

void oci_store_close(struct oci_store *s)
{
    if (!s)
        return;
    close_fd(&s->partial);
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
