/*
 * cgroup_live.c - a group that is there: the object, its processes, freeze, kill, wait, remove.
 *
 * All that the shim needs of groups is here: nothing knows a spec, and no path is looked up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/cgroup_own.h"

enum {
    GROUP_DEPTH_MAX = 200, /* groups the container nested; each level holds a descriptor */
    PIDS_MAX = 1 << 22,    /* PID_MAX_LIMIT */
};

int ctr_cgroup_open_dir(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

struct ctr_cgroup *ctr_cgroup_from_fd(int fd, const char *path)
{
    struct ctr_cgroup *cg = mem_new(struct ctr_cgroup);

    cg->fd = fd;
    cg->path = mem_strdup(path);
    for (size_t i = 0; i < CG_N_FILES; i++)
        cg->files[i] = CG_NOT_OPENED;
    return cg;
}

void ctr_cgroup_free(struct ctr_cgroup *cg)
{
    if (!cg)
        return;
    for (size_t i = 0; i < CG_N_FILES; i++)
        close_fd(&cg->files[i]);
    close_fd(&cg->fd);
    free(cg->path);
    free(cg);
}

int ctr_cgroup_fd(const struct ctr_cgroup *cg)
{
    return cg->fd;
}

const char *ctr_cgroup_path(const struct ctr_cgroup *cg)
{
    return cg->path;
}

int ctr_cgroup_add_pid(struct ctr_cgroup *cg, int pid, struct err *e)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", pid);
    if (fd_write_file_at(cg->fd, "cgroup.procs", text, e) == 0)
        return 0;
    if (e->sys == EBUSY)
        return err_set(e, ERR_HOST,
                       "cgroup %s has sub-groups with controllers, so it takes no process",
                       cg->path);
    return err_wrap(e, "cgroup %s", cg->path);
}

/* --- events ------------------------------------------------------------------------------------------ */

/* "populated 1\nfrozen 0\n" -> value of key; a group that is gone has neither. */
static int read_event(int fd, const char *key, bool *ret, const char *path, struct err *e)
{
    char text[256];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n < 0 && errno == ENODEV) {
        *ret = false;
        return 0;
    }
    if (n < 0)
        return err_sys(e, "cgroup %s: read cgroup.events", path);
    text[n] = '\0';
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (str_starts(line, key) && line[strlen(key)] == ' ') {
            *ret = line[strlen(key) + 1] == '1';
            return 0;
        }
    }
    return err_set(e, ERR_HOST, "cgroup %s: cgroup.events has no \"%s\"", path, key);
}

static int open_events(struct ctr_cgroup *cg, struct err *e)
{
    int fd = openat(cg->fd, "cgroup.events", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "cgroup %s: cgroup.events", cg->path) : fd;
}

/* The kernel raises POLLPRI on cgroup.events after each change since the last read. 1 when `key` became `want`, 0 at
 * the deadline. */
static int await_event(struct ctr_cgroup *cg, const char *key, bool want, uint64_t deadline,
                       struct err *e)
{
    AUTO_CLOSE int fd = open_events(cg, e);
    bool now = !want;

    if (fd < 0)
        return e->kind == ERR_ABSENT && !want ? 1 : -1;
    for (;;) {
        if (read_event(fd, key, &now, cg->path, e) < 0)
            return -1;
        if (now == want)
            return 1;
        if (clock_passed(deadline))
            return 0;
        if (fd_wait(fd, POLLPRI, deadline) < 0)
            return err_sys(e, "cgroup %s: wait for cgroup.events", cg->path);
    }
}

int ctr_cgroup_is_populated(struct ctr_cgroup *cg, bool *ret, struct err *e)
{
    AUTO_CLOSE int fd = open_events(cg, e);

    if (fd < 0 && (e->kind == ERR_ABSENT || e->sys == ENODEV)) {
        *ret = false;
        return 0;
    }
    return fd < 0 ? -1 : read_event(fd, "populated", ret, cg->path, e);
}

int ctr_cgroup_is_frozen(struct ctr_cgroup *cg, bool *ret, struct err *e)
{
    AUTO_CLOSE int fd = open_events(cg, e);

    return fd < 0 ? -1 : read_event(fd, "frozen", ret, cg->path, e);
}

int ctr_cgroup_freeze(struct ctr_cgroup *cg, bool frozen, uint64_t timeout_ns, struct err *e)
{
    if (fd_write_file_at(cg->fd, "cgroup.freeze", frozen ? "1" : "0", e) < 0)
        return err_wrap(e, "cgroup %s", cg->path);
    int rc = await_event(cg, "frozen", frozen, clock_in_ns(timeout_ns), e);

    if (rc == 0)
        return err_set(e, ERR_LIMIT, "cgroup %s: not all processes could be %s in time", cg->path,
                       frozen ? "frozen" : "thawed");
    return rc < 0 ? -1 : 0;
}

int ctr_cgroup_kill(struct ctr_cgroup *cg, struct err *e)
{
    if (fd_write_file_at(cg->fd, "cgroup.kill", "1", e) == 0)
        return 0;
    /* Gone already: nobody is left to kill. */
    if (e->sys == ENODEV || (e->sys == ENOENT && faccessat(cg->fd, "cgroup.procs", F_OK, 0) < 0))
        return 0;
    if (e->sys == ENOENT)
        return err_set(e, ERR_HOST, "cgroup.kill is missing; Linux 5.14 or newer is needed");
    return err_wrap(e, "cgroup %s", cg->path);
}

/* --- processes ----------------------------------------------------------------------------------------- */

struct pid_list {
    int *items;
    size_t n, cap;
};

