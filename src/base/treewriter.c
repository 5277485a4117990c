/*
 * The tree is private while it is written (a temporary directory 0700), so what can attack is the order
 * and the names of the entries, not another process. Every path is resolved by the kernel from the root
 * descriptor; only the parent of the last entry is remembered, and forgotten whenever something is
 * removed or replaced, so that it can never lead to a directory the path no longer names.
 *
 * Few system calls a file (a layer has 100 000 of them): the mode is given at creation and changed only
 * where the umask or special bits ask for it, the owner only where it is not ours.
 */
#include "base/treewriter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <linux/openat2.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/pack.h"
#include "base/path.h"
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"

struct pending_dir {
    char *path;
    struct tree_meta meta;
    bool implied;
};

struct treewriter {
    struct treewriter_opts o;
    int root;
    uid_t uid;
    gid_t gid;
    bool always_chown; /* a setgid root hands its group down */
    mode_t umask;

    char *parent_path; /* of parent_fd; NULL: nothing remembered */
    int parent_fd;

    int file; /* being written, or -1 */
    struct tree_meta file_meta;
    bool file_meta_done, file_hole;
    uint64_t file_size;
    uint32_t file_crc;
    char *last; /* path of the entry made last */

    struct pending_dir *dirs;
    size_t n_dirs, cap_dirs;
    uint64_t bytes, entries;

    struct treesum sum;
    bool replaced; /* something that was counted is gone */
};

/* umask(2) cannot be read without being changed, which other threads would notice. */
static mode_t read_umask(void)
{
    AUTO(str) struct str s = STR_INIT(16 * BOUND_KIB);
    struct err ignored = ERR_INIT;
    unsigned value = 0777;

    if (fd_read_file_at(AT_FDCWD, "/proc/self/status", &s, &ignored) == 0) {
        const char *line = strstr(str_text(&s), "\nUmask:");

        if (line)
            value = (unsigned)strtoul(line + 7, NULL, 8);
    }
    return value & 0777;
}

int treewriter_new(int rootfd, const struct treewriter_opts *o, struct treewriter **ret,
                   struct err *e)
{
    AUTO(treewriter) struct treewriter *w = mem_new(struct treewriter);
    struct stat st;

    w->o = *o;
    w->parent_fd = w->file = -1;
    w->root = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->root < 0 || fstat(w->root, &st) < 0)
        return err_sys(e, "open the directory to unpack to");
    w->uid = geteuid();
    w->gid = getegid();
    w->always_chown = st.st_mode & S_ISGID;
    w->umask = read_umask();
    *ret = take_ptr(&w);
    return 0;
}

void treewriter_free(struct treewriter *w)
{
    if (!w)
        return;
    treewriter_changed(w);
    close_fd(&w->file);
    close_fd(&w->root);
    for (size_t i = 0; i < w->n_dirs; i++)
        free(w->dirs[i].path);
    free(w->dirs);
    free(w->last);
    free(w);
}

void treewriter_changed(struct treewriter *w)
{
    close_fd(&w->parent_fd);
    free(w->parent_path);
    w->parent_path = NULL;
}

static int fail(struct err *e, const char *path, const char *what)
{
    char shown[STR_SHOW_MAX];

    err_sys(e, "%s", what);
    return err_wrap(e, "%s", *path ? str_show(shown, path) : "/");
}

static int refuse(struct err *e, const char *path, const char *why)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "%s: %s", *path ? str_show(shown, path) : "/", why);
}

/* An fd, or -1 with errno. */
static int resolve(const struct treewriter *w, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_NO_MAGICLINKS |
                   (w->o.inside_links ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
    };

    return (int)syscall(SYS_openat2, w->root, *path ? path : ".", &how, sizeof(how));
}

