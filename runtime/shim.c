/*
 * shim.c - the daemon's end of cwshim. The protocol is drawn in shim_proto.h.
 *
 * The shim is no child of ours for long (it forks once and its first process ends), so that a daemon that restarts
 * leaves no difference behind. It is held by the pidfd it sends, never by number; that also is the event of its end.
 */
#include "runtime/shim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/statefile.h"
#include "base/str.h"
#include "base/tree.h"
#include "runtime/cgroup.h"
#include "runtime/container.h"
#include "runtime/shim_proto.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

#define CREATE_TIMEOUT_NS (60 * NS_PER_S)
#define ANSWER_TIMEOUT_NS (10 * NS_PER_S)
#define DIE_TIMEOUT_NS    (5 * NS_PER_S)

struct ctr_shim {
    int control, pidfd, netns;
    pid_t pid; /* of the init */
    bool started;
    struct ctr_cgroup *cgroup; /* NULL: the container has none */
};

static struct ctr_shim *shim_new(void)
{
    struct ctr_shim *s = mem_new(struct ctr_shim);

    s->control = s->pidfd = s->netns = -1;
    return s;
}

void ctr_shim_free(struct ctr_shim *s)
{
    if (!s)
        return;
    close_fd(&s->control);
    close_fd(&s->pidfd);
    close_fd(&s->netns);
    ctr_cgroup_free(s->cgroup);
    free(s);
}

int ctr_shim_fd(const struct ctr_shim *s)
{
    return s->pidfd;
}

int ctr_shim_netns(const struct ctr_shim *s)
{
    return s->netns;
}

pid_t ctr_shim_pid(const struct ctr_shim *s)
{
    return s->pid;
}

bool ctr_shim_is_started(const struct ctr_shim *s)
{
    return s->started;
}

/* --- talking --------------------------------------------------------------------------------------- */

/* One message within the time; its descriptors in fds. ERR_LIMIT too late, ERR_ABSENT the shim has ended. */
static int receive(struct ctr_shim *s, struct shim_msg *m, int *fds, size_t *n_fds,
                   uint64_t deadline, struct err *e)
{
    int rc = fd_wait(s->control, POLLIN, deadline);

    if (rc < 0)
        return err_sys(e, "wait for the shim");
    if (rc == 0)
        return err_set(e, ERR_LIMIT, "the shim does not answer in time");
    rc = shim_msg_recv(s->control, m, fds, n_fds, e);
    if (rc == 0 || (rc < 0 && e->sys == ECONNRESET))
        return err_set(e, ERR_ABSENT, "the shim has ended");
    return rc < 0 ? -1 : 0;
}

static int unexpected(const struct shim_msg *m, struct err *e)
{
    return err_set(e, ERR_HOST, "shim: unexpected message %u", m->type);
}

static int take_hello(struct ctr_shim *s, uint64_t deadline, struct err *e)
{
    struct shim_msg m;
    int fds[1];
    size_t n = ARRAY_SIZE(fds);

    if (receive(s, &m, fds, &n, deadline, e) < 0)
        return -1;
    if (n == 1)
        s->pidfd = fds[0];
    return m.type == SHIM_HELLO && n == 1 ? 0 : unexpected(&m, e);
}

static int take_state(struct ctr_shim *s, uint64_t deadline, struct err *e)
{
    struct shim_msg m;
    int fds[2];
    size_t n = ARRAY_SIZE(fds), at = 0;

    if (receive(s, &m, fds, &n, deadline, e) < 0)
        return -1;
    if (m.type == SHIM_STATE && m.flags & SHIM_HAS_NETNS && at < n)
        s->netns = fds[at++];
    if (m.type == SHIM_STATE && m.flags & SHIM_HAS_CGROUP && at < n)
        s->cgroup = ctr_cgroup_from_fd(fds[at++], "of the run");
    while (at < n)
        close_fd(&fds[at++]);
    if (m.type == SHIM_FAILED)
        return shim_msg_error(&m, e);
    if (m.type != SHIM_STATE)
        return unexpected(&m, e);
    s->pid = m.a;
    s->started = m.b;
    return 0;
}

static int request(struct ctr_shim *s, enum shim_msg_type type, int a, struct err *e)
{
    struct shim_msg m = shim_msg_make(type, a, 0, NULL);

    if (shim_msg_send(s->control, &m, NULL, 0, e) < 0)
        return e->sys == EPIPE || e->sys == ECONNRESET
                   ? err_set(e, ERR_ABSENT, "the shim has ended")
                   : -1;
    if (receive(s, &m, NULL, NULL, clock_in_ns(ANSWER_TIMEOUT_NS), e) < 0)
        return -1;
    if (m.type == SHIM_FAILED || m.type == SHIM_ERROR)
        return shim_msg_error(&m, e);
    return m.type == SHIM_OK ? 0 : unexpected(&m, e);
}

