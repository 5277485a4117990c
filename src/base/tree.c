/*
 * A walk keeps one open directory a level and at most BOUND_TREE_DEPTH levels; the stack of levels is on the heap, so
 * a deep tree costs memory we count, never our stack. Removal does not even keep the levels' descriptors: it
 * climbs back by "..", checked against the identity it noted on the way down, because a tree may be nested as
 * deep as the disk allows (S29).
 */
#include "base/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/jobs.h"
#include "base/mem.h"
#include "base/str.h"

/* --- walk -------------------------------------------------------------------------------------------------------- */

struct level {
    DIR *dir;
    size_t path_len; /* of the path above its entries */
};

struct walk {
    struct level *levels;
    size_t n, cap;
    dev_t dev; /* mounts below are not entered */
    struct str path;
};

enum { OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK };

static int push(struct walk *w, int fd, struct err *e)
{
    DIR *dir = fdopendir(fd);

    if (!dir) {
        err_sys(e, "read directory");
        close(fd);
        return -1;
    }
    if (w->n == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 32;
        w->levels = mem_realloc(w->levels, w->cap, sizeof(*w->levels));
    }
    w->levels[w->n++] = (struct level){dir, w->path.len};
    return 0;
}

static void pop(struct walk *w)
{
    closedir(w->levels[--w->n].dir);
}

static void set_path(struct walk *w, size_t len, const char *name)
{
    w->path.len = len;
    if (w->path.buf)
        w->path.buf[len] = '\0';
    int rc = str_appendf(&w->path, "%s%s", len ? "/" : "", name);

    BUG_ON(rc < 0);
}

/* Go into the entry just visited, unless it vanished, changed or is another mount. */
static int descend(struct walk *w, int parent, const char *name, const struct stat *st,
                   struct err *e)
{
    AUTO_CLOSE int fd = -1;
    struct stat now;

    if (w->n >= BOUND_TREE_DEPTH)
        return err_set(e, ERR_LIMIT, "directories nested deeper than %d", BOUND_TREE_DEPTH);
    fd = openat(parent, name, OPEN_DIR);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0;
    if (fd < 0 || fstat(fd, &now) < 0)
        return err_sys(e, "open directory");
    if (now.st_dev != w->dev || now.st_ino != st->st_ino)
        return 0;
    return push(w, take_fd(&fd), e);
}

static int visit(struct walk *w, tree_visit *fn, void *arg, const struct dirent *entry,
                 struct err *e)
{
    struct level *top = &w->levels[w->n - 1];
    int parent = dirfd(top->dir);
    struct stat st;

    if (fstatat(parent, entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "stat");
    set_path(w, top->path_len, entry->d_name);
    int rc = fn(arg, parent, entry->d_name, str_text(&w->path), &st, e);

    if (rc == 0 && S_ISDIR(st.st_mode))
        rc = descend(w, parent, entry->d_name, &st, e);
    return rc < 0 ? -1 : 0;
}

static bool is_dots(const char *name)
{
    return str_eq(name, ".") || str_eq(name, "..");
}

static int walk_on(struct walk *w, tree_visit *fn, void *arg, struct cancel *cancel, struct err *e)
{
    while (w->n) {
        errno = 0;
        struct dirent *entry = readdir(w->levels[w->n - 1].dir);

        if (!entry && errno && errno != ENOENT)
            return err_sys(e, "read directory");
        if (!entry)
            pop(w);
        else if (!is_dots(entry->d_name) && visit(w, fn, arg, entry, e) < 0)
            return -1;
        if (cancel_fired(cancel))
            return err_set(e, ERR_CANCELLED, "cancelled");
    }
    return 0;
}

int tree_walk(int dirfd_, tree_visit *fn, void *arg, struct cancel *cancel, struct err *e)
{
    struct walk w = {.path = STR_INIT(BOUND_TREE_DEPTH * 256ULL)};
    char shown[STR_SHOW_MAX];
    struct stat st;
    int fd = openat(dirfd_, ".", OPEN_DIR);

    if (fd < 0 || fstat(fd, &st) < 0) {
        err_sys(e, "open directory");
        close_fd(&fd);
        return -1;
    }
    w.dev = st.st_dev;
    int rc = push(&w, fd, e);

    if (rc == 0 && walk_on(&w, fn, arg, cancel, e) < 0)
        rc = w.path.len ? err_wrap(e, "%s", str_show(shown, str_text(&w.path))) : -1;
    while (w.n)
        pop(&w);
    free(w.levels);
    str_free(&w.path);
    return rc;
}

/* --- measure ----------------------------------------------------------------------------------------------------- */

static int add_size(void *arg, int parent UNUSED, const char *name UNUSED, const char *path UNUSED,
                    const struct stat *st, struct err *e UNUSED)
{
    *(uint64_t *)arg += (uint64_t)st->st_size;
    return 0;
}

int tree_size(int dirfd_, struct cancel *cancel, uint64_t *ret_bytes, struct err *e)
{
    struct stat st;
    uint64_t sum;

    if (fstat(dirfd_, &st) < 0)
        return err_sys(e, "stat");
    sum = (uint64_t)st.st_size;
    if (tree_walk(dirfd_, add_size, &sum, cancel, e) < 0)
        return -1;
    *ret_bytes = sum;
    return 0;
}

/* Inodes with several links, each counted once: an open hash of those seen. */
struct usage {
    uint64_t bytes;
    uint64_t *seen; /* inode numbers, 0: free */
    size_t n, cap;
};

/* Slot of the inode, or the free one where it belongs. */
static uint64_t *slot(uint64_t *seen, size_t cap, uint64_t ino)
{
    size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ULL) & (cap - 1);

