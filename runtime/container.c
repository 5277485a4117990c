/* container.c - create: everything is made ready, in an order that can be undone at each step. */
#include "runtime/container.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "runtime/cgroup.h"
#include "runtime/container_own.h"
#include "runtime/devfilter.h"
#include "runtime/enter.h"
#include "runtime/idmap.h"
#include "runtime/mounts.h"
#include "runtime/netdev.h"
#include "runtime/rdt.h"
#include "runtime/seccomp.h"
#include "runtime/sources.h"
#include "runtime/spec.h"
#include "runtime/state.h"
#include "runtime/user.h"

/* --- create ---------------------------------------------------------------------------------------------- */

/* What create makes on the way, besides the container. */
struct making {
    struct ctr_seccomp filter;
    struct ctr_user user;
    struct sources src;
    struct launch_plan *plan;
    char *root_path;
    int root, listener;
};

static void free_making(struct making *m)
{
    ctr_seccomp_free(&m->filter);
    ctr_user_free(&m->user);
    launch_plan_free(m->plan);
    free(m->root_path);
    close_fd(&m->src.userns_fd);
    close_fd(&m->root);
    close_fd(&m->listener);
}
DEFINE_AUTO_VALUE(making, free_making)

static void add_note(struct ctr *c, const char *what, const struct err *why)
{
    char *old = c->note;

    c->note =
        old ? mem_printf("%s; %s: %s", old, what, why->msg) : mem_printf("%s: %s", what, why->msg);
    free(old);
}

static bool has_selinux(void)
{
    struct statfs fs;

    return statfs("/sys/fs/selinux", &fs) == 0 && fs.f_type == SELINUX_MAGIC;
}

/* What the specification has runtimes accept although it changes nothing here. */
static void note_what_means_nothing(struct ctr *c, const struct ctr_spec *s)
{
    struct err why = ERR_INIT;

    if (s->mount_label && !has_selinux()) {
        err_set(&why, ERR_HOST, "this host has no SELinux");
        add_note(c, "linux.mountLabel is without effect", &why);
    }
    for (size_t i = 0; i < s->n_mounts; i++) {
        const char *option = mounts_option_of_no_effect(&s->mounts[i]);
        AUTO_FREE char *where = mem_printf("mounts[%zu]", i);

        if (!option)
            continue;
        err_set(&why, ERR_USER, "option %s means nothing to a bind", option);
        add_note(c, where, &why);
    }
    if (s->uid_maps.n && ctr_spec_namespace(s, "user", NULL) == 1) {
        err_set(&why, ERR_USER, "those of the user namespace that is joined count");
        add_note(c, "linux.uidMappings, gidMappings", &why);
    }
}

static int make_cgroup(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                       struct err *e)
{
    AUTO_FREE char *path = NULL;

    if (ctr_cgroup_resolve(s->cgroups_path, o->id, &path, e) < 0 ||
        ctr_cgroup_create(path, &s->resources, o->partial_cgroup, &c->cgroup, e) < 0)
        return -1;
    return 0;
}

/* Something is to be done while the child waits, before it has children of its own. */
static bool has_hooks(const struct ctr_spec *s)
{
    return s->rdt.set || hooks_has(s->hooks, "prestart") || hooks_has(s->hooks, "createRuntime") ||
           hooks_has(s->hooks, "createContainer");
}

int ctr_exec_at(pid_t pid, int pidfd, int cgroup_fd, const struct ctr_spec *spec,
                const struct ctr_exec_opts *o, pid_t *ret_pid, int *ret_pidfd, struct err *e)
{
    const struct enter_target t = {
        .pid = pid, .pidfd = pidfd, .cgroup_fd = cgroup_fd, .spec = spec};

    return enter_exec(&t, o, ret_pid, ret_pidfd, e);
}

static char *root_text(const struct ctr_spec *s, const char *bundle)
{
    if (!s->root_path)
        return mem_strdup(s->overlay_dir);
    return s->root_path[0] == '/' || !bundle ? mem_strdup(s->root_path)
                                             : mem_printf("%s/%s", bundle, s->root_path);
}

/* Everything that needs the user namespace's maps; again without one when ids cannot be mapped. */
static int prepare(const struct ctr_spec *s, const struct ctr_create_opts *o, bool userns,
                   struct making *m, struct err *e)
{
    const char *joined = NULL;