int ctr_shim_start(struct ctr_shim *s, struct err *e)
{
    if (request(s, SHIM_START, 0, e) < 0)
        return -1;
    s->started = true;
    return 0;
}

int ctr_shim_kill(struct ctr_shim *s, int signal, struct err *e)
{
    return request(s, SHIM_KILL, signal, e);
}

int ctr_shim_stats(struct ctr_shim *s, struct ctr_stats *ret, struct err *e)
{
    struct ctr_cgroup_stats c;

    if (!s->cgroup)
        return err_set(e, ERR_ABSENT, "the container has no cgroup");
    if (ctr_cgroup_stats(s->cgroup, &c, e) < 0)
        return -1;
    *ret = (struct ctr_stats){.cpu_usage_us = c.cpu_usage_us,
                              .user_us = c.cpu_user_us,
                              .system_us = c.cpu_system_us,
                              .memory_current = c.memory_current,
                              .memory_peak = c.memory_peak,
                              .oom_kills = c.oom_kills,
                              .pids_current = c.pids_current,
                              .io_read_bytes = c.io_read_bytes,
                              .io_write_bytes = c.io_write_bytes,
                              .cpu_throttled_us = c.cpu_throttled_us,
                              .cpu_stall_us = c.cpu_stall_us,
                              .memory_stall_us = c.memory_stall_us,
                              .io_stall_us = c.io_stall_us};
    return 0;
}

/* --- the runtime directory ----------------------------------------------------------------------------- */

static int open_runtime_dir(const char *runtime_dir, struct err *e)
{
    int fd = open(runtime_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "open %s", runtime_dir) : fd;
}

static int open_run_dir(const char *runtime_dir, const char *id, struct err *e)
{
    if (!ctr_is_id(id))
        return err_set(e, ERR_USER, "\"%.100s\" is no container id", id);
    AUTO_CLOSE int top = open_runtime_dir(runtime_dir, e);

    if (top < 0)
        return -1;
    int fd = openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? err_sys(e, "open %s/%s", runtime_dir, id) : fd;
}

static int make_run_dir(const char *runtime_dir, const char *id, struct err *e)
{
    if (!ctr_is_id(id))
        return err_set(e, ERR_USER, "\"%.100s\" is no container id", id);
    if (path_mkdirs(runtime_dir, 0700, e) < 0)
        return -1;
    AUTO_CLOSE int top = open_runtime_dir(runtime_dir, e);

    if (top < 0)
        return -1;
    if (mkdirat(top, id, 0700) < 0) {
        if (errno != EEXIST)
            return err_sys(e, "make %s/%s", runtime_dir, id);
        /* a leftover is taken away; a run that lives is an error */
        if (ctr_shim_cleanup(runtime_dir, id, e) < 0)
            return -1;
        if (mkdirat(top, id, 0700) < 0)
            return err_sys(e, "make %s/%s", runtime_dir, id);
    }
    return openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* --- spawn ----------------------------------------------------------------------------------------------- */

/* cwrt makes the container and becomes the shim. It lies beside it (a build tree), or where programs are installed. */
static int find_maker(const char *shim, char **ret, struct err *e)
{
    static const char *const places[] = {"cwrt", "../../bin/cwrt"};
    const char *slash = strrchr(shim, '/');
    int dir = slash ? (int)(slash - shim) : 1;

    if (access(shim, X_OK) < 0)
        return err_sys(e, "start %s", shim);
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        AUTO_FREE char *path = mem_printf("%.*s/%s", dir, slash ? shim : ".", places[i]);

        if (access(path, X_OK) == 0) {
            *ret = take_ptr(&path);
            return 0;
        }
    }
    return err_set(e, ERR_ABSENT,
                   "start %s: there is no cwrt beside it, nor at ../../bin/cwrt from there", shim);
}

/* Start the program; it forks, and the first process ends at once, so there is nothing to reap later. */
static int spawn(const struct ctr_shim_opts *o, int config, int dir, int control, struct err *e)
{
    AUTO_FREE char *maker = NULL;
    const int fds[SHIM_N_FDS] = {-1, -1, -1, config, dir, control};

    if (find_maker(o->shim_path, &maker, e) < 0)
        return -1;
    char *const argv[] = {(char *)"cwrt", (char *)"shim", (char *)o->shim_path, (char *)o->id,
                          NULL};
    AUTO_CLOSE int first = proc_spawn(maker, argv, NULL, fds, SHIM_N_FDS, NULL, e);
    siginfo_t info = {0};

    if (first < 0)
        return err_wrap(e, "start %s", maker);
    if (fd_wait(first, POLLIN, clock_in_ns(CREATE_TIMEOUT_NS)) != 1)
        return err_set(e, ERR_HOST, "%s does not start", maker);
    if (waitid(P_PIDFD, (id_t)first, &info, WEXITED) < 0)
        return err_sys(e, "wait for %s", maker);
    if (info.si_code != CLD_EXITED || info.si_status != 0)
        return err_set(e, ERR_HOST, "%s ended with %d", maker, info.si_status);
    return 0;
}

