#include "runtime/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <linux/mount.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/idmap.h"
#include "runtime/overlay.h"
#include "runtime/plan.h"
#include "runtime/spec.h"
#include "runtime/user.h"

static int set_attr(int fd, bool recursive, struct mount_attr *attr, struct err *e)
{
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), attr,
                sizeof(*attr)) < 0)
        return err_sys(e, "set mount attributes");
    return 0;
}

int sources_idmap(int mount_fd, int userns_fd, bool recursive, bool *ret_unmappable, struct err *e)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};

    if (syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0),
                &attr, sizeof(attr)) == 0)
        return 0;
    *ret_unmappable = errno == EINVAL || errno == EOPNOTSUPP || errno == EPERM || errno == ENOSYS;
    if (errno == EINVAL)
        return err_sysno(e, EINVAL, "this kernel cannot map ids on its file system");
    return err_sys(e, "map ids");
}

static char *host_path(const struct sources *src, const char *path)
{
    return *path == '/' || !src->bundle ? mem_strdup(path) : mem_printf("%s/%s", src->bundle, path);
}

/* The user namespace for one slot's ids; *ret_close when it is to be closed. */
static int slot_userns(struct sources *src, const struct launch_slot *slot, int fd, bool *ret_close,
                       struct err *e)
{
    const struct ctr_spec *s = src->spec;
    struct ctr_idmaps uids = {0}, gids = {0};
    struct stat st;
    int ns;

    *ret_close = slot->idmap != SLOT_MAP_CONTAINER;
    if (slot->idmap == SLOT_MAP_CONTAINER)
        return src->userns_fd;
    if (slot->idmap == SLOT_MAP_MOUNT)
        return idmap_userns(&s->mounts[slot->mount].uid_maps, &s->mounts[slot->mount].gid_maps, e);
    if (fstat(fd, &st) < 0)
        return err_sys(e, "stat");
    if (st.st_uid == src->user->uid && st.st_gid == src->user->gid) {
        *ret_close = false;
        return src->userns_fd;
    }
    idmap_exchange(&s->uid_maps, st.st_uid, src->user->uid, &uids);
    idmap_exchange(&s->gid_maps, st.st_gid, src->user->gid, &gids);
    ns = idmap_userns(&uids, &gids, e);
    free(uids.items);
    free(gids.items);
    return ns;
}

static int map_ids(struct sources *src, const struct launch_slot *slot, int fd, struct err *e)
{
    bool ours;
    int ns = slot_userns(src, slot, fd, &ours, e);

    if (ns < 0)
        return -1;
    int r = sources_idmap(fd, ns, slot->idmap_recursive, &src->unmappable, e);

    if (ours)
        close(ns);
    return r;
}

static int set_slot_attributes(const struct launch_slot *slot, int fd, struct err *e)
{
    struct mount_attr tree = {.attr_set = slot->rec_set, .attr_clr = slot->rec_clear};
    struct mount_attr top = {.attr_set = slot->set, .attr_clr = slot->clear};
    bool whole = slot->propagation & MS_REC;

    *(whole ? &tree.propagation : &top.propagation) = slot->propagation & ~(uint64_t)MS_REC;
    if ((tree.attr_set || tree.attr_clr || tree.propagation) && set_attr(fd, true, &tree, e) < 0)
        return -1;
    return (top.attr_set || top.attr_clr || top.propagation) ? set_attr(fd, false, &top, e) : 0;
}

static int open_bind(struct sources *src, const struct launch_plan *p,
                     const struct launch_slot *slot, struct err *e)
{
    AUTO_FREE char *path = host_path(src, p->data + slot->source);
    AUTO_CLOSE int fd =
        (int)syscall(SYS_open_tree, AT_FDCWD, path,
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (slot->recursive ? AT_RECURSIVE : 0));
    char shown[STR_SHOW_MAX];

    if (fd < 0)
        return err_sys(e, "bind source %s", str_show(shown, path));
    if ((slot->idmap && map_ids(src, slot, fd, e) < 0) || set_slot_attributes(slot, fd, e) < 0)
        return err_wrap(e, "bind source %s", str_show(shown, path));
    return take_fd(&fd);
}

static uint32_t host_id(const struct ctr_idmaps *m, uint32_t id)
{
    int64_t mapped = m->n ? idmap_host_id(m, id) : (int64_t)id;

    return mapped < 0 ? 0 : (uint32_t)mapped;
}

/* Shares our memory and descriptors; its mount namespace is its own. */
struct node_maker {
    const struct launch_slot *slot;
    uint32_t uid, gid; /* on the host */
    int fd;            /* out */
};

/* Raw system calls only: the parent stands still meanwhile. A mount can be cloned only where it is attached, so it
 * is, in a mount namespace that ends with us. */
