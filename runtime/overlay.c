#include "runtime/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/mount.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/str.h"
#include "runtime/idmap.h"
#include "runtime/sources.h"
#include "runtime/spec.h"

/* Our place before we went to the workshop. */
struct workshop {
    int ns, root, cwd;
};

static void leave(struct workshop *w)
{
    if (w->ns >= 0) {
        /* setns moved root and directory to the top of the namespace; both must be as before, or we cannot go on. */
        BUG_ON(setns(w->ns, CLONE_NEWNS) < 0);
        BUG_ON(fchdir(w->root) < 0 || chroot(".") < 0 || fchdir(w->cwd) < 0);
    }
    close_fd(&w->ns);
    close_fd(&w->root);
    close_fd(&w->cwd);
}
DEFINE_AUTO_VALUE(workshop, leave)

/* An empty tmpfs of ours is the current directory, in a mount namespace of our own. */
static int enter(struct workshop *w, struct err *e)
{
    struct mount_attr slave = {.propagation = MS_SLAVE};
    AUTO_CLOSE int ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);

    w->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    w->cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (ns < 0 || w->root < 0 || w->cwd < 0)
        return err_sys(e, "hold our place");
    if (unshare(CLONE_NEWNS) < 0)
        return err_sys(e, "make a mount namespace");
    w->ns = take_fd(&ns);
    if (syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &slave, sizeof(slave)) < 0)
        return err_sys(e, "keep mounts to ourselves");
    AUTO_CLOSE int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);

    if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return err_sys(e, "make a tmpfs");
    AUTO_CLOSE int top =
        (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);

    if (top < 0 || syscall(SYS_move_mount, top, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        fchdir(top) < 0)
        return err_sys(e, "attach a tmpfs");
    return 0;
}

/* The host directory `path`, idmapped, as directory `name` of the workshop. */
static int attach(const char *path, const char *name, int userns_fd, bool *unmappable,
                  struct err *e)
{
    AUTO_CLOSE int fd =
        (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "layer %s", path);
    if (userns_fd >= 0 && sources_idmap(fd, userns_fd, false, unmappable, e) < 0)
        return err_wrap(e, "layer %s", path);
    if (mkdir(name, 0700) < 0 ||
        syscall(SYS_move_mount, fd, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_sys(e, "attach layer %s", path);
    return 0;
}

/* A work directory that was used by a volatile mount is refused for ever, by a mark in it. */
static void remove_work(int dir)
{
    static const char *const names[] = {"work/work/incompat/volatile", "work/work/incompat",
                                        "work/work", "work"};

    unlinkat(dir, "work/work/incompat/volatile/dirty", 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        unlinkat(dir, names[i], AT_REMOVEDIR);
}

static void remove_dirs(const char *overlay_dir)
{
    AUTO_CLOSE int dir = open(overlay_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return;
    remove_work(dir);
    unlinkat(dir, "upper", AT_REMOVEDIR);
}

/* "upper" and "work", owned by the container's root. */
static int make_dirs(const struct ctr_spec *s, bool mapped, struct err *e)
{
    static const char *const names[] = {"upper", "work"};
    AUTO_CLOSE int dir = open(s->overlay_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t uid = mapped ? idmap_host_id(&s->uid_maps, 0) : 0,
            gid = mapped ? idmap_host_id(&s->gid_maps, 0) : 0;

    if (dir < 0)
        return err_sys(e, "%s", s->overlay_dir);
    remove_work(dir);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (mkdirat(dir, names[i], 0755) < 0 && errno != EEXIST)
            return err_sys(e, "make %s/%s", s->overlay_dir, names[i]);
        if (fchownat(dir, names[i], uid < 0 ? 0 : (uid_t)uid, gid < 0 ? 0 : (gid_t)gid,
                     AT_SYMLINK_NOFOLLOW) < 0)
            return err_sys(e, "own %s/%s", s->overlay_dir, names[i]);
    }
    return 0;
}

/* redirect_dir and metacopy would let attributes in a layer point elsewhere (S26). volatile: the root is thrown
 * away, so nothing of it need reach the disk. */
static int mount_layers(size_t n, const char *upper, const char *source, unsigned long flags,
                        struct err *e)
{
    AUTO(str) struct str data = STR_INIT(4095);

    if (str_appendf(&data, "%sredirect_dir=nofollow,metacopy=off,index=off,lowerdir=", upper) < 0)
        return err_set(e, ERR_BUG, "overlay options");
    for (size_t i = 0; i < n; i++)
        if (str_appendf(&data, i ? ":%zu" : "%zu", i) < 0)
            return err_set(e, ERR_LIMIT, "%zu layers are too many", n);
    if (mkdir("m", 0700) < 0 || mount(source, "m", "overlay", flags, str_text(&data)) < 0)
        return err_sys(e, "mount the overlay of %zu layers", n);
    return 0;
}

static int build(const struct ctr_spec *s, int userns_fd, bool *unmappable, struct err *e)
{
    AUTO(workshop) struct workshop w = {-1, -1, -1};
    char name[24];

    if (enter(&w, e) < 0)
        return err_wrap(e, "prepare the root");
    for (size_t i = 0; i < s->overlay_lower.n; i++) {
        snprintf(name, sizeof(name), "%zu", i);
        if (attach(s->overlay_lower.items[i], name, userns_fd, unmappable, e) < 0)
            return -1;
    }
    if (attach(s->overlay_dir, "u", -1, unmappable, e) < 0 ||
        mount_layers(s->overlay_lower.n, "upperdir=u/upper,workdir=u/work,volatile,", "overlay", 0,
                     e) < 0)
        return -1;
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return fd < 0 ? err_sys(e, "take the root") : fd;
}

int overlay_open(const struct ctr_spec *s, int userns_fd, bool *ret_unmappable, struct err *e)
{
    if (s->overlay_lower.n > BOUND_LAYERS)
        return err_set(e, ERR_LIMIT, "%zu layers: the kernel takes %d", s->overlay_lower.n,
                       BOUND_LAYERS);
    int fd = make_dirs(s, userns_fd >= 0, e) < 0 ? -1 : build(s, userns_fd, ret_unmappable, e);

    if (fd < 0)
        remove_dirs(s->overlay_dir);
    return fd;
}

int overlay_view(const struct str_list *lower, const char *source, struct err *e)
{
    AUTO(workshop) struct workshop w = {-1, -1, -1};
    size_t n = lower->n;
    bool unmappable = false;
    char name[24];

    if (n > BOUND_LAYERS)
        return err_set(e, ERR_LIMIT, "%zu layers: the kernel takes %d", n, BOUND_LAYERS);
    if (enter(&w, e) < 0)
        return err_wrap(e, "prepare the view");
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%zu", i);
        if (attach(lower->items[i], name, -1, &unmappable, e) < 0)
            return -1;
    }
    /* One layer alone is no overlay to the kernel: an empty one goes below. */
    for (; n < 2; n++) {
        snprintf(name, sizeof(name), "%zu", n);
        if (mkdir(name, 0755) < 0)
            return err_sys(e, "make an empty layer");
    }
    if (mount_layers(n, "", source, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, e) < 0)
        return -1;
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return fd < 0 ? err_sys(e, "take the view") : fd;
}
