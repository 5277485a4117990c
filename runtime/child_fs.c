#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>

#include "runtime/child.h"
#include "runtime/plan.h"

static const char *text(const struct launch_plan *p, uint32_t at)
{
    return p->data + at;
}

static const char *skip_text(const char *s)
{
    return s + child_strlen(s) + 1;
}

/* Strings as in mount(8)'s -o, one by one. */
static int configure(int fs, const char *s)
{
    while (*s) {
        const char *value = skip_text(s);
        long r = *value ? SYS(fsconfig, fs, FSCONFIG_SET_STRING, s, value, 0)
                        : SYS(fsconfig, fs, FSCONFIG_SET_FLAG, s, 0, 0);

        if (r < 0)
            return -1;
        s = skip_text(value);
    }
    return 0;
}

/* A new file system as a detached mount. */
int child_new_fs(struct launch_plan *p, const struct launch_op *op)
{
    const char *s = text(p, op->a);
    int fs = (int)SYS(fsopen, s, FSOPEN_CLOEXEC);

    if (fs < 0 || configure(fs, skip_text(s)) < 0)
        return -1;
    if (SYS(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0) < 0)
        return -1;
    p->fds[op->fd] = (int)SYS(fsmount, fs, FSMOUNT_CLOEXEC, op->b);
    SYS(close, fs);
    return p->fds[op->fd] < 0 ? -1 : 0;
}

/* On top of the host's root, then pivot_root: the old tree lies on the new root for a moment and is taken off. */
int child_enter_root(struct launch_plan *p, const struct launch_op *op, int *ret_root)
{
    int root = p->fds[op->fd], old = (int)SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);

    if (old < 0 || SYS(move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        SYS(fchdir, root) < 0 || SYS(pivot_root, ".", ".") < 0 || SYS(fchdir, old) < 0 ||
        SYS(umount2, ".", MNT_DETACH) < 0 || SYS(close, old) < 0 || SYS(chdir, "/") < 0)
        return -1;
    *ret_root = (int)SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    return *ret_root < 0 ? -1 : 0;
}