static int read_pids(int dir, struct pid_list *l, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(PIDS_MAX * 8ULL);

    if (fd_read_file_at(dir, "cgroup.procs", &text, e) < 0) {
        /* a threaded sub-group has no processes of its own; a removed one has none at all */
        return e->sys == EOPNOTSUPP || e->sys == ENODEV || e->sys == ENOENT ? 0 : -1;
    }
    for (char *p = text.buf; p && *p; p = strchr(p, '\n') + 1) {
        if (l->n == l->cap) {
            l->cap = l->cap ? l->cap * 2 : 32;
            l->items = mem_realloc(l->items, l->cap, sizeof(int));
        }
        l->items[l->n++] = (int)strtol(p, NULL, 10);
        if (!strchr(p, '\n'))
            break;
    }
    return 0;
}

typedef int group_fn(int dir, int parent, const char *name, unsigned depth, void *arg,
                     struct err *e);

/* Call fn for each direct sub-group. */
static int each_child(int dir, unsigned depth, group_fn *fn, void *arg, struct err *e)
{
    int copy = ctr_cgroup_open_dir(dir, ".");
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    int rc = 0;

    if (depth > GROUP_DEPTH_MAX) {
        rc = err_set(e, ERR_LIMIT, "groups are nested deeper than %d", GROUP_DEPTH_MAX);
    } else if (!d) {
        rc = errno == ENOENT || errno == ENODEV ? 0 : err_sys(e, "list sub-groups");
    }
    while (rc == 0 && d) {
        struct dirent *ent = readdir(d);

        if (!ent)
            break;
        if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
            continue;
        AUTO_CLOSE int child = ctr_cgroup_open_dir(dir, ent->d_name);

        if (child >= 0)
            rc = fn(child, dir, ent->d_name, depth, arg, e);
        else if (errno != ENOENT)
            rc = err_sys(e, "open sub-group %s", ent->d_name);
    }
    if (d)
        closedir(d);
    else if (copy >= 0)
        close(copy);
    return rc;
}

static int pids_below(int dir, int parent UNUSED, const char *name UNUSED, unsigned depth,
                      void *arg, struct err *e)
{
    if (read_pids(dir, arg, e) < 0)
        return -1;
    return each_child(dir, depth + 1, pids_below, arg, e);
}

int ctr_cgroup_pids(struct ctr_cgroup *cg, int **ret, size_t *ret_n, struct err *e)
{
    struct pid_list l = {0};

    if (pids_below(cg->fd, -1, NULL, 0, &l, e) < 0) {
        free(l.items);
        return err_wrap(e, "cgroup %s", cg->path);
    }
    *ret = l.items ? l.items : mem_zalloc(sizeof(int));
    *ret_n = l.n;
    return 0;
}

/* "process 4711 (nfsd, state D)" of somebody who does not die. */
static void describe_process(int pid, char *buf, size_t size)
{
    AUTO_FREE char *path = mem_printf("/proc/%d/stat", pid);
    AUTO(str) struct str text = STR_INIT(4096);
    struct err ignored = ERR_INIT;

    snprintf(buf, size, "process %d", pid);
    if (fd_read_file_at(AT_FDCWD, path, &text, &ignored) < 0)
        return;
    const char *open = strchr(str_text(&text), '('), *close = strrchr(str_text(&text), ')');
    char name[64];

    if (open && close > open && close[1] == ' ')
        snprintf(buf, size, "process %d (%s, state %c)", pid,
                 str_escape(name, sizeof(name), open + 1, (size_t)(close - open - 1)), close[2]);
}

int ctr_cgroup_wait_empty(struct ctr_cgroup *cg, uint64_t timeout_ns, struct err *e)
{
    int rc = await_event(cg, "populated", false, clock_in_ns(timeout_ns), e);
    AUTO_FREE int *pids = NULL;
    size_t n = 0;
    char who[128] = "a process";

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    if (ctr_cgroup_pids(cg, &pids, &n, e) == 0 && n)
        describe_process(pids[0], who, sizeof(who));
    return err_set(e, ERR_LIMIT,
                   "cgroup %s still holds %zu processes that cannot be ended, among them %s",
                   cg->path, n, who);
}

/* --- removing -------------------------------------------------------------------------------------------- */

static int remove_children(int dir, unsigned depth, struct err *e);

static int remove_child(int dir, int parent, const char *name, unsigned depth, void *arg UNUSED,
                        struct err *e)
{
    if (remove_children(dir, depth + 1, e) < 0)
        return -1;
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_sys(e, "remove sub-group %s", name);
    return 0;
}

static int remove_children(int dir, unsigned depth, struct err *e)
{
    return each_child(dir, depth, remove_child, NULL, e);
}

int ctr_cgroup_remove_children(int dir, struct err *e)
{
    return remove_children(dir, 0, e);
}

/* From the directory above it, which the kernel finds for us: the mount need not be looked for. */
int ctr_cgroup_remove(struct ctr_cgroup *cg, struct err *e)
{
    const char *slash = strrchr(cg->path, '/');
    AUTO_CLOSE int parent = ctr_cgroup_open_dir(cg->fd, "..");

    BUG_ON(!slash || !slash[1]);
    if (parent < 0)
        return errno == ENOENT ? 0 : err_sys(e, "cgroup %s: open its parent", cg->path);
    if (remove_children(cg->fd, 0, e) < 0)
        return err_wrap(e, "cgroup %s", cg->path);
    if (unlinkat(parent, slash + 1, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno == EBUSY)
        return err_set(e, ERR_HOST, "cgroup %s still holds processes or sub-groups", cg->path);
    return err_sys(e, "remove cgroup %s", cg->path);
}
