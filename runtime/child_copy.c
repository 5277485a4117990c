/*
 * tmpcopyup: what the image has in a directory, copied into the tmpfs that is going to lie on it. Runs in the child,
 * so all of it is system calls on descriptors, and no link is followed: the tree is the image's to arrange.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "runtime/child.h"
#include "runtime/plan.h"

enum { COPY_DEPTH_MAX = 64, COPY_CHUNK = 1 << 20, COPY_LINK_MAX = 4096 };

static int copy_dir(int from, int to, int depth);

/* Owner first: a change of owner takes set-user-ID bits away. */
static int copy_owner_and_mode(int fd, const struct stat *st)
{
    return SYS(fchown, fd, st->st_uid, st->st_gid) < 0 || SYS(fchmod, fd, st->st_mode & 07777) < 0
               ? -1
               : 0;
}

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    int src = (int)SYS(openat, from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    int dst = src < 0 ? -1
                      : (int)SYS(openat, to, name,
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    long n = dst < 0 ? -1 : 1;

    while (n > 0)
        n = SYS(sendfile, dst, src, 0, COPY_CHUNK);
    if (n < 0 || copy_owner_and_mode(dst, st) < 0)
        return -1;
    SYS(close, dst);
    SYS(close, src);
    return 0;
}

static int copy_link(int from, int to, const char *name, const struct stat *st)
{
    char target[COPY_LINK_MAX];
    long n = SYS(readlinkat, from, name, target, sizeof(target));

    if (n < 0 || n >= (long)sizeof(target)) {
        errno = n < 0 ? errno : ENAMETOOLONG;
        return -1;
    }
    target[n] = '\0';
    return SYS(symlinkat, target, to, name) < 0 ||
                   SYS(fchownat, to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0
               ? -1
               : 0;
}

static int copy_sub_dir(int from, int to, const char *name, const struct stat *st, int depth)
{
    int src = (int)SYS(openat, from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

    if (src < 0 || SYS(mkdirat, to, name, 0700) < 0)
        return -1;
    int dst = (int)SYS(openat, to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

    if (dst < 0 || copy_dir(src, dst, depth + 1) < 0 || copy_owner_and_mode(dst, st) < 0)
        return -1;
    SYS(close, dst);
    SYS(close, src);
    return 0;
}

static int copy_node(int from, int to, const char *name, const struct stat *st)
{
    (void)from;
    return SYS(mknodat, to, name, st->st_mode, st->st_rdev) < 0 ||
                   SYS(fchownat, to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0
               ? -1
               : 0;
}

static int copy_entry(int from, int to, const char *name, int depth)
{
    struct stat st;

    if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])))
        return 0;
    if (SYS(newfstatat, from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    switch (st.st_mode & S_IFMT) {
    case S_IFDIR: return copy_sub_dir(from, to, name, &st, depth);
    case S_IFREG: return copy_file(from, to, name, &st);
    case S_IFLNK: return copy_link(from, to, name, &st);
    default: return copy_node(from, to, name, &st);
    }
}

/* What getdents64(2) fills. */
struct entry {
    unsigned long long ino, off;
    unsigned short len;
    unsigned char type;
    char name[];
};

static int copy_dir(int from, int to, int depth)
{
    _Alignas(struct entry) char buf[4096];

    if (depth > COPY_DEPTH_MAX) {
        errno = ELOOP;
        return -1;
    }
    for (;;) {
        long n = SYS(getdents64, from, buf, sizeof(buf));

        if (n <= 0)
            return (int)n;
        for (long at = 0; at < n;) {
            const struct entry *d = (const struct entry *)(buf + at);

            if (copy_entry(from, to, d->name, depth) < 0)
                return -1;
            at += d->len;
        }
    }
}

int child_copy_up(struct launch_plan *p, const struct launch_op *op, int root)
{
    int dir = child_open(root, p->data + op->a, 0);

    if (dir < 0) /* nothing there yet: the mount makes an empty directory */
        return errno == ENOENT ? 0 : -1;
    int from = (int)SYS(openat, dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int to = from < 0
                 ? -1
                 : (int)SYS(openat, p->fds[op->fd], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    struct stat st;

    if (to < 0 || copy_dir(from, to, 0) < 0 || SYS(fstat, from, &st) < 0 ||
        copy_owner_and_mode(to, &st) < 0)
        return -1;
    SYS(close, to);
    SYS(close, from);
    SYS(close, dir);
    return 0;
}