    if (userns && ctr_spec_namespace(s, "user", &joined) == 1) {
        m->src.userns_fd = open(joined, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (m->src.userns_fd < 0)
            return err_sys(e, "linux.namespaces: user namespace %s", joined);
    } else if (userns && (m->src.userns_fd = idmap_userns(&s->uid_maps, &s->gid_maps, e)) < 0) {
        m->src.unmappable = true;
        return -1;
    }
    if ((m->root = sources_root(&m->src, e)) < 0)
        return -1;
    if (ctr_user_resolve(m->root, &s->process, &m->user, e) < 0)
        return err_wrap(e, "process.user");
    struct plan_input in = {.user = &m->user,
                            .seccomp = &m->filter,
                            .user_namespace = userns,
                            .hooks = has_hooks(s),
                            .selinux = has_selinux(),
                            .root_path = m->root_path,
                            .preserve_fds = o->preserve_fds};

    if (plan_build(s, &in, &m->plan, e) < 0)
        return -1;
    m->plan->fds[0] = take_fd(&m->root);
    return sources_open(&m->src, m->plan, e);
}

static void forget(struct making *m)
{
    ctr_user_free(&m->user);
    launch_plan_free(m->plan);
    m->plan = NULL;
    close_fd(&m->src.userns_fd);
    close_fd(&m->root);
}

static int prepare_either(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                          struct making *m, bool *ret_userns, struct err *e)
{
    bool userns = ctr_spec_namespace(s, "user", NULL) >= 0;

    *ret_userns = userns;
    m->src = (struct sources){.spec = s,
                              .user = &m->user,
                              .bundle = o->bundle,
                              .cgroup_fd = ctr_cgroup_dir(c),
                              .userns_fd = -1};
    if (prepare(s, o, userns, m, e) == 0)
        return 0;
    if (!userns || !m->src.unmappable || !s->userns_optional)
        return -1;
    add_note(c, "no user namespace", e);
    err_clear(e);
    forget(m);
    *ret_userns = false;
    return prepare(s, o, false, m, e);
}

static void fill_info(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o)
{
    c->info.id = mem_strdup(o->id);
    c->info.bundle = mem_strdup(o->bundle ? o->bundle : "/");
    c->info.rootfs = root_text(s, o->bundle);
    c->info.cgroup = c->cgroup ? mem_strdup(ctr_cgroup_path(c->cgroup)) : NULL;
    c->info.created = state_now();
    c->info.oci_version = mem_strdup(s->oci_version);
    c->info.status = CTR_CREATING;
}

static int move_net_devices(const struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    AUTO_CLOSE int netns = s->n_net_devices ? ctr_netns(c, e) : -1;

    for (size_t i = 0; i < s->n_net_devices; i++)
        if (netns < 0 || netdev_move(&s->net_devices[i], netns, e) < 0)
            return -1;
    return 0;
}

/*
 * What needs the container's process or its group, but not what the child is doing: it is done while the child mounts. The
 * device filter is in force before anything that is not ours runs in the group, hooks included.
 */
static int work_beside(struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    if (ctr_devfilter_attach(ctr_cgroup_fd(c->cgroup), s->resources.devices, s->resources.n_devices,
                             false, e) < 0 ||
        move_net_devices(c, s, e) < 0)
        return -1;
    return c->state_dir < 0 ? 0 : state_write_spec(c->state_dir, s, e);
}

static int save(struct ctr *c, struct err *e)
{
    struct ctr_state st = {.id = c->info.id,
                           .bundle = c->info.bundle,
                           .cgroup = c->info.cgroup,
                           .created = c->info.created,
                           .rootfs = c->info.rootfs,
                           .pid = c->launch.pid};

    if (c->state_dir < 0)
        return 0;
    st.start_time = c->start_time = state_start_time(c->launch.pid);
    return state_write(c->state_dir, &st, e);
}

static int run_early_hooks(struct ctr *c, const struct ctr_spec *s, struct err *e)
{
    if (!has_hooks(s))
        return 0;
    AUTO_FREE char *state = NULL;

    if (launch_expect(&c->launch, LAUNCH_HOOKS, e) < 0)
        return -1;
    if (rdt_place(NULL, &s->rdt, c->id, c->launch.pid, e) < 0)
        return -1;
    struct hooks_inside inside = ctr_inside(c);

    c->info.pid = c->launch.pid;
    c->info.spec = NULL;
    /* The environment is there (step 2 of the lifecycle), and that is what "created" means. */
    c->info.status = CTR_CREATED;
    c->hooks_ran = true;
    state = ctr_state_text(&c->info, s);
    if (hooks_run(s->hooks, "prestart", state, NULL, e) < 0 ||
        hooks_run(s->hooks, "createRuntime", state, NULL, e) < 0 ||
        hooks_run(s->hooks, "createContainer", state, &inside, e) < 0)
        return -1;
    c->info.status = CTR_CREATING;
    return launch_go(&c->launch, e);
}

/* Where our command line lies (fields 48 and 49 of stat): an init wipes it. */
static void find_command_line(struct launch_plan *p)
{
    char buf[2048];
    unsigned long long start = 0, end = 0;
    AUTO_CLOSE int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : fd_read_full(fd, buf, sizeof(buf) - 1);

    if (n <= 0)
        return;
    buf[n] = '\0';
    char *at = strrchr(buf, ')');

    for (int field = 2; at && field < 48; field++)
        at = strchr(at + 1, ' ');
    if (at && sscanf(at, " %llu %llu", &start, &end) == 2 && start < end) {
        p->arg_start = start;
        p->arg_end = end;
    }
}

static uint64_t mount_of(const char *path)
{
    struct statx st = {0};

    return path && statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) == 0
               ? st.stx_mnt_id
               : 0;
}

