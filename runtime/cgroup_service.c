/*
 * cgroup_service.c - the worker's own part of the tree: <base>/cworker/{supervisor,runs}.
 *
 * The order matters: a group with processes of its own cannot hand controllers down (cgroup-v2.rst, "No Internal Process
 * Constraint"), so we first step into supervisor, then controllers are handed down and libcgroup makes `runs`.
 */
#include <errno.h>
#include <fcntl.h>
#include <libcgroup.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"
#include "runtime/cgroup.h"
#include "runtime/spec.h"

#define SUPERVISOR "/cworker/supervisor"
#define RUNS       "/cworker/runs"

/*
 * Other processes in the very group we would split (not below it: those are runs): never moved, so they are in the way. The
 * root group may keep its own.
 */
static int refuse_strangers(const char *base, struct err *e)
{
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    AUTO(str) struct str text = STR_INIT(1 << 20);
    AUTO(str_list) struct str_list pids = {0};
    AUTO_FREE char *self = mem_printf("%d", (int)getpid());

    if (!*base)
        return 0;
    if (ctr_cgroup_open(base, &cg, e) < 0 ||
        fd_read_file_at(ctr_cgroup_fd(cg), "cgroup.procs", &text, e) < 0)
        return -1;
    str_list_split(&pids, str_text(&text), '\n');
    for (size_t i = 0; i < pids.n; i++)
        if (*pids.items[i] && !str_eq(pids.items[i], self))
            return err_set(
                e, ERR_HOST,
                "cgroup %s holds other processes (%s for one), so it cannot be divided among runs: start the worker "
                "as a service with Delegate=yes, or name a group of its own with --cgroup-parent",
                base, pids.items[i]);
    return 0;
}

/*
 * Without any controller handed down on the way: while we are in the base, those that know threads (cpu, pids, cpuset) would
 * be, which makes it the root of a threaded tree that takes no process below it, and so keeps us where we are.
 */
static int step_aside(const char *base, struct err *e)
{
    AUTO_FREE char *mount = NULL, *path = mem_printf("%s" SUPERVISOR, base);
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;

    if (ctr_cgroup_mount_point(&mount, e) < 0)
        return -1;
    AUTO_FREE char *directory = mem_printf("%s%s", mount, path);

    if (path_mkdirs(directory, 0755, e) < 0 || ctr_cgroup_open(path, &cg, e) < 0)
        return -1;
    return ctr_cgroup_add_pid(cg, 0, e);
}

static int refused(int code, const char *what, const char *path, struct err *e)
{
    const char *text = code == ECGOTHER ? strerror(cgroup_get_last_errno()) : cgroup_strerror(code);

    return err_set(e, ERR_HOST, "cgroup %s: %s: %s", path, what, text);
}

/*
 * The group `runs` with every controller, by libcgroup; which hands controllers down from the first group below the root
 * only, so where the root itself hands down less (systemd: no cpuset, unless a unit asks) it fails: we do that first.
 */
static int make_runs(const char *runs, struct err *e)
{
    static const char *const controllers[] = {"cpuset", "cpu", "memory", "pids", "io"};

    if (ctr_cgroup_hand_down(runs, e) < 0)
        return -1;
    int code = cgroup_init();

    if (code)
        return refused(code, "look at the hierarchies", runs, e);
    struct cgroup *cg = cgroup_new_cgroup(runs + 1);

    if (!cg)
        return err_set(e, ERR_HOST, "cgroup %s: out of memory", runs);
    for (size_t i = 0; i < ARRAY_SIZE(controllers) && !code; i++)
        if (!cgroup_add_controller(cg, controllers[i]))
            code = cgroup_get_last_errno() ? ECGOTHER : ECGINVAL;
    if (!code)
        code = cgroup_create_cgroup(cg, 1);
    cgroup_free(&cg);
    return code ? refused(code, "make it with cpuset, cpu, memory, pids and io", runs, e) : 0;
}

static int make_partial_runs(const char *runs, struct err *e)
{
    static const struct ctr_resources nothing = {.memory_swap_limit = INT64_MIN};
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err absent = ERR_INIT;

    return ctr_cgroup_open(runs, &cg, &absent) == 0
               ? 0
               : ctr_cgroup_create(runs, &nothing, true, &cg, e);
}

static int check(const char *runs, struct err *e)
{
    unsigned have = 0;
    char names[64];

    if (ctr_cgroup_controllers(runs, &have, e) < 0)
        return -1;
    unsigned missing = (CTR_CG_CPUSET | CTR_CG_MEMORY | CTR_CG_PIDS) & ~have;

    return missing ? err_set(e, ERR_HOST, "cgroup %s: no %s controller", runs,
                             ctr_cgroup_controller_names(missing, names))
                   : 0;
}

int ctr_cgroup_service_open(const char *base, bool partial, char **ret_runs, struct err *e)
{
    AUTO_FREE char *own = NULL, *runs = NULL;

    if (ctr_cgroup_own_path(&own, e) < 0)
        return -1;
    if (!base && str_ends(own, SUPERVISOR)) { /* a restart: we are where we belong */
        own[strlen(own) - strlen(SUPERVISOR)] = '\0';
    } else {
        AUTO_FREE char *start = own;

        own = mem_strdup(base ? base : start);
        if (str_eq(own, "/"))
            own[0] = '\0';
        /* A base that somebody made for the runs is divided, but we stay where our service manager put us. */
        if (refuse_strangers(own, e) < 0 || (!base && step_aside(own, e) < 0))
            return err_wrap(e, "set up the worker's control groups");
    }
    runs = mem_printf("%s" RUNS, own);
    if ((partial ? make_partial_runs(runs, e) : make_runs(runs, e)) < 0 ||
        (!partial && check(runs, e) < 0))
        return err_wrap(e, "set up the worker's control groups");
    *ret_runs = take_ptr(&runs);
    return 0;
}

static uint64_t memory_max_of(const char *path)
{
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    AUTO(str) struct str text = STR_INIT(64);
    struct err ignored = ERR_INIT;
    uint64_t bytes;

    if (ctr_cgroup_open(path, &cg, &ignored) < 0 ||
        fd_read_file_at(ctr_cgroup_fd(cg), "memory.max", &text, &ignored) < 0)
        return UINT64_MAX;
    AUTO_FREE char *word = mem_strndup(str_text(&text), strcspn(str_text(&text), "\n"));

    return units_u64(word, UINT64_MAX, &bytes, &ignored) < 0 ? UINT64_MAX
                                                             : bytes; /* "max" is no number */
}

uint64_t ctr_cgroup_memory_allowed(const char *path)
{
    AUTO_FREE char *group = mem_strdup(path);
    uint64_t least = UINT64_MAX;

    for (char *slash; (slash = strrchr(group, '/')) && slash[1]; *slash = '\0') {
        uint64_t here = memory_max_of(group);

        if (here < least)
            least = here;
    }
    return least;
}

/* Another worker may share the subtree and have made a group for its next run just now, which nobody is in yet: so a group with
 * groups in it stays. */
int ctr_cgroup_service_close(const char *runs, struct err *e)
{
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err absent = ERR_INIT;

    if (ctr_cgroup_open(runs, &cg, &absent) < 0)
        return 0;
    AUTO_CLOSE int parent =
        openat(ctr_cgroup_fd(cg), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (parent < 0 || (unlinkat(parent, strrchr(runs, '/') + 1, AT_REMOVEDIR) < 0 &&
                       errno != EBUSY && errno != ENOTEMPTY && errno != ENOENT))
        return err_sys(e, "remove cgroup %s", runs);
    return 0;
}