static int make_node_there(void *arg)
{
    struct node_maker *m = arg;
    mode_t mode = (m->slot->dev_type == 'b' ? S_IFBLK : S_IFCHR) | m->slot->mode;
    struct mount_attr private_root = {.propagation = MS_PRIVATE};
    int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), mnt = -1;

    if (fs >= 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (mnt >= 0 &&
        syscall(SYS_mknodat, mnt, "n", mode, makedev(m->slot->major, m->slot->minor)) == 0 &&
        syscall(SYS_fchmodat, mnt, "n", m->slot->mode) == 0 &&
        syscall(SYS_fchownat, mnt, "n", m->uid, m->gid, AT_SYMLINK_NOFOLLOW) == 0 &&
        syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &private_root, sizeof(private_root)) == 0 &&
        syscall(SYS_move_mount, mnt, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) == 0)
        m->fd = (int)syscall(SYS_open_tree, mnt, "n", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (mnt >= 0)
        syscall(SYS_close, mnt);
    if (fs >= 0)
        syscall(SYS_close, fs);
    return 0;
}

/* A node of our own making: exactly the device, mode and owner that the spec asks for. -1 where we may not. */
static int make_node(struct sources *src, const struct launch_slot *slot)
{
    enum { STACK = 16384 };
    AUTO_FREE char *stack = mem_alloc(STACK);
    struct node_maker m = {slot, host_id(&src->spec->uid_maps, slot->uid),
                           host_id(&src->spec->gid_maps, slot->gid), -1};
    pid_t pid = clone(make_node_there, stack + STACK,
                      CLONE_NEWNS | CLONE_VM | CLONE_VFORK | CLONE_FILES, &m);

    while (pid > 0 && waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
        ;
    return m.fd;
}

/* Proven before it is used: what somebody may have put at /dev/null of the host is not ours (S35). */
static int open_node(const struct launch_plan *p, const struct launch_slot *slot, struct err *e)
{
    const char *path = p->data + slot->source;
    AUTO_CLOSE int node = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (node < 0 || fstat(node, &st) < 0)
        return err_sys(e, "device %s", path);
    if ((slot->dev_type == 'b' ? !S_ISBLK(st.st_mode) : !S_ISCHR(st.st_mode)) ||
        st.st_rdev != makedev(slot->major, slot->minor))
        return err_set(e, ERR_HOST, "the host's %s is not device %c %u:%u", path, slot->dev_type,
                       slot->major, slot->minor);
    AUTO_CLOSE int fd =
        (int)syscall(SYS_open_tree, node, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "device %s", path);
    return take_fd(&fd);
}

/* The host's own is the cheaper one, and the only one where we may not make nodes. */
static int node(struct sources *src, const struct launch_plan *p, const struct launch_slot *slot,
                struct err *e)
{
    bool plain = slot->mode == 0666 && !slot->uid && !slot->gid;
    AUTO_CLOSE int fd = plain ? open_node(p, slot, e) : make_node(src, slot);

    if (fd < 0 && plain && (fd = make_node(src, slot)) >= 0)
        err_clear(e);
    else if (fd < 0 && !plain)
        fd = open_node(p, slot, e);
    if (fd < 0)
        return -1;
    if (set_slot_attributes(slot, fd, e) < 0)
        return err_wrap(e, "device %s", p->data + slot->source);
    return take_fd(&fd);
}

static int open_cgroup(struct sources *src, const struct launch_slot *slot, struct err *e)
{
    if (src->cgroup_fd < 0)
        return err_set(e, ERR_HOST, "a cgroup mount needs a cgroup");
    AUTO_CLOSE int fd = (int)syscall(SYS_open_tree, src->cgroup_fd, "",
                                     AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return err_sys(e, "bind the cgroup");
    if (set_slot_attributes(slot, fd, e) < 0)
        return -1;
    return take_fd(&fd);
}

int sources_open(struct sources *src, struct launch_plan *p, struct err *e)
{
    for (size_t i = 0; i < p->n_slots; i++) {
        const struct launch_slot *slot = &p->slots[i];

        switch (slot->kind) {
        case SLOT_BIND: p->fds[i] = open_bind(src, p, slot, e); break;
        case SLOT_NODE: p->fds[i] = node(src, p, slot, e); break;
        case SLOT_CGROUP: p->fds[i] = open_cgroup(src, slot, e); break;
        case SLOT_ROOT:
        case SLOT_FS: continue;
        }
        if (p->fds[i] < 0)
            return -1;
    }
    return 0;
}

int sources_root(struct sources *src, struct err *e)
{
    const struct ctr_spec *s = src->spec;

    if (s->overlay_lower.n)
        return overlay_open(s, src->userns_fd, &src->unmappable, e);
    AUTO_FREE char *path = host_path(src, s->root_path);
    AUTO_CLOSE int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
                                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    bool slave = str_eq(s->rootfs_propagation, "slave") || str_eq(s->rootfs_propagation, "rslave");
    struct mount_attr attr = {.propagation = slave ? MS_SLAVE : MS_PRIVATE};

    if (fd < 0)
        return err_sys(e, "root.path %s", path);
    if (set_attr(fd, true, &attr, e) < 0)
        return err_wrap(e, "root.path %s", path);
    return take_fd(&fd);
}