static int create(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                  struct err *e)
{
    AUTO(making) struct making m = {.root = -1, .listener = -1, .src.userns_fd = -1};
    bool userns;

    if (ctr_seccomp_for_spec(s, CTR_SECCOMP_CACHE, &m.filter, e) < 0)
        return -1;
    if (m.filter.listener && !o->state_root)
        return err_set(e, ERR_USER, "linux.seccomp.listenerPath: not for a bundle's run");
    if (o->state_root && ((c->state_dir = state_make_dir(o->state_root, o->id, e)) < 0 ||
                          (!o->start_here && (m.listener = state_listen(c->state_dir, e)) < 0)))
        return -1;
    m.root_path = root_text(s, o->bundle);
    note_what_means_nothing(c, s);
    if (make_cgroup(c, s, o, e) < 0 || prepare_either(c, s, o, &m, &userns, e) < 0)
        return -1;
    struct launch_opts lo = {.cgroup_fd = ctr_cgroup_dir(c),
                             .stdio = {o->stdio[0], o->stdio[1], o->stdio[2]},
                             .start_fd = m.listener,
                             .console_fd = o->console_socket,
                             .user_namespace = userns,
                             .partial_cgroup = o->partial_cgroup};

    fill_info(c, s, o);
    c->root_mount = mount_of(c->info.rootfs);
    if (s->init)
        find_command_line(m.plan);
    if (launch_start(s, m.plan, &lo, &c->launch, e) < 0 || work_beside(c, s, e) < 0 ||
        run_early_hooks(c, s, e) < 0 || launch_expect(&c->launch, LAUNCH_READY, e) < 0 ||
        save(c, e) < 0)
        return -1;
    c->info.pid = c->launch.pid;
    c->info.status = CTR_CREATED;
    return 0;
}

/* Nothing may stay behind (S08). What goes wrong here changes nothing about the error that brought us. */
static void undo_create(struct ctr *c, const struct ctr_spec *s, const struct ctr_create_opts *o,
                        bool own_state)
{
    struct err ignored = ERR_INIT;

    launch_abort(&c->launch);
    rdt_remove(NULL, &s->rdt, c->id);
    if (c->root_mount && mount_of(c->info.rootfs) != c->root_mount)
        ctr_take_off_root(c, s);
    if (c->cgroup && (ctr_cgroup_kill(c->cgroup, &ignored) < 0 ||
                      ctr_cgroup_wait_empty(c->cgroup, KILL_WAIT_NS, &ignored) < 0 ||
                      ctr_cgroup_remove(c->cgroup, &ignored) < 0))
        err_clear(&ignored);
    if (own_state && state_remove(o->state_root, o->id, &ignored) < 0)
        err_clear(&ignored);
    if (c->hooks_ran)
        ctr_run_poststop(c, s);
}

int ctr_create(const struct ctr_spec *spec, const struct ctr_create_opts *o, struct ctr **ret,
               struct err *e)
{
    AUTO(ctr) struct ctr *c = ctr_new(o->id, o->state_root);

    if (!ctr_is_id(o->id))
        return err_set(e, ERR_USER,
                       "container id: 1 to %d of [A-Za-z0-9_+.-], not beginning with '-' or '.'",
                       ID_MAX);
    if (ctr_spec_validate(spec, e) < 0)
        return -1;
    c->created_here = true;
    c->start_here = o->start_here;
    if (create(c, spec, o, e) < 0) {
        undo_create(c, spec, o, c->state_dir >= 0);
        return -1;
    }
    *ret = take_ptr(&c);
    return 0;
}