static int spawn_and_wait(const struct ctr_shim_opts *o, const char *config, int dir,
                          struct ctr_shim *s, struct err *e)
{
    AUTO_CLOSE int memfd = fd_memfd("config.json", config, strlen(config), e);
    uint64_t deadline =
        clock_in_ns(o->create_timeout_ns ? o->create_timeout_ns : CREATE_TIMEOUT_NS);
    int pair[2];

    if (memfd < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, "connection to the shim");
    s->control = pair[0];
    AUTO_CLOSE int theirs = pair[1];

    if (spawn(o, memfd, dir, theirs, e) < 0)
        return -1;
    close_fd(&theirs);
    if (take_hello(s, deadline, e) < 0)
        return -1;
    if (take_state(s, deadline, e) < 0)
        return e->kind == ERR_LIMIT
                   ? err_set(e, ERR_LIMIT, "the container could not be created in time")
                   : -1;
    return 0;
}

/* The shim made no container: end it, and wait shortly until its lock is free. */
static void end_failed(struct ctr_shim *s)
{
    if (s->pidfd < 0)
        return;
    if (fd_wait(s->pidfd, POLLIN, clock_in_ns(NS_PER_S)) == 1)
        return;
    syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
    fd_wait(s->pidfd, POLLIN, clock_in_ns(DIE_TIMEOUT_NS));
}

int ctr_shim_spawn(const struct ctr_shim_opts *o, const struct ctr_spec *spec,
                   struct ctr_shim **ret, struct err *e)
{
    AUTO(ctr_shim) struct ctr_shim *s = shim_new();
    AUTO_FREE char *config = ctr_spec_to_json(spec);
    AUTO_CLOSE int dir = make_run_dir(o->runtime_dir, o->id, e);

    if (dir < 0)
        return -1;
    if (statefile_replace(dir, SHIM_FILE_CONFIG, config, strlen(config), 0600, false, e) < 0 ||
        spawn_and_wait(o, config, dir, s, e) < 0) {
        struct err ignored = ERR_INIT;

        end_failed(s);
        (void)!ctr_shim_cleanup(o->runtime_dir, o->id, &ignored);
        return -1;
    }
    *ret = take_ptr(&s);
    return 0;
}

/* --- adopt --------------------------------------------------------------------------------------------------- */

static int connect_control(int dir, struct err *e)
{
    AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (sock < 0)
        return err_sys(e, "socket");
    /* by descriptor: the path of the directory may be longer than an address takes */
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SHIM_FILE_CONTROL, dir);
    if (connect(sock, (struct sockaddr *)&a, sizeof(a)) == 0)
        return take_fd(&sock);
    if (errno == ENOENT || errno == ECONNREFUSED)
        return err_set(e, ERR_ABSENT, "no shim lives");
    return err_sys(e, "connect to the shim");
}

static int ask(struct ctr_shim *s, struct err *e)
{
    struct shim_msg m = shim_msg_make(SHIM_ASK, 0, 0, NULL);
    uint64_t deadline = clock_in_ns(ANSWER_TIMEOUT_NS);

    if (shim_msg_send(s->control, &m, NULL, 0, e) < 0)
        return e->sys == EPIPE || e->sys == ECONNRESET
                   ? err_set(e, ERR_ABSENT, "the shim has ended")
                   : -1;
    return take_hello(s, deadline, e) < 0 ? -1 : take_state(s, deadline, e);
}

int ctr_shim_adopt(const char *runtime_dir, const char *id, struct ctr_shim **ret, struct err *e)
{
    AUTO(ctr_shim) struct ctr_shim *s = shim_new();
    AUTO_CLOSE int dir = open_run_dir(runtime_dir, id, e);

    if (dir < 0 || (s->control = connect_control(dir, e)) < 0 || ask(s, e) < 0)
        return -1;
    *ret = take_ptr(&s);
    return 0;
}

int ctr_shim_cgroup(const struct ctr_shim *s)
{
    return s->cgroup ? ctr_cgroup_fd(s->cgroup) : -1;
}

