/*
 * Directories of a tree that is being written: made as entries or as parents, and given their owner, mode and time at the
 * end, when nothing is made in them any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/str.h"
#include "base/treewriter_inner.h"

void treewriter_changed(struct treewriter *w)
{
    close_fd(&w->parent_fd);
    free(w->parent_path);
    w->parent_path = NULL;
}

static int remember_dir(struct treewriter *w, const char *path, const struct tree_meta *m,
                        bool implied, struct err *e)
{
    if (w->n_dirs == BOUND_TAR_DIRS)
        return err_set(e, ERR_LIMIT, "more than %d directories", BOUND_TAR_DIRS);
    if (w->n_dirs == w->cap_dirs) {
        w->cap_dirs = w->cap_dirs ? w->cap_dirs * 2 : 256;
        w->dirs = mem_realloc(w->dirs, w->cap_dirs, sizeof(*w->dirs));
    }
    w->dirs[w->n_dirs++] = (struct pending_dir){mem_strdup(path), *m, implied};
    return 0;
}

static int make_opaque(int parent, const char *name)
{
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -1 : fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0);
}

/* Make `name` in parent a directory: 0 made, 1 was one already, -1 with errno. */
static int make_dir(struct treewriter *w, int parent, const char *name, mode_t mode, struct err *e)
{
    struct stat st;
    bool opaque = false;

    if (mkdirat(parent, name, mode) == 0) {
        treesum_name(&w->sum, name);
        return 0;
    }
    if (errno != EEXIST)
        return treewriter_fail(e, name, "make directory");
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return treewriter_fail(e, name, "stat");
    if (S_ISDIR(st.st_mode))
        return 1;
    opaque = treewriter_is_whiteout(w, &st);
    if (treewriter_spoil(w, e) < 0)
        return -1;
    if (unlinkat(parent, name, 0) < 0 || mkdirat(parent, name, mode) < 0 ||
        (opaque && make_opaque(parent, name) < 0))
        return treewriter_fail(e, name, "replace by a directory");
    treewriter_changed(w); /* last: it may close parent */
    return 0;
}

/* The directory `path` and those above it; each prefix is resolved from the top. Returns an fd. */
static int make_parents(struct treewriter *w, const char *path, struct err *e)
{
    static const struct tree_meta implied = {.mode = 0755};
    AUTO_FREE char *copy = mem_strdup(path);
    AUTO_CLOSE int above = treewriter_resolve(w, "", O_PATH | O_DIRECTORY);
    struct stat st;

    if (above < 0)
        return treewriter_fail(e, path, "open");
    for (char *p = copy, *end; *p; p = *end ? end + 1 : end) {
        end = p + strcspn(p, "/");
        char kept = *end;

        *end = '\0';
        int next = treewriter_resolve(w, copy, O_PATH | O_DIRECTORY);

        if (next < 0 && errno != ENOENT && errno != ENOTDIR)
            return treewriter_refuse(
                e, path, errno == ELOOP ? "leads through a symbolic link" : strerror(errno));
        if (next < 0 && errno == ENOTDIR &&
            (fstatat(above, p, &st, AT_SYMLINK_NOFOLLOW) < 0 || !treewriter_is_whiteout(w, &st)))
            return treewriter_refuse(e, path, "an entry above it is not a directory");
        if (next < 0) {
            struct stat link;

            if (fstatat(above, p, &link, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(link.st_mode))
                return treewriter_refuse(e, path, "leads through a link to nowhere");
            if ((w->o.spoil && w->o.spoil(w->o.spoil_arg, e) < 0) ||
                make_dir(w, above, p, 0755, e) < 0 || remember_dir(w, copy, &implied, true, e) < 0)
                return -1;
            next = treewriter_resolve(w, copy, O_PATH | O_DIRECTORY);
            if (next < 0)
                return treewriter_fail(e, path, "open");
        }
        close(above);
        above = next;
        *end = kept;
    }
    return take_fd(&above);
}

int treewriter_parent(struct treewriter *w, const char *path, const char **ret_name, struct err *e)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;

    *ret_name = slash ? slash + 1 : path;
    if (!slash)
        return w->root;
    if (w->parent_path && strlen(w->parent_path) == n && !memcmp(w->parent_path, path, n))
        return w->parent_fd;
    treewriter_changed(w);
    AUTO_FREE char *dir = mem_strndup(path, n);
    int fd = treewriter_resolve(w, dir, O_PATH | O_DIRECTORY);

    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        return treewriter_fail(e, path, "open its directory");
    if (fd < 0 && !w->o.create_parents)
        return treewriter_fail(e, path, "open its directory");
    if (fd < 0 && (fd = make_parents(w, dir, e)) < 0)
        return -1;
    treewriter_changed(w);
    w->parent_fd = fd;
    w->parent_path = take_ptr(&dir);
    return fd;
}