    while (seen[i] && seen[i] != ino)
        i = (i + 1) & (cap - 1);
    return &seen[i];
}

static void grow(struct usage *u)
{
    size_t cap = u->cap ? u->cap * 2 : 1024;
    uint64_t *bigger = mem_array(cap, sizeof(uint64_t));

    for (size_t i = 0; i < u->cap; i++)
        if (u->seen[i])
            *slot(bigger, cap, u->seen[i]) = u->seen[i];
    free(u->seen);
    u->seen = bigger;
    u->cap = cap;
}

static bool seen_before(struct usage *u, uint64_t ino)
{
    if (u->n * 2 >= u->cap)
        grow(u);
    uint64_t *s = slot(u->seen, u->cap, ino);

    if (*s)
        return true;
    *s = ino;
    u->n++;
    return false;
}

static int add_usage(void *arg, int parent UNUSED, const char *name UNUSED, const char *path UNUSED,
                     const struct stat *st, struct err *e UNUSED)
{
    struct usage *u = arg;

    if (S_ISDIR(st->st_mode) || st->st_nlink < 2 || !seen_before(u, st->st_ino))
        u->bytes += (uint64_t)st->st_blocks * 512;
    return 0;
}

int tree_disk_usage(int dirfd_, struct cancel *cancel, uint64_t *ret_bytes, struct err *e)
{
    struct usage u = {0};
    struct stat st;

    if (fstat(dirfd_, &st) < 0)
        return err_sys(e, "stat");
    u.bytes = (uint64_t)st.st_blocks * 512;
    int rc = tree_walk(dirfd_, add_usage, &u, cancel, e);

    free(u.seen);
    if (rc == 0)
        *ret_bytes = u.bytes;
    return rc;
}

/* --- remove ------------------------------------------------------------------------------------------------------ */

struct identity {
    dev_t dev;
    ino_t ino;
};

struct removal {
    int dir;                /* where we are */
    struct identity *above; /* of the directories we came through */
    char **names;           /* of the directory we are in, seen from the one above */
    size_t n, cap;
    unsigned refilled; /* times a directory was not empty after it had been emptied */
    dev_t dev;
};

/* Somebody may be writing while we remove: begin again that often, then give up (S29). */
enum { REFILLS_MAX = 1000 };

/* A directory somebody made unreadable: ours to read all the same. */
static int open_for_removal(int parent, const char *name)
{
    int fd = openat(parent, name, OPEN_DIR);

    if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
        fd = openat(parent, name, OPEN_DIR);
    return fd;
}