int ctr_shim_open_init(const struct ctr_shim *s, struct err *e)
{
    AUTO(ctr_shim) struct ctr_shim *again = shim_new();
    AUTO_CLOSE int pidfd = fd_pidfd_open(s->pid);

    if (pidfd < 0)
        return err_set(e, ERR_ABSENT, "the container has ended");
    /* On the same connection: who holds one of a few and waits for a second one waits for others who do the same. */
    again->control = s->control;
    int rc = ask(again, e);

    again->control = -1;
    if (rc < 0)
        return -1;
    if (again->pid != s->pid || fd_wait(pidfd, POLLIN, 0) != 0)
        return err_set(e, ERR_ABSENT, "the container has ended");
    return take_fd(&pidfd);
}

/* --- what is left ---------------------------------------------------------------------------------------------- */

char *ctr_shim_log(const char *runtime_dir, const char *id)
{
    AUTO(str) struct str text = STR_INIT(2 * BOUND_CTR_STDERR);
    struct err ignored = ERR_INIT;
    AUTO_CLOSE int dir = open_run_dir(runtime_dir, id, &ignored);

    if (dir >= 0 && fd_read_file_at(dir, SHIM_FILE_LOG, &text, &ignored) < 0)
        str_clear(&text);
    return str_take(&text);
}

/* End and remove the group a dead shim left. */
static int remove_group(int dir, struct err *e)
{
    AUTO(str) struct str path = STR_INIT(BOUND_PATH);
    AUTO(ctr_cgroup) struct ctr_cgroup *cg = NULL;

    if (fd_read_file_at(dir, SHIM_FILE_CGROUP, &path, e) < 0)
        return e->kind == ERR_ABSENT ? 0 : -1;
    if (str_text(&path)[0] != '/' || !str_text(&path)[1])
        return 0;
    if (ctr_cgroup_open(str_text(&path), &cg, e) < 0)
        return e->kind == ERR_ABSENT ? 0 : -1;
    if (ctr_cgroup_kill(cg, e) < 0 || ctr_cgroup_wait_empty(cg, DIE_TIMEOUT_NS, e) < 0)
        return -1;
    return ctr_cgroup_remove(cg, e);
}

/* A shim lives as long as it holds the lock. */
static int check_dead(int dir, const char *id, struct err *e)
{
    AUTO_CLOSE int lock = openat(dir, SHIM_FILE_LOCK, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    if (lock < 0)
        return errno == ENOENT ? 0 : err_sys(e, "open the lock of %s", id);
    if (flock(lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(e, ERR_LIMIT, "container %s is still looked after by its shim", id);
    return err_sys(e, "lock of %s", id);
}

int ctr_shim_cleanup(const char *runtime_dir, const char *id, struct err *e)
{
    AUTO_CLOSE int dir = open_run_dir(runtime_dir, id, e);

    if (dir < 0)
        return e->kind == ERR_ABSENT ? 0 : -1;
    if (check_dead(dir, id, e) < 0 || remove_group(dir, e) < 0)
        return -1;
    AUTO_CLOSE int top = open_runtime_dir(runtime_dir, e);

    return top < 0 ? -1 : tree_remove_at(top, id, e);
}

int ctr_shim_list(const char *runtime_dir, struct str_list *ret, struct err *e)
{
    AUTO_CLOSE int top = open_runtime_dir(runtime_dir, e);

    if (top < 0)
        return e->kind == ERR_ABSENT ? 0 : -1;
    DIR *d = fdopendir(top);

    if (!d)
        return err_sys(e, "list %s", runtime_dir);
    take_fd(&top);
    for (struct dirent *ent; (ent = readdir(d));)
        if (ent->d_type == DT_DIR && ctr_is_id(ent->d_name))
            str_list_add(ret, ent->d_name);
    closedir(d);
    return 0;
}

int ctr_shim_find(const char *given, char **ret, struct err *e)
{
    static const char *const places[] = {"cwshim", "../libexec/cworker/cwshim"};
    AUTO_FREE char *path = mem_strdup(given ? given : CW_PREFIX "/libexec/cworker/cwshim");
    char self[BOUND_PATH] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = n > 0 ? strrchr(self, '/') : NULL;

    for (size_t i = 0; !given && slash && i < ARRAY_SIZE(places); i++) {
        AUTO_FREE char *near = mem_printf("%.*s/%s", (int)(slash - self), self, places[i]);

        if (access(near, X_OK) == 0) {
            *ret = take_ptr(&near);
            return 0;
        }
    }
    if (access(path, X_OK) < 0)
        return err_sys(e, "cwshim is neither beside this program nor at %s (see --shim)", path);
    *ret = take_ptr(&path);
    return 0;
}
