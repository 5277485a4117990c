/*
 * cgroup.c - one group: opened by its path, made with limits, changed. What is done to a living one: cgroup_live.c.
 *
 * Everything is done relative to the group's directory descriptor, so that a group removed and made again by
 * somebody else under the same name is never touched by mistake: files of a removed group answer ENODEV.
 */
#include "runtime/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bounds.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/cgroup_limits.h"
#include "runtime/cgroup_own.h"
#include "runtime/spec.h"

/* --- opening ----------------------------------------------------------------------------------- */

static int open_root(char **ret_point, struct err *e)
{
    AUTO_FREE char *point = NULL;

    if (ctr_cgroup_mount_point(&point, e) < 0)
        return -1;
    int fd = ctr_cgroup_open_dir(AT_FDCWD, point);

    if (fd < 0)
        return err_sys(e, "open %s", point);
    if (ret_point)
        *ret_point = take_ptr(&point);
    return fd;
}

int ctr_cgroup_open(const char *path, struct ctr_cgroup **ret, struct err *e)
{
    AUTO_CLOSE int root = open_root(NULL, e);

    if (root < 0)
        return -1;
    int fd = ctr_cgroup_open_dir(root, path[1] ? path + 1 : ".");

    if (fd < 0)
        return err_sys(e, "cgroup %s", path);
    *ret = ctr_cgroup_from_fd(fd, path);
    return 0;
}

/* --- controllers on the way down ----------------------------------------------------------------- */

static int read_mask(int dir, const char *file, unsigned *ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(4096);

    if (fd_read_file_at(dir, file, &text, e) < 0)
        return -1;
    *ret = ctr_cgroup_limits_mask(str_text(&text));
    return 0;
}

int ctr_cgroup_controllers(const char *path, unsigned *ret, struct err *e)
{
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;

    if (ctr_cgroup_open(path, &cg, e) < 0)
        return -1;
    return read_mask(cg->fd, "cgroup.controllers", ret, e);
}

static int explain_enable(struct err *e, int sys, const char *name, const char *path)
{
    switch (sys) {
    case EBUSY:
        return err_set(
            e, ERR_HOST,
            "cgroup %s cannot pass on the %s controller: it has processes of its own; move "
            "them to a sub-group, or use another parent group",
            path, name);
    case EACCES:
    case EPERM:
    case EROFS:
        return err_set(
            e, ERR_HOST,
            "cgroup %s is not ours to change (%s); have it delegated (systemd: Delegate=yes)", path,
            strerror(sys));
    case EOPNOTSUPP:
        return err_set(e, ERR_HOST, "cgroup %s is threaded and cannot pass on the %s controller",
                       path, name);
    default: return err_sysno(e, sys, "cgroup %s: enable the %s controller", path, name);
    }
}

/* Let children of `dir` have the controllers: those in `must` or fail, those in `may` if it can be done. */
static int enable(int dir, const char *path, unsigned must, unsigned may, struct err *e)
{
    unsigned have = 0, given = 0;

    if (read_mask(dir, "cgroup.subtree_control", &given, e) < 0)
        return err_wrap(e, "cgroup %s", path);
    if (((must | may) & ~given) == 0)
        return 0;
    if (read_mask(dir, "cgroup.controllers", &have, e) < 0)
        return err_wrap(e, "cgroup %s", path);
    for (unsigned bit = 1; bit <= CTR_CG_LAST; bit <<= 1) {
        struct err ignored = ERR_INIT;
        char text[24];

        if (!((must | may) & ~given & bit))
            continue;
        if (!(have & bit)) {
            if (must & bit)
                return err_set(
                    e, ERR_HOST,
                    "cgroup %s has no %s controller: the host mounts it as version 1, or a "
                    "parent group does not pass it on (see `cwrun doctor`)",
                    path, ctr_cgroup_limits_name(bit));
            continue;
        }
        snprintf(text, sizeof(text), "+%s", ctr_cgroup_limits_name(bit));
        if (fd_write_file_at(dir, "cgroup.subtree_control", text, &ignored) < 0 && (must & bit))
            return explain_enable(e, ignored.sys, ctr_cgroup_limits_name(bit), path);
    }
    return 0;
}

/* Walk from the root to the parent of `path`, making what is missing, enabling controllers at each step. Returns the
 * parent's descriptor. */