/* In the runtime's own mount namespace: the root lies on its path until the container is deleted. */
int child_chroot(struct launch_plan *p, const struct launch_op *op, int *ret_root)
{
    int root = p->fds[op->fd];

    if (SYS(move_mount, root, "", AT_FDCWD, text(p, op->a), MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        SYS(fchdir, root) < 0 || SYS(chroot, ".") < 0)
        return -1;
    *ret_root = (int)SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    return *ret_root < 0 ? -1 : 0;
}

static int file_kind(int fd, unsigned *ret)
{
    struct stat st;

    if (SYS(fstat, fd, &st) < 0)
        return -1;
    *ret = st.st_mode & S_IFMT;
    return 0;
}

/* fd (a detached mount) onto the opened target. */
static int move_onto(int fd, int target)
{
    return (int)SYS(move_mount, fd, "", target, "",
                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* The target is opened inside the root, proven to be of the source's kind, and mounted by descriptor (S34). */
int child_attach(struct launch_plan *p, const struct launch_op *op, int root)
{
    int fd = p->fds[op->fd], flags = op->flags & OPF_NO_LINKS ? CHILD_NO_LINKS : 0;
    unsigned kind, target_kind;

    if (fd < 0)
        return 0; /* an optional source that the host lacks */
    if (file_kind(fd, &kind) < 0)
        return -1;
    int target = child_open_or_make(root, text(p, op->a), flags, kind == S_IFDIR);

    if (target < 0 || file_kind(target, &target_kind) < 0)
        return -1;
    if ((kind == S_IFDIR) != (target_kind == S_IFDIR)) {
        errno = kind == S_IFDIR ? ENOTDIR : EISDIR;
        return -1;
    }
    if (target_kind == S_IFLNK) {
        errno = ELOOP;
        return -1;
    }
    if (move_onto(fd, target) < 0)
        return -1;
    SYS(close, target);
    if (!op->b)
        return 0;
    struct mount_attr attr = {.propagation = op->b & ~(uint64_t)MS_REC};

    return (int)SYS(mount_setattr, fd, "", AT_EMPTY_PATH | (op->b & MS_REC ? AT_RECURSIVE : 0),
                    &attr, sizeof(attr));
}

int child_mknod(struct launch_plan *p, const struct launch_op *op, int root)
{
    struct plan_node n;
    const char *name;
    struct stat st;

    __builtin_memcpy(&n, text(p, op->b), sizeof(n));
    int dir = child_open_parent(root, text(p, op->a), 0, &name);
    dev_t dev = makedev(n.major, n.minor);

    if (dir < 0)
        return -1;
    bool is_new = SYS(mknodat, dir, name, n.mode, dev) == 0;

    if (!is_new && errno != EEXIST)
        return -1;
    /* What was there already must be the very node (S35). */
    if (SYS(newfstatat, dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if ((st.st_mode & S_IFMT) != (n.mode & S_IFMT) ||
        (!S_ISFIFO(st.st_mode) && st.st_rdev != dev)) {
        errno = EEXIST;
        return -1;
    }
    if (is_new && (n.uid || n.gid) &&
        SYS(fchownat, dir, name, n.uid, n.gid, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    SYS(close, dir);
    return 0;
}

int child_symlink(struct launch_plan *p, const struct launch_op *op, int root)
{
    const char *name;
    int dir = child_open_parent(root, text(p, op->a), 0, &name);

    if (dir < 0)
        return -1;
    long r = SYS(symlinkat, text(p, op->b), dir, name);

    if (r < 0 && errno == EEXIST)
        r = 0;
    int why = errno;

    SYS(close, dir);
    errno = why;
    return (int)r;
}

/* Beneath a proc that we mounted ourselves, without links and without leaving it (S03). */
int child_write_proc(struct launch_plan *p, const struct launch_op *op, const char *dir,
                     const char *file, const char *value)
{
    struct open_how how = {.flags = O_WRONLY | O_CLOEXEC | O_NOCTTY,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    int at = (int)SYS(openat, p->fds[op->fd], dir, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    int fd = at < 0 ? -1 : (int)SYS(openat2, at, file, &how, sizeof(how));

    if (fd < 0 || SYS(write, fd, value, child_strlen(value)) < 0)
        return -1;
    SYS(close, fd);
    SYS(close, at);
    return 0;
}

/* What hides directories: one empty read-only tmpfs, attached first where it is first needed, then cloned. */
static int mask_dir(int target)
{
    static int empty = -1;

    if (empty >= 0) {
        int clone =
            (int)SYS(open_tree, empty, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

        return clone < 0 || move_onto(clone, target) < 0 || SYS(close, clone) < 0 ? -1 : empty;
    }
    int fs = (int)SYS(fsopen, "tmpfs", FSOPEN_CLOEXEC);

    if (fs < 0 || SYS(fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", "1", 0) < 0 ||
        SYS(fsconfig, fs, FSCONFIG_SET_STRING, "mode", "0555", 0) < 0 ||
        SYS(fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0) < 0)
        return -1;
    empty = (int)SYS(fsmount, fs, FSMOUNT_CLOEXEC,
                     MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    SYS(close, fs);
    return empty < 0 || move_onto(empty, target) < 0 ? -1 : empty;
}

/* The parent proved the node to be 1:3; clones of it hide files. */
static int mask_file(int null_node, int target)
{
    static bool attached;

    if (!attached) {
        attached = true;
        return move_onto(null_node, target) < 0 ? -1 : null_node;
    }
    int clone =
        (int)SYS(open_tree, null_node, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return clone < 0 || move_onto(clone, target) < 0 || SYS(close, clone) < 0 ? -1 : null_node;
}

/* Hide, then look from outside that what is there now is ours (S36). */
int child_mask(struct launch_plan *p, const struct launch_op *op, int root)
{
    int target = child_open(root, text(p, op->a), 0);
    struct stat ours, there;
    unsigned kind;

    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    if (file_kind(target, &kind) < 0)
        return -1;
    int mask = kind == S_IFDIR ? mask_dir(target) : mask_file(p->fds[op->fd], target);

    if (mask < 0)
        return -1;
    SYS(close, target);
    int now = child_open(root, text(p, op->a), 0);

    if (now < 0 || SYS(fstat, now, &there) < 0 || SYS(fstat, mask, &ours) < 0)
        return -1;
    SYS(close, now);
    if (there.st_dev != ours.st_dev || there.st_ino != ours.st_ino) {
        errno = ESTALE;
        return -1;
    }
    return 0;
}

int child_readonly(struct launch_plan *p, const struct launch_op *op, int root)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int target = child_open(root, text(p, op->a), 0);

    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    int clone = (int)SYS(open_tree, target, "",
                         AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (clone < 0 ||
        SYS(mount_setattr, clone, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0 ||
        move_onto(clone, target) < 0)
        return -1;
    SYS(close, clone);
    SYS(close, target);
    return 0;
}

int child_setattr(const char *path, int root, unsigned long long set,
                  unsigned long long propagation)
{
    struct mount_attr attr = {.attr_set = set,
                              .propagation = propagation & ~(unsigned long long)MS_REC};
    int fd = path[1] ? child_open(root, path, 0) : root;

    if (fd < 0)
        return -1;
    long r = SYS(mount_setattr, fd, "", AT_EMPTY_PATH | (propagation & MS_REC ? AT_RECURSIVE : 0),
                 &attr, sizeof(attr));

    if (fd != root)
        SYS(close, fd);
    return (int)r;
}

int child_make_dir(const char *path, int root)
{
    int fd = child_open_or_make(root, path, 0, 1);

    return fd < 0 ? -1 : (int)SYS(close, fd);
}

static int change(int fd, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = propagation};

    return !set && !clear && !propagation
               ? 0
               : (int)SYS(mount_setattr, fd, "", AT_EMPTY_PATH | flags, &attr, sizeof(attr));
}

/* The mount that is there gets other attributes, and its file system other options. */
int child_remount(struct launch_plan *p, const struct launch_op *op, int root)
{
    struct plan_remount r;
    int fd = child_open(root, text(p, op->a), 0);

    __builtin_memcpy(&r, text(p, op->b), sizeof(r));
    uint64_t whole = r.propagation & MS_REC ? r.propagation & ~(uint64_t)MS_REC : 0;

    if (fd < 0 || change(fd, AT_RECURSIVE, r.rec_set, r.rec_clear, whole) < 0 ||
        change(fd, 0, r.set, r.clear, whole ? 0 : r.propagation) < 0)
        return -1;
    if (r.data) {
        int fs = (int)SYS(fspick, fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);

        if (fs < 0 || configure(fs, text(p, r.data)) < 0 ||
            SYS(fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) < 0)
            return -1;
        SYS(close, fs);
    }
    SYS(close, fd);
    return 0;
}

/* Never through /proc/self/fd (CVE-2024-21626); then the kernel itself says that we are inside (S33). */
int child_chdir(const char *path, int root)
{
    char where[4096];
    int fd = child_open_or_make(root, path, 0, 1);

    if (fd < 0 || SYS(fchdir, fd) < 0)
        return -1;
    SYS(close, fd);
    if (SYS(getcwd, where, sizeof(where)) < 0)
        return -1;
    if (where[0] != '/') {
        errno = EXDEV;
        return -1;
    }
    return 0;
}

/* Send the master; the other end keeps the terminal alive. */
static int send_master(int sock, int master)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    static const char name[] = "/dev/ptmx";
    struct iovec iov = {(void *)name, sizeof(name) - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};

    control.align = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    __builtin_memcpy(CMSG_DATA(&control.align), &master, sizeof(int));
    return SYS(sendmsg, sock, &msg, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int number_text(char *dst, unsigned n)
{
    char reversed[12];
    int len = 0;

    do {
        reversed[len++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    for (int i = 0; i < len; i++)
        dst[i] = reversed[len - 1 - i];
    dst[len] = '\0';
    return len;
}

/* The pts node as /dev/console, proven to be the terminal we made (CVE-2025-52565). */
static int bind_console(int devpts, int slave, unsigned number, const char *path, int root)
{
    struct stat ours, there;
    char name[12];

    number_text(name, number);
    int node = (int)SYS(open_tree, devpts, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (node < 0 || SYS(fstat, slave, &ours) < 0 || SYS(fstat, node, &there) < 0)
        return -1;
    if (ours.st_rdev != there.st_rdev || ours.st_ino != there.st_ino || !S_ISCHR(there.st_mode)) {
        errno = ESTALE;
        return -1;
    }
    int target = child_open_or_make(root, path, CHILD_NO_LINKS, 0);

    return target < 0 || move_onto(node, target) < 0 || SYS(close, target) < 0 ||
                   SYS(close, node) < 0
               ? -1
               : 0;
}

int child_open_devpts(struct launch_plan *p, const struct launch_op *op, int root)
{
    struct statfs fs;
    int fd = child_open(root, "dev/pts", 0);

    if (fd < 0 || SYS(fstatfs, fd, &fs) < 0)
        return -1;
    if (fs.f_type != DEVPTS_SUPER_MAGIC) {
        errno = ESTALE;
        return -1;
    }
    p->fds[op->fd] = fd;
    return 0;
}

int child_console(struct launch_plan *p, const struct launch_op *op, int root)
{
    struct winsize size = {.ws_row = (unsigned short)(op->b >> 16),
                           .ws_col = (unsigned short)op->b};
    int devpts = p->fds[op->fd], zero = 0;
    unsigned number = 0;
    int master = (int)SYS(openat, devpts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0);

    if (master < 0 || SYS(ioctl, master, TIOCSPTLCK, &zero) < 0 ||
        SYS(ioctl, master, TIOCGPTN, &number) < 0)
        return -1;
    int slave = (int)SYS(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (slave < 0 || ((size.ws_row || size.ws_col) && SYS(ioctl, slave, TIOCSWINSZ, &size) < 0))
        return -1;
    if (root >= 0 && *text(p, op->a) &&
        bind_console(devpts, slave, number, text(p, op->a), root) < 0)
        return -1;
    if (p->console_fd >= 0 && send_master(p->console_fd, master) < 0)
        return -1;
    SYS(close, master);
    if (SYS(ioctl, slave, TIOCSCTTY, 0) < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (SYS(dup3, slave, i, 0) < 0)
            return -1;
    return 0;
}
