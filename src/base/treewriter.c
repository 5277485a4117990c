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
#include "base/str.h"
#include "base/tree.h"
#include "base/treesum.h"
#include "base/treewriter_inner.h"

/* Files from EARLY bytes on are handed to the disk as they end, those of more than EARLY_STEP piece by piece before. */
enum { PAGE = 4096, EARLY = 32 * 1024, EARLY_STEP = 4 * 1024 * 1024 };

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

int treewriter_fail(struct err *e, const char *path, const char *what)
{
    char shown[STR_SHOW_MAX];

    err_sys(e, "%s", what);
    return err_wrap(e, "%s", *path ? str_show(shown, path) : "/");
}

int treewriter_refuse(struct err *e, const char *path, const char *why)
{
    char shown[STR_SHOW_MAX];

    return err_set(e, ERR_USER, "%s: %s", *path ? str_show(shown, path) : "/", why);
}

int treewriter_resolve(const struct treewriter *w, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_NO_MAGICLINKS |
                   (w->o.inside_links ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS),
    };

    return (int)syscall(SYS_openat2, w->root, *path ? path : ".", &how, sizeof(how));
}

bool treewriter_is_whiteout(const struct treewriter *w, const struct stat *st)
{
    return w->o.overlay && S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

int treewriter_spoil(struct treewriter *w, struct err *e)
{
    w->replaced = true;
    return w->o.spoil ? w->o.spoil(w->o.spoil_arg, e) : 0;
}

mode_t treewriter_mode(const struct treewriter *w, mode_t mode)
{
    return mode & (w->o.keep_special ? 07777 : 01777);
}

bool treewriter_owner_differs(const struct treewriter *w, const struct tree_meta *m)
{
    return w->o.keep_owner && (w->always_chown || m->uid != w->uid || m->gid != w->gid);
}

int treewriter_begin(struct treewriter *w, const char *path, const struct tree_meta *m,
                     const char **name, struct err *e)
{
    BUG_ON(w->file >= 0);
    if (!*path)
        return treewriter_refuse(e, path, "the root must be a directory");
    if (strlen(path) >= BOUND_PATH)
        return treewriter_refuse(e, path, "path too long");
    if (w->o.max_entries && w->entries >= w->o.max_entries)
        return err_set(e, ERR_LIMIT, "more than %llu entries",
                       (unsigned long long)w->o.max_entries);
    if (m && (m->uid == (uid_t)-1 || m->gid == (gid_t)-1))
        return treewriter_refuse(e, path, "owner out of range");
    w->entries++;
    free(w->last);
    w->last = mem_strdup(path);
    return treewriter_parent(w, path, name, e);
}

/* Take away what stands in the way of a non-directory. Returns the parent again. */
static int clear_way(struct treewriter *w, int parent, const char *path, struct err *e)
{
    const char *name;

    if (treewriter_spoil(w, e) < 0)
        return -1;
    if (unlinkat(parent, name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path, 0) == 0)
        return parent;
    if (errno != EISDIR && errno != EPERM)
        return treewriter_fail(e, path, "replace");
    if (tree_remove_at(parent, name, e) < 0)
        return -1;
    treewriter_changed(w);
    return treewriter_parent(w, path, &name, e);
}

int treewriter_file(struct treewriter *w, const char *path, const struct tree_meta *m,
                    uint64_t size UNUSED, struct err *e)
{
    enum { FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC };
    const char *name;
    int parent = treewriter_begin(w, path, m, &name, e);

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
        return treewriter_fail(e, path, "create");
    w->file_meta = *m;
    w->file_meta_done = w->file_hole = false;
    w->file_size = w->file_handed = 0;
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

/* So that the disk works while the next files are decoded. It is no promise: who needs one syncs. */
static void begin_writing(struct treewriter *w, int fd, uint64_t upto)
{
    off_t from = (off_t)w->file_handed, n = (off_t)(upto - w->file_handed);

    w->file_handed = upto;
    if (w->o.write_early && sync_file_range(fd, from, n, SYNC_FILE_RANGE_WRITE) < 0)
        return; /* then it is written when all is synced */
}

int treewriter_data(struct treewriter *w, const void *data, size_t n, struct err *e)
{
    if (count(w, n, e) < 0)
        return -1;
    w->file_hole = false;
    w->file_size += n;
    w->file_crc = treesum_crc(w->file_crc, data, n);
    if (fd_write_all(w->file, data, n) < 0)
        return treewriter_fail(e, w->last, "write");
    if (w->file_size - w->file_handed >= EARLY_STEP)
        begin_writing(w, w->file, w->file_size / PAGE * PAGE); /* what follows changes the rest */
    return 0;
}

int treewriter_hole(struct treewriter *w, uint64_t n, struct err *e)
{
    if (n > BOUND_UNPACKED)
        return treewriter_refuse(e, w->last, "sparse file too large");
    if (!n)
        return 0;
    w->file_hole = true;
    w->file_size += n;
    w->file_crc = treesum_crc_zeros(w->file_crc, n);
    return lseek(w->file, (off_t)n, SEEK_CUR) < 0 ? treewriter_fail(e, w->last, "seek") : 0;
}

/* Owner, then mode (chown clears setuid), both before the capabilities, which chown would drop. */
static int apply_file_meta(struct treewriter *w, struct err *e)
{
    const struct tree_meta *m = &w->file_meta;
    mode_t mode = treewriter_mode(w, m->mode);

    if (w->file_meta_done)
        return 0;
    w->file_meta_done = true;
    if (treewriter_owner_differs(w, m) && fchown(w->file, m->uid, m->gid) < 0)
        return treewriter_fail(e, w->last, "set owner");
    if (mode != (m->mode & 0777 & ~w->umask) && fchmod(w->file, mode) < 0)
        return treewriter_fail(e, w->last, "set mode");
    return 0;
}

int treewriter_file_end(struct treewriter *w, struct err *e)
{
    AUTO_CLOSE int fd = w->file;
    const struct timespec times[2] = {w->file_meta.mtime, w->file_meta.mtime};

    if (w->file_hole && ftruncate(fd, lseek(fd, 0, SEEK_CUR)) < 0) {
        w->file = -1;
        return treewriter_fail(e, w->last, "extend");
    }
    int rc = apply_file_meta(w, e);

    w->file = -1;
    if (rc < 0)
        return -1;
    if (w->file_size >= EARLY)
        begin_writing(w, fd, w->file_size);
    treesum_file(&w->sum, treewriter_mode(w, w->file_meta.mode),
                 w->o.keep_owner ? w->file_meta.uid : w->uid,
                 w->o.keep_owner ? w->file_meta.gid : w->gid, w->file_size, w->file_crc);
    return futimens(fd, times) < 0 ? treewriter_fail(e, w->last, "set time") : 0;
}

/* Owner, mode and time of an entry that cannot be opened (links, devices, FIFOs). */
static int apply_at(struct treewriter *w, int parent, const char *name, const char *path,
                    const struct tree_meta *m, bool is_link, struct err *e)
{
    const struct timespec times[2] = {m->mtime, m->mtime};

    if (treewriter_owner_differs(w, m) &&
        fchownat(parent, name, m->uid, m->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return treewriter_fail(e, path, "set owner");
    /* What was made here is no link, and nobody else is in this tree: following cannot happen. */
    if (!is_link && fchmodat(parent, name, treewriter_mode(w, m->mode), 0) < 0)
        return treewriter_fail(e, path, "set mode");
    if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return treewriter_fail(e, path, "set time");
    return 0;
}

int treewriter_symlink(struct treewriter *w, const char *path, const char *target,
                       const struct tree_meta *m, struct err *e)
{
    const char *name;
    int parent = treewriter_begin(w, path, m, &name, e);

    if (parent < 0)
        return -1;
    if (symlinkat(target, parent, name) < 0) {
        if (errno != EEXIST)
            return treewriter_fail(e, path, "make link");
        if ((parent = clear_way(w, parent, path, e)) < 0)
            return -1;
        if (symlinkat(target, parent, name) < 0)
            return treewriter_fail(e, path, "make link");
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
    AUTO_CLOSE int fd = treewriter_resolve(w, dir, O_PATH | O_DIRECTORY);

    *name = slash ? slash + 1 : target;
    if (!**name)
        return treewriter_refuse(e, target, "hard link to the root");
    if (fd >= 0 && fstatat(fd, *name, st, AT_SYMLINK_NOFOLLOW) == 0 &&
        treewriter_is_whiteout(w, st))
        errno = ENOENT;
    else if (fd >= 0 && st->st_mode)
        return take_fd(&fd);
    return treewriter_fail(e, target, "hard link's target");
}

int treewriter_hardlink(struct treewriter *w, const char *path, const char *target, struct err *e)
{
    struct stat st = {0}, there = {0};
    const char *name, *tname;
    AUTO_CLOSE int from = open_target(w, target, &tname, &st, e);

    if (from < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return treewriter_refuse(e, path, "hard link to a directory");
    int parent = treewriter_begin(w, path, NULL, &name, e);

    if (parent < 0)
        return -1;
    if (linkat(from, tname, parent, name, 0) == 0) {
        treesum_name(&w->sum, name);
        return 0;
    }
    if (errno != EEXIST)
        return treewriter_fail(e, path, "make hard link");
    if (fstatat(parent, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_ino == st.st_ino &&
        there.st_dev == st.st_dev)
        return 0; /* a link to itself, or the same link twice */
    if (S_ISDIR(there.st_mode) && str_starts(target, path) && target[strlen(path)] == '/')
        return treewriter_refuse(e, path, "hard link into what it replaces");
    parent = clear_way(w, parent, path, e);
    if (parent < 0)
        return -1;
    return linkat(from, tname, parent, name, 0) < 0 ? treewriter_fail(e, path, "make hard link")
                                                    : 0;
}

int treewriter_node(struct treewriter *w, const char *path, const struct tree_meta *m, dev_t rdev,
                    struct err *e)
{
    const char *name;

    if (!w->o.keep_special && !S_ISFIFO(m->mode))
        return treewriter_refuse(e, path, "device nodes are not allowed here");
    int parent = treewriter_begin(w, path, m, &name, e);

    if (parent < 0)
        return -1;
    mode_t type = m->mode & S_IFMT;

    if (mknodat(parent, name, type | 0600, rdev) < 0) {
        if (errno != EEXIST)
            return treewriter_fail(e, path, "make device or FIFO");
        if ((parent = clear_way(w, parent, path, e)) < 0)
            return -1;
        if (mknodat(parent, name, type | 0600, rdev) < 0)
            return treewriter_fail(e, path, "make device or FIFO");
    }
    treewriter_count_node(w, name, type | treewriter_mode(w, m->mode), rdev);
    return apply_at(w, parent, name, path, m, false, e);
}

void treewriter_count_node(struct treewriter *w, const char *name, mode_t mode, dev_t rdev)
{
    treesum_name(&w->sum, name);
    treesum_node(&w->sum, mode, rdev);
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
            return treewriter_refuse(e, w->last, "name too long");
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
        return treewriter_refuse(e, path, "the root cannot be removed");
    if (treewriter_spoil(w, e) < 0)
        return -1;
    if (tree_remove_at(parent, name, e) < 0)
        return -1;
    treewriter_changed(w);
    return 0;
}

uint64_t treewriter_bytes(const struct treewriter *w)
{
    return w->bytes;
}