static int walk_down(int root, const char *path, unsigned must, unsigned may, struct err *e)
{
    AUTO_CLOSE int dir = fd_dup(root);
    const char *part = path + 1;

    if (dir < 0)
        return err_sys(e, "cgroup %s", path);
    for (;;) {
        AUTO_FREE char *here = mem_strndup(path, part == path + 1 ? 1 : (size_t)(part - path - 1));
        const char *slash = strchr(part, '/');

        if (enable(dir, here, must, may, e) < 0)
            return -1;
        if (!slash)
            return take_fd(&dir);
        AUTO_FREE char *name = mem_strndup(part, (size_t)(slash - part));

        if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
            return err_sys(e, "make cgroup %s/%s", here, name);
        int next = ctr_cgroup_open_dir(dir, name);

        if (next < 0)
            return err_sys(e, "open cgroup %s/%s", here, name);
        close_fd(&dir);
        dir = next;
        part = slash + 1;
    }
}

/* The usual case is one open and one read: the parent is there and passes on all that is needed. */
static int open_parent(int root, const char *path, unsigned must, unsigned may, struct err *e)
{
    const char *slash = strrchr(path, '/');
    AUTO_FREE char *name =
        slash == path ? mem_strdup(".") : mem_strndup(path + 1, (size_t)(slash - path - 1));
    AUTO_CLOSE int dir = ctr_cgroup_open_dir(root, name);
    unsigned given = 0;

    if (dir < 0 && errno != ENOENT)
        return err_sys(e, "open cgroup /%s", name);
    if (dir >= 0 && read_mask(dir, "cgroup.subtree_control", &given, e) == 0 &&
        ((must | may) & ~given) == 0)
        return take_fd(&dir);
    return walk_down(root, path, must, may, e);
}

int ctr_cgroup_hand_down(const char *path, struct err *e)
{
    AUTO_CLOSE int root = open_root(NULL, e);

    if (root < 0)
        return -1;
    AUTO_CLOSE int parent =
        open_parent(root, path, CTR_CG_CPUSET | CTR_CG_MEMORY | CTR_CG_PIDS, CTR_CG_WANTED, e);

    return parent < 0 ? -1 : 0;
}

/* --- limits ---------------------------------------------------------------------------------------- */

/* The writes of a value with several lines (io.max of several disks) are one each. */
static int write_lines(int fd, const char *value)
{
    while (*value) {
        size_t n = strcspn(value, "\n");

        if (n && write(fd, value, n) < 0)
            return -1;
        value += n + (value[n] == '\n');
    }
    return 0;
}

static bool host_has_swap(void)
{
    AUTO(str) struct str text = STR_INIT(64 * BOUND_KIB);
    struct err ignored = ERR_INIT;

    if (fd_read_file_at(AT_FDCWD, "/proc/swaps", &text, &ignored) < 0)
        return false;
    const char *line = strchr(str_text(&text), '\n');

    return line && line[1];
}

/* A file that is not there: a missing controller, or a missing feature of it. */
static int explain_missing(const struct ctr_cgroup *cg, const struct ctr_cgroup_write *w,
                           bool partial, struct err *e)
{
    unsigned controller = ctr_cgroup_limits_controller(w->file);
    unsigned have = 0;

    if (partial && controller)
        return 0;
    if (read_mask(cg->fd, "cgroup.controllers", &have, e) < 0)
        return -1;
    if (controller && !(have & controller))
        return err_set(
            e, ERR_HOST,
            "%s cannot be set: cgroup %s has no %s controller; the host mounts it as version 1, "
            "or a parent group does not pass it on (see `cwrun doctor`)",
            w->file, cg->path, ctr_cgroup_limits_name(controller));
    if (str_eq(w->file, "memory.swap.max"))
        return host_has_swap()
                   ? err_set(e, ERR_HOST,
                             "memory.swap.max cannot be set: the kernel does not account "
                             "swap; boot with swapaccount=1, or turn swap off")
                   : 0;
    return err_set(e, ERR_HOST, "%s cannot be set: this kernel has no such control group file",
                   w->file);
}

static int explain_write(struct err *e, int sys, const struct ctr_cgroup *cg,
                         const struct ctr_cgroup_write *w)
{
    if (sys == EINVAL || sys == ERANGE || sys == EDOM)
        return err_set(e, ERR_USER, "%s of cgroup %s: the kernel refuses \"%.100s\"", w->file,
                       cg->path, w->value);
    if (sys == ENODEV && str_starts(w->file, "io."))
        return err_set(e, ERR_USER, "%s: \"%.100s\" names a disk this host does not have", w->file,
                       w->value);
    if (sys == EBUSY && str_eq(w->file, "memory.max"))
        return err_set(e, ERR_USER, "memory.max: the processes hold more than %s bytes", w->value);
    return err_sysno(e, sys, "cgroup %s: write \"%.100s\" to %s", cg->path, w->value, w->file);
}

