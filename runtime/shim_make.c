/*
 * shim_make.c - the first half of a shim's life: the container is made by a program that has all that takes, and looked
 * after by another one that has little (shim_hand.h). Not a second process: a container's parent is whoever made it.
 */
#include "runtime/shim_make.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/statefile.h"
#include "base/str.h"
#include "runtime/cgroup.h"
#include "runtime/container.h"
#include "runtime/exit.h"
#include "runtime/shim_hand.h"
#include "runtime/shim_log.h"
#include "runtime/shim_proto.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

enum { PEERS_WAITING = 8 };

struct maker {
    const char *id;
    int lock, listener;
    bool locked;
    struct ctr *ctr;
    struct shim_log log;
};

/* Held for our life; nobody waits for it, they only try (shim.c, check_dead). */
static int take_lock(struct maker *m, struct err *e)
{
    m->lock = openat(SHIM_FD_DIR, SHIM_FILE_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (m->lock < 0)
        return err_sys(e, "lock");
    if (flock(m->lock, LOCK_EX | LOCK_NB) < 0)
        return err_sys(e, "another shim looks after %s", m->id);
    m->locked = true;
    return 0;
}

static int listen_control(struct maker *m, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    m->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SHIM_FILE_CONTROL, SHIM_FD_DIR);
    if (m->listener < 0 || bind(m->listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        fchmodat(SHIM_FD_DIR, SHIM_FILE_CONTROL, 0600, 0) < 0 ||
        listen(m->listener, PEERS_WAITING) < 0)
        return err_sys(e, "control socket");
    return 0;
}

static int write_small(const char *name, const char *text, struct err *e)
{
    return statefile_replace(SHIM_FD_DIR, name, text, strlen(text), 0600, false, e);
}

/* The service's own processes sit beside the runs' groups; a daemon may have been started elsewhere. */
static void join_supervisor(const char *cgroup)
{
    static const char runs[] = "/cworker/runs/";
    const char *at = strstr(cgroup, runs);
    AUTO_FREE char *own = NULL;
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;
    struct err ignored = ERR_INIT;

    if (!at || ctr_cgroup_own_path(&own, &ignored) < 0)
        return;
    AUTO_FREE char *path = mem_printf("%.*s/cworker/supervisor", (int)(at - cgroup), cgroup);

    if (!str_eq(own, path) && ctr_cgroup_open(path, &cg, &ignored) == 0 &&
        ctr_cgroup_add_pid(cg, 0, &ignored) < 0)
        err_clear(&ignored); /* the run is none the worse for it */
}

/* What a shim that is killed leaves to find: its pid to show, the group to end. */
static int write_traces(const char *id, const struct ctr_spec *spec, struct err *e)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *pid = mem_printf("%d\n", getpid());

    if (ctr_cgroup_resolve(spec->cgroups_path, id, &path, e) < 0)
        return -1;
    join_supervisor(path);
    return write_small(SHIM_FILE_PID, pid, e) < 0 ? -1 : write_small(SHIM_FILE_CGROUP, path, e);
}

static int read_config(int fd, struct ctr_spec **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);

    if (fd_read_all(fd, &text, e) < 0)
        return err_wrap(e, "config.json");
    return ctr_spec_from_json(str_text(&text), text.len, ret, e);
}

static int create(struct maker *m, int config_fd, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *spec = NULL;
    AUTO_CLOSE int out = -1;

    if (read_config(config_fd, &spec, e) < 0 || write_traces(m->id, spec, e) < 0 ||
        shim_log_open(SHIM_FD_DIR, SHIM_FILE_LOG, &m->log, &out, e) < 0)
        return -1;
    struct ctr_create_opts o = {
        .id = m->id,
        .stdio = {-1, out, out},
        .console_socket = -1,
        .partial_cgroup =
            str_eq(ctr_spec_annotation(spec, CTR_ANNOTATION "cgroup.partial"), "true")};

    return ctr_create(spec, &o, &m->ctr, e);
}

static void free_maker(struct maker *m)
{
    ctr_free(m->ctr);
    shim_log_close(&m->log);
}
DEFINE_AUTO_VALUE(maker, free_maker)

static int hand_over(const struct maker *m, const char *shim, struct err *e)
{
    struct ctr_cgroup *cg = ctr_cgroup_of(m->ctr);
    struct err ignored = ERR_INIT;
    struct shim_hand h = {.pid = ctr_pid(m->ctr)};
    AUTO_CLOSE int netns = ctr_netns(m->ctr, &ignored); /* opened while we still may */
    const int fds[SHIM_FD_END] = {
        [SHIM_FD_LOCK] = m->lock,
        [SHIM_FD_LISTENER] = m->listener,
        [SHIM_FD_INIT] = ctr_pidfd(m->ctr),
        [SHIM_FD_CHANNEL] = ctr_channel(m->ctr),
        [SHIM_FD_CGROUP] = ctr_cgroup_dir(m->ctr),
        [SHIM_FD_NETNS] = netns,
        [SHIM_FD_LOG_PIPE] = m->log.pipe,
        [SHIM_FD_LOG_FILE] = m->log.file,
    };

    snprintf(h.cgroup, sizeof(h.cgroup), "%s", cg ? ctr_cgroup_path(cg) : "");
    snprintf(h.note, sizeof(h.note), "%s", ctr_note(m->ctr) ? ctr_note(m->ctr) : "");
    return shim_hand_over(shim, m->id, &h, fds, e);
}

static int make(struct maker *m, int config, const char *shim, struct err *e)
{
    struct err ignored = ERR_INIT;

    if (shim_hand_reserve(e) < 0 || take_lock(m, e) < 0 || listen_control(m, e) < 0)
        return -1;
    if (shim_msg_hello(SHIM_FD_CONTROL, &ignored) < 0)
        err_clear(&ignored); /* the daemon is gone; a later one may come */
    if (create(m, config, e) < 0)
        return -1;
    (void)!hand_over(m, shim, e);
    if (ctr_delete(m->ctr, true, &ignored) < 0)
        err_clear(&ignored); /* the daemon's clean-up finds the group and says so */
    return -1;
}

/* To the daemon that waits, and to one that comes later. */
static void report(const struct err *why, bool is_ours)
{
    struct shim_msg m = shim_msg_of_error(SHIM_FAILED, why);
    struct exit_record r = {.status = -1,
                            .end_ns = clock_now_ns(),
                            .end_epoch = clock_epoch(),
                            .start_error_kind = (int)why->kind};
    struct err ignored = ERR_INIT;

    snprintf(r.start_error, sizeof(r.start_error), "%s", why->msg);
    if (shim_msg_send(SHIM_FD_CONTROL, &m, NULL, 0, &ignored) < 0)
        err_clear(&ignored);
    if (!is_ours) /* another shim's directory */
        return;
    if (ctr_exit_write(SHIM_FD_DIR, &r, &ignored) < 0)
        err_clear(&ignored);
    unlinkat(SHIM_FD_DIR, SHIM_FILE_CONTROL, 0);
}

int ctr_shim_make(const char *shim, const char *id)
{
    AUTO(maker)
    struct maker m = {.id = id, .lock = -1, .listener = -1, .log = {.pipe = -1, .file = -1}};
    struct err why = ERR_INIT;

    (void)!make(&m, SHIM_FD_CONFIG, shim, &why);
    report(&why, m.locked);
    return 1;
}