int treewriter_dir(struct treewriter *w, const char *path, const struct tree_meta *m, struct err *e)
{
    const char *name;

    if (*path) {
        int parent = treewriter_begin(w, path, m, &name, e);

        /* Special bits come at the end: setgid would pass the group on to what is made below. */
        if (parent < 0 || make_dir(w, parent, name, 0755, e) < 0)
            return -1;
    } else {
        mem_replace(&w->last, "");
    }
    return remember_dir(w, path, m, false, e);
}

bool treewriter_save(const struct treewriter *w, struct str *out)
{
    bool ok = pack_u64(out, w->bytes) && pack_u64(out, w->entries) && pack_u64(out, w->n_dirs);

    for (size_t i = 0; ok && i < w->n_dirs; i++) {
        const struct pending_dir *d = &w->dirs[i];

        ok = pack_text(out, d->path) && pack_bytes(out, &d->meta, sizeof(d->meta)) &&
             pack_u64(out, d->implied);
    }
    return ok;
}

bool treewriter_restore(struct treewriter *w, struct unpack *in)
{
    struct err full = ERR_INIT;
    uint64_t n, implied;

    if (!pack_read_u64(in, &w->bytes) || !pack_read_u64(in, &w->entries) || !pack_read_u64(in, &n))
        return false;
    /* Who comes after may find entries that it has not counted. */
    w->replaced = true;
    while (n--) {
        AUTO_FREE char *path = NULL;
        struct tree_meta m;

        if (!pack_read_text(in, &path) || !pack_read_bytes(in, &m, sizeof(m)) ||
            !pack_read_u64(in, &implied) || remember_dir(w, path, &m, implied, &full) < 0)
            return false;
    }
    return true;
}

static int apply_dir(struct treewriter *w, const struct pending_dir *d, struct err *e)
{
    const struct timespec times[2] = {d->meta.mtime, d->meta.mtime};
    AUTO_CLOSE int fd = treewriter_resolve(w, d->path, O_RDONLY | O_DIRECTORY);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0; /* replaced by a later entry */
    if (fd < 0)
        return treewriter_fail(e, d->path, "open");
    if (treewriter_owner_differs(w, &d->meta) && fchown(fd, d->meta.uid, d->meta.gid) < 0)
        return treewriter_fail(e, d->path, "set owner");
    if (fchmod(fd, treewriter_mode(w, d->meta.mode)) < 0)
        return treewriter_fail(e, d->path, "set mode");
    return futimens(fd, times) < 0 ? treewriter_fail(e, d->path, "set time") : 0;
}

struct order {
    const struct pending_dir *d;
};

static int by_path_then_age(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    int c = strcmp(x->d->path, y->d->path);

    return c ? c : x->d < y->d ? -1 : x->d > y->d;
}

/* Pointers to the last record of each path, in order of path; `*n` of them. An entry of its own wins
 * over having been made as a parent, whichever came first. */
static struct order *settle(const struct treewriter *w, size_t *n)
{
    struct order *all = mem_array(w->n_dirs, sizeof(*all));
    size_t kept = 0;

    for (size_t i = 0; i < w->n_dirs; i++)
        all[i].d = &w->dirs[i];
    if (w->n_dirs)
        qsort(all, w->n_dirs, sizeof(*all), by_path_then_age);
    for (size_t i = 0; i < w->n_dirs; i++) {
        if (!kept || strcmp(all[kept - 1].d->path, all[i].d->path) != 0)
            all[kept++] = all[i];
        else if (!all[i].d->implied)
            all[kept - 1] = all[i];
    }
    *n = kept;
    return all;
}

int treewriter_finish(struct treewriter *w, struct err *e)
{
    size_t n;
    AUTO_FREE struct order *dirs = settle(w, &n);

    /* Children before parents, so that a mode cannot shut us out. */
    while (n--)
        if (!dirs[n].d->implied && apply_dir(w, dirs[n].d, e) < 0)
            return -1;
    return 0;
}

int treewriter_implied(struct treewriter *w, int (*fn)(void *arg, const char *path, struct err *e),
                       void *arg, struct err *e)
{
    size_t n;
    AUTO_FREE struct order *dirs = settle(w, &n);

    for (size_t i = 0; i < n; i++)
        if (dirs[i].d->implied && fn(arg, dirs[i].d->path, e) < 0)
            return -1;
    return 0;
}