static int apply(struct ctr_cgroup *cg, const struct ctr_cgroup_limits *l, bool partial,
                 struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        AUTO_CLOSE int fd = openat(cg->fd, l->items[i].file, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 && errno == ENOENT) {
            if (explain_missing(cg, &l->items[i], partial, e) < 0)
                return -1;
            continue;
        }
        if (fd < 0 || write_lines(fd, l->items[i].value) < 0)
            return explain_write(e, errno, cg, &l->items[i]);
    }
    return 0;
}

/* memory.checkBeforeUpdate: a limit below what is in use would kill (runtime-spec config-linux.md). */
static int check_memory(struct ctr_cgroup *cg, const struct ctr_resources *r, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(64);

    if (!r->check_before_update || r->memory_limit <= 0)
        return 0;
    if (fd_read_file_at(cg->fd, "memory.current", &text, e) < 0)
        return err_wrap(e, "memory.checkBeforeUpdate");
    if (strtoull(str_text(&text), NULL, 10) > (uint64_t)r->memory_limit)
        return err_set(e, ERR_USER, "memory.limit: %.*s bytes are in use",
                       (int)strcspn(str_text(&text), "\n"), str_text(&text));
    return 0;
}

int ctr_cgroup_update(struct ctr_cgroup *cg, const struct ctr_resources *r, struct err *e)
{
    AUTO(ctr_cgroup_limits) struct ctr_cgroup_limits l = {0};

    if (ctr_cgroup_limits_of(r, &l, e) < 0 || check_memory(cg, r, e) < 0)
        return -1;
    return apply(cg, &l, false, e);
}

/* --- making ---------------------------------------------------------------------------------------- */

/* A group of this name that holds nobody is a leftover: it is made anew, so that its counters start at 0. */
static int replace_leftover(int parent, const char *name, const char *path, struct err *e)
{
    AUTO_CLOSE int old = ctr_cgroup_open_dir(parent, name);

    if (old < 0)
        return err_sys(e, "cgroup %s", path);
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = ctr_cgroup_from_fd(take_fd(&old), path);
    bool populated = false;

    if (ctr_cgroup_is_populated(cg, &populated, e) < 0)
        return -1;
    if (populated)
        return err_set(e, ERR_USER, "cgroup %s is in use: it holds processes", path);
    if (ctr_cgroup_remove_children(cg->fd, e) < 0)
        return err_wrap(e, "cgroup %s", path);
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(e, "remove the leftover cgroup %s", path);
    if (mkdirat(parent, name, 0755) < 0)
        return err_sys(e, "make cgroup %s", path);
    return 0;
}

/* Each takes some calls and is lost only while somebody is at it: who loses them all has an enemy, not bad luck. */
enum { PARENT_ATTEMPTS = 1000 };

static int make_group(int parent, const char *path, struct ctr_cgroup **ret, struct err *e)
{
    const char *name = strrchr(path, '/') + 1;

    if (mkdirat(parent, name, 0755) < 0) {
        if (errno == EAGAIN)
            return err_set(e, ERR_LIMIT, "cgroup %s: a parent allows no more groups (cgroup.max.*)",
                           path);
        if (errno != EEXIST)
            return err_sys(e, "make cgroup %s", path);
        if (replace_leftover(parent, name, path, e) < 0)
            return -1;
    }
    int fd = ctr_cgroup_open_dir(parent, name);

    if (fd < 0) {
        err_sys(e, "open cgroup %s", path);
        unlinkat(parent, name, AT_REMOVEDIR);
        return -1;
    }
    *ret = ctr_cgroup_from_fd(fd, path);
    return 0;
}

int ctr_cgroup_create(const char *path, const struct ctr_resources *r, bool partial,
                      struct ctr_cgroup **ret, struct err *e)
{
    AUTO(ctr_cgroup_limits) struct ctr_cgroup_limits l = {0};
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    AUTO_CLOSE int root = -1;
    AUTO_CLOSE int parent = -1;

    BUG_ON(path[0] != '/' || !path[1]);
    if (ctr_cgroup_limits_of(r, &l, e) < 0 || (root = open_root(NULL, e)) < 0)
        return -1;
    /* Figures and the cause of death need memory, cpu and pids even where no limit is set. The parent may be taken down under
     * our hands by the last one who was in it; then it is made once more. */
    for (int attempt = 0; !cg; attempt++) {
        close_fd(&parent);
        parent = open_parent(root, path, partial ? 0 : l.controllers, CTR_CG_WANTED, e);
        if (parent >= 0 && make_group(parent, path, &cg, e) == 0)
            break;
        if ((e->sys != ENOENT && e->sys != ENODEV) || attempt == PARENT_ATTEMPTS)
            return -1;
    }
    err_clear(e);
    if (apply(cg, &l, partial, e) < 0) {
        unlinkat(parent, strrchr(path, '/') + 1, AT_REMOVEDIR);
        return -1;
    }
    *ret = take_ptr(&cg);
    return 0;
}