static int enter(struct removal *r, const char *name, struct err *e)
{
    AUTO_CLOSE int fd = open_for_removal(r->dir, name);
    struct stat here, there;

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &there) < 0 || fstat(r->dir, &here) < 0)
        return err_sys(e, "open directory %.100s", name);
    if (there.st_dev != r->dev)
        return err_sysno(e, EBUSY, "something is mounted on %.100s", name);
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 32;
        r->above = mem_realloc(r->above, r->cap, sizeof(*r->above));
        r->names = mem_realloc(r->names, r->cap, sizeof(*r->names));
    }
    r->above[r->n] = (struct identity){here.st_dev, here.st_ino};
    r->names[r->n++] = mem_strdup(name);
    close(r->dir);
    r->dir = take_fd(&fd);
    return 1;
}

/* Back to the directory above, and remove the one we leave. A tree moved under our feet is noticed. */
static int leave(struct removal *r, struct err *e)
{
    AUTO_FREE char *name = r->names[--r->n];
    AUTO_CLOSE int up = openat(r->dir, "..", OPEN_DIR);
    struct stat st;

    if (up < 0 || fstat(up, &st) < 0)
        return err_sys(e, "climb out of %.100s", name);
    if (st.st_dev != r->above[r->n].dev || st.st_ino != r->above[r->n].ino)
        return err_set(e, ERR_HOST, "%.100s was moved while it was removed", name);
    if (unlinkat(up, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY)
        return err_sys(e, "remove directory %.100s", name);
    /* Not empty again: the directory above will find it once more. */
    if (faccessat(up, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 && ++r->refilled > REFILLS_MAX)
        return err_sysno(e, ENOTEMPTY, "remove directory %.100s", name);
    close(r->dir);
    r->dir = take_fd(&up);
    return 0;
}

/*
 * Unlink what can be unlinked here; `ret_sub` gets the name of one directory that must be emptied first, NULL when none
 * is left. Names are read anew after each descent: the offset of a changed directory means nothing.
 */
static int clear_here(struct removal *r, char **ret_sub, struct err *e)
{
    int fd = openat(r->dir, ".", OPEN_DIR);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int rc = 0;

    *ret_sub = NULL;
    if (!dir) {
        err_sys(e, "read directory");
        close_fd(&fd);
        return -1;
    }
    while (rc == 0 && !*ret_sub && (entry = readdir(dir))) {
        if (is_dots(entry->d_name) || unlinkat(r->dir, entry->d_name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno != EISDIR && errno != EPERM)
            rc = err_sys(e, "remove %.100s", entry->d_name);
        else if (unlinkat(r->dir, entry->d_name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
            if (errno != ENOTEMPTY && errno != EEXIST && errno != EACCES)
                rc = err_sys(e, "remove %.100s", entry->d_name);
            else
                *ret_sub = mem_strdup(entry->d_name);
        }
    }
    closedir(dir);
    return rc;
}

static int empty(struct removal *r, struct err *e)
{
    for (;;) {
        AUTO_FREE char *sub = NULL;

        if (clear_here(r, &sub, e) < 0)
            return -1;
        if (sub && enter(r, sub, e) < 0)
            return -1;
        if (sub)
            continue;
        if (!r->n)
            return 0;
        if (leave(r, e) < 0)
            return -1;
    }
}

int tree_empty(int dirfd_, struct err *e)
{
    struct removal r = {.dir = openat(dirfd_, ".", OPEN_DIR)};
    struct stat st;

    if (r.dir < 0 || fstat(r.dir, &st) < 0) {
        err_sys(e, "open the directory to empty");
        close_fd(&r.dir);
        return -1;
    }
    r.dev = st.st_dev;
    int rc = empty(&r, e);

    close_fd(&r.dir);
    while (r.n)
        free(r.names[--r.n]);
    free(r.names);
    free(r.above);
    return rc;
}

int tree_remove_at(int dirfd_, const char *name, struct err *e)
{
    char shown[STR_SHOW_MAX];

    if (unlinkat(dirfd_, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return err_sys(e, "remove %s", str_show(shown, name));
    AUTO_CLOSE int fd = open_for_removal(dirfd_, name);

    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, "remove %s", str_show(shown, name));
    for (unsigned tries = 0;; tries++) {
        if (tree_empty(fd, e) < 0)
            return err_wrap(e, "remove %s", str_show(shown, name));
        if (unlinkat(dirfd_, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY || tries == REFILLS_MAX)
            return err_sys(e, "remove %s", str_show(shown, name));
    }
}