static bool is_whiteout(const struct treewriter *w, const struct stat *st)
{
    return w->o.overlay && S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int make_opaque(int parent, const char *name)
{
    AUTO_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -1 : fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0);
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

static int spoil(struct treewriter *w, struct err *e)
{
    w->replaced = true;
    return w->o.spoil ? w->o.spoil(w->o.spoil_arg, e) : 0;
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
        return fail(e, name, "make directory");
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(e, name, "stat");
    if (S_ISDIR(st.st_mode))
        return 1;
    opaque = is_whiteout(w, &st);
    if (spoil(w, e) < 0)
        return -1;
    if (unlinkat(parent, name, 0) < 0 || mkdirat(parent, name, mode) < 0 ||
        (opaque && make_opaque(parent, name) < 0))
        return fail(e, name, "replace by a directory");
    treewriter_changed(w); /* last: it may close parent */
    return 0;
}

/* The directory `path` and those above it; each prefix is resolved from the top. Returns an fd. */
static int make_parents(struct treewriter *w, const char *path, struct err *e)
{
    static const struct tree_meta implied = {.mode = 0755};
    AUTO_FREE char *copy = mem_strdup(path);
    AUTO_CLOSE int above = resolve(w, "", O_PATH | O_DIRECTORY);
    struct stat st;

    if (above < 0)
        return fail(e, path, "open");
    for (char *p = copy, *end; *p; p = *end ? end + 1 : end) {
        end = p + strcspn(p, "/");
        char kept = *end;

        *end = '\0';
        int next = resolve(w, copy, O_PATH | O_DIRECTORY);

        if (next < 0 && errno != ENOENT && errno != ENOTDIR)
            return refuse(e, path,
                          errno == ELOOP ? "leads through a symbolic link" : strerror(errno));
        if (next < 0 && errno == ENOTDIR &&
            (fstatat(above, p, &st, AT_SYMLINK_NOFOLLOW) < 0 || !is_whiteout(w, &st)))
            return refuse(e, path, "an entry above it is not a directory");
        if (next < 0) {
            struct stat link;

            if (fstatat(above, p, &link, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(link.st_mode))
                return refuse(e, path, "leads through a link to nowhere");
            if ((w->o.spoil && w->o.spoil(w->o.spoil_arg, e) < 0) ||
                make_dir(w, above, p, 0755, e) < 0 || remember_dir(w, copy, &implied, true, e) < 0)
                return -1;
            next = resolve(w, copy, O_PATH | O_DIRECTORY);
            if (next < 0)
                return fail(e, path, "open");
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
    int fd = resolve(w, dir, O_PATH | O_DIRECTORY);

    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        return fail(e, path, "open its directory");
    if (fd < 0 && !w->o.create_parents)
        return fail(e, path, "open its directory");
    if (fd < 0 && (fd = make_parents(w, dir, e)) < 0)
        return -1;
    treewriter_changed(w);
    w->parent_fd = fd;
    w->parent_path = take_ptr(&dir);
    return fd;
}

/* Every entry begins here: counts, checks, and gives the directory it goes to. */
static int begin(struct treewriter *w, const char *path, const struct tree_meta *m,
                 const char **name, struct err *e)
{
    BUG_ON(w->file >= 0);
    if (!*path)
        return refuse(e, path, "the root must be a directory");
    if (strlen(path) >= BOUND_PATH)
        return refuse(e, path, "path too long");
    if (w->o.max_entries && w->entries >= w->o.max_entries)
        return err_set(e, ERR_LIMIT, "more than %llu entries",
                       (unsigned long long)w->o.max_entries);
    if (m && (m->uid == (uid_t)-1 || m->gid == (gid_t)-1))
        return refuse(e, path, "owner out of range");
    w->entries++;
    free(w->last);
    w->last = mem_strdup(path);
    return treewriter_parent(w, path, name, e);
}

/* Take away what stands in the way of a non-directory. Returns the parent again. */
static int clear_way(struct treewriter *w, int parent, const char *path, struct err *e)
{
    const char *name;

    if (spoil(w, e) < 0)
        return -1;
    if (unlinkat(parent, name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, 0) == 0)
        return parent;
    if (errno != EISDIR && errno != EPERM)
        return fail(e, path, "replace");
    if (tree_remove_at(parent, name, e) < 0)
        return -1;
    treewriter_changed(w);
    return treewriter_parent(w, path, &name, e);
}

static mode_t wanted_mode(const struct treewriter *w, mode_t mode)
{
    return mode & (w->o.keep_special ? 07777 : 01777);
}

static bool owner_differs(const struct treewriter *w, const struct tree_meta *m)
{
    return w->o.keep_owner && (w->always_chown || m->uid != w->uid || m->gid != w->gid);
}

int treewriter_dir(struct treewriter *w, const char *path, const struct tree_meta *m, struct err *e)
{
    const char *name;

    if (*path) {
        int parent = begin(w, path, m, &name, e);

        /* Special bits come at the end: setgid would pass the group on to what is made below. */
        if (parent < 0 || make_dir(w, parent, name, 0755, e) < 0)
            return -1;
    } else {
        mem_replace(&w->last, "");
    }
    return remember_dir(w, path, m, false, e);
}

int treewriter_file(struct treewriter *w, const char *path, const struct tree_meta *m,
                    uint64_t size UNUSED, struct err *e)
{
    enum { FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC };
    const char *name;
    int parent = begin(w, path, m, &name, e);

    if (parent < 0)
        return -1;
    w->file = openat(parent, name, FLAGS, m->mode & 0777);
    if (w->file < 0 && errno == EEXIST) {
        parent = clear_way(w, parent, path, e);
        if (parent < 0)
            return -1;
        w->file = openat(parent, name, FLAGS, m->mode & 0777);
    }
    if (w->file < 0)
        return fail(e, path, "create");
    w->file_meta = *m;
    w->file_meta_done = w->file_hole = false;
    w->file_size = 0;
    w->file_crc = TREESUM_CRC;
    treesum_name(&w->sum, name);
    return 0;
}

static int count(struct treewriter *w, uint64_t n, struct err *e)
{
    if (w->o.max_bytes && n > w->o.max_bytes - w->bytes)
        return err_set(e, ERR_LIMIT, "more than %llu bytes of files",
                       (unsigned long long)w->o.max_bytes);
    w->bytes += n;
    return 0;
}

int treewriter_data(struct treewriter *w, const void *data, size_t n, struct err *e)
{
    if (count(w, n, e) < 0)
        return -1;
    w->file_hole = false;
    w->file_size += n;
    w->file_crc = treesum_crc(w->file_crc, data, n);
    return fd_write_all(w->file, data, n) < 0 ? fail(e, w->last, "write") : 0;
}

int treewriter_hole(struct treewriter *w, uint64_t n, struct err *e)
{
    if (n > BOUND_UNPACKED)
        return refuse(e, w->last, "sparse file too large");
    if (!n)
        return 0;
    w->file_hole = true;
    w->file_size += n;
    w->file_crc = treesum_crc_zeros(w->file_crc, n);
    return lseek(w->file, (off_t)n, SEEK_CUR) < 0 ? fail(e, w->last, "seek") : 0;
}

/* Owner, then mode (chown clears setuid), both before the capabilities, which chown would drop. */
static int apply_file_meta(struct treewriter *w, struct err *e)
{
    const struct tree_meta *m = &w->file_meta;
    mode_t mode = wanted_mode(w, m->mode);

    if (w->file_meta_done)
        return 0;
    w->file_meta_done = true;
    if (owner_differs(w, m) && fchown(w->file, m->uid, m->gid) < 0)
        return fail(e, w->last, "set owner");
    if (mode != (m->mode & 0777 & ~w->umask) && fchmod(w->file, mode) < 0)
        return fail(e, w->last, "set mode");
    return 0;
}

int treewriter_file_end(struct treewriter *w, struct err *e)
{
    AUTO_CLOSE int fd = w->file;
    const struct timespec times[2] = {w->file_meta.mtime, w->file_meta.mtime};

    if (w->file_hole && ftruncate(fd, lseek(fd, 0, SEEK_CUR)) < 0) {
        w->file = -1;
        return fail(e, w->last, "extend");
    }
    int rc = apply_file_meta(w, e);

    w->file = -1;
    if (rc < 0)
        return -1;
    treesum_file(&w->sum, wanted_mode(w, w->file_meta.mode),
                 w->o.keep_owner ? w->file_meta.uid : w->uid,
                 w->o.keep_owner ? w->file_meta.gid : w->gid, w->file_size, w->file_crc);
    return futimens(fd, times) < 0 ? fail(e, w->last, "set time") : 0;
}

/* Owner, mode and time of an entry that cannot be opened (links, devices, FIFOs). */
static int apply_at(struct treewriter *w, int parent, const char *name, const char *path,
                    const struct tree_meta *m, bool is_link, struct err *e)
{
    const struct timespec times[2] = {m->mtime, m->mtime};

    if (owner_differs(w, m) && fchownat(parent, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(e, path, "set owner");
    /* What was made here is no link, and nobody else is in this tree: following cannot happen. */
    if (!is_link && fchmodat(parent, name, wanted_mode(w, m->mode), 0) < 0)
        return fail(e, path, "set mode");
    if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(e, path, "set time");
    return 0;
}

int treewriter_symlink(struct treewriter *w, const char *path, const char *target,
                       const struct tree_meta *m, struct err *e)
{
    const char *name;
    int parent = begin(w, path, m, &name, e);

    if (parent < 0)
        return -1;
    if (symlinkat(target, parent, name) < 0) {
        if (errno != EEXIST)
            return fail(e, path, "make link");
        if ((parent = clear_way(w, parent, path, e)) < 0)
            return -1;
        if (symlinkat(target, parent, name) < 0)
            return fail(e, path, "make link");
    }
    treesum_name(&w->sum, name);
    treesum_link(&w->sum, target);
    return apply_at(w, parent, name, path, m, true, e);
}

/* Parent of a hard link's target, and the target's name; a whiteout is as good as nothing there. */
static int open_target(struct treewriter *w, const char *target, const char **name, struct stat *st,
                       struct err *e)
{
    const char *slash = strrchr(target, '/');
    AUTO_FREE char *dir = mem_strndup(target, slash ? (size_t)(slash - target) : 0);
    AUTO_CLOSE int fd = resolve(w, dir, O_PATH | O_DIRECTORY);

    *name = slash ? slash + 1 : target;
    if (!**name)
        return refuse(e, target, "hard link to the root");
    if (fd >= 0 && fstatat(fd, *name, st, AT_SYMLINK_NOFOLLOW) == 0 && is_whiteout(w, st))
        errno = ENOENT;
    else if (fd >= 0 && st->st_mode)
        return take_fd(&fd);
    return fail(e, target, "hard link's target");
}

int treewriter_hardlink(struct treewriter *w, const char *path, const char *target, struct err *e)
{
    struct stat st = {0}, there = {0};
    const char *name, *tname;
    AUTO_CLOSE int from = open_target(w, target, &tname, &st, e);

    if (from < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return refuse(e, path, "hard link to a directory");
    int parent = begin(w, path, NULL, &name, e);

    if (parent < 0)
        return -1;
    if (linkat(from, tname, parent, name, 0) == 0) {
        treesum_name(&w->sum, name);
        return 0;
    }
    if (errno != EEXIST)
        return fail(e, path, "make hard link");
    if (fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == st.st_ino &&
        there.st_dev == st.st_dev)
        return 0; /* a link to itself, or the same link twice */
    if (S_ISDIR(there.st_mode) && str_starts(target, path) && target[strlen(path)] == '/')
        return refuse(e, path, "hard link into what it replaces");
    parent = clear_way(w, parent, path, e);
    if (parent < 0)
        return -1;
    return linkat(from, tname, parent, name, 0) < 0 ? fail(e, path, "make hard link") : 0;
}

int treewriter_node(struct treewriter *w, const char *path, const struct tree_meta *m, dev_t rdev,
                    struct err *e)
{
    const char *name;

    if (!w->o.keep_special && !S_ISFIFO(m->mode))
        return refuse(e, path, "device nodes are not allowed here");
    int parent = begin(w, path, m, &name, e);

    if (parent < 0)
        return -1;
    mode_t type = m->mode & S_IFMT;

    if (mknodat(parent, name, type | 0600, rdev) < 0) {
        if (errno != EEXIST)
            return fail(e, path, "make device or FIFO");
        if ((parent = clear_way(w, parent, path, e)) < 0)
            return -1;
        if (mknodat(parent, name, type | 0600, rdev) < 0)
            return fail(e, path, "make device or FIFO");
    }
    treewriter_count_node(w, name, type | wanted_mode(w, m->mode), rdev);
    return apply_at(w, parent, name, path, m, false, e);
}

void treewriter_count_node(struct treewriter *w, const char *name, mode_t mode, dev_t rdev)
{
    treesum_name(&w->sum, name);
    treesum_node(&w->sum, mode, rdev);
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

int treewriter_root(const struct treewriter *w)
{
    return w->root;
}

void treewriter_park(struct treewriter *w)
{
    treewriter_changed(w);
    close_fd(&w->file);
}

bool treewriter_sum(const struct treewriter *w, struct treesum *ret)
{
    *ret = w->sum;
    return !w->replaced;
}

int treewriter_xattr(struct treewriter *w, const char *name, const void *value, size_t n,
                     struct err *e)
{
    char proc[64 + 256 + 1], shown[STR_SHOW_MAX];
    const char *last;
    int rc;

    if (w->file >= 0) {
        if (apply_file_meta(w, e) < 0)
            return -1;
        rc = fsetxattr(w->file, name, value, n, 0);
    } else if (!*w->last) {
        rc = fsetxattr(w->root, name, value, n, 0);
    } else {
        int parent = treewriter_parent(w, w->last, &last, e);

        if (parent < 0)
            return -1;
        AUTO_CLOSE int dir =
            openat(parent, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        /* There is no setxattrat before Linux 6.13; the link is of our own descriptor table, and
         * lsetxattr does not follow the last part. */
        if (snprintf(proc, sizeof(proc), "/proc/self/fd/%d/%s", parent, last) >= (int)sizeof(proc))
            return refuse(e, w->last, "name too long");
        rc = dir >= 0 ? fsetxattr(dir, name, value, n, 0) : lsetxattr(proc, name, value, n, 0);
    }
    if (rc == 0)
        return 0;
    int sys = errno;

    str_show(shown, name);
    err_sysno(e, sys, "set attribute %s", shown);
    return err_wrap(e, "%s", str_show(shown, w->last));
}

int treewriter_remove(struct treewriter *w, const char *path, struct err *e)
{
    const char *name;
    int parent = treewriter_parent(w, path, &name, e);

    if (parent < 0)
        return -1;
    if (!*name)
        return refuse(e, path, "the root cannot be removed");
    if (spoil(w, e) < 0)
        return -1;
    if (tree_remove_at(parent, name, e) < 0)
        return -1;
    treewriter_changed(w);
    return 0;
}

static int apply_dir(struct treewriter *w, const struct pending_dir *d, struct err *e)
{
    const struct timespec times[2] = {d->meta.mtime, d->meta.mtime};
    AUTO_CLOSE int fd = resolve(w, d->path, O_RDONLY | O_DIRECTORY);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return 0; /* replaced by a later entry */
    if (fd < 0)
        return fail(e, d->path, "open");
    if (owner_differs(w, &d->meta) && fchown(fd, d->meta.uid, d->meta.gid) < 0)
        return fail(e, d->path, "set owner");
    if (fchmod(fd, wanted_mode(w, d->meta.mode)) < 0)
        return fail(e, d->path, "set mode");
    return futimens(fd, times) < 0 ? fail(e, d->path, "set time") : 0;
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

uint64_t treewriter_bytes(const struct treewriter *w)
{
    return w->bytes;
}
