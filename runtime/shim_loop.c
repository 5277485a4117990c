/*
 * shim_loop.c - the life of a shim. Order of a container's end:
 *
 *   init reaped ─► cgroup.kill ─► last words drained ─► figures read ─► record renamed into place
 *        ─► cgroup removed ─► socket unlinked ─► the process ends (the event the daemon waits for)
 *
 * so whoever sees the shim gone finds the record, and a crash in between leaves at worst an empty group.
 */
#include "runtime/shim_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/capability.h>

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
#include "runtime/shim_log.h"
#include "runtime/shim_proto.h"
#include "runtime/spec.h"
#include "runtime/spec_json.h"

enum { PEERS_MAX = 8 };
enum { LOG_BUDGET = 64 << 10 }; /* bytes a turn: what a pipe holds */
#define DIE_TIMEOUT_NS (10 * NS_PER_S)
/* A container nobody starts: its daemon died while it was made, and none came after it. */
#define ORPHAN_TIMEOUT_NS (600 * NS_PER_S)

struct shim {
    const char *id;
    int dir, lock, listener;
    int netns; /* of the container: opened while we still may, handed to daemons that come later */
    int peers[PEERS_MAX];
    struct ctr *ctr;
    struct shim_log log;
    struct exit_record record;
    uint64_t created_ns;
    bool ended;
};

/* --- set-up -------------------------------------------------------------------------------------------- */

/* Held for our life; nobody waits for it, they only try (shim.c, check_dead). */
static int take_lock(struct shim *s, struct err *e)
{
    s->lock = openat(s->dir, SHIM_FILE_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->lock < 0)
        return err_sys(e, "lock");
    if (flock(s->lock, LOCK_EX | LOCK_NB) < 0)
        return err_sys(e, "another shim looks after %s", s->id);
    return 0;
}

static int listen_control(struct shim *s, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SHIM_FILE_CONTROL, s->dir);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        fchmodat(s->dir, SHIM_FILE_CONTROL, 0600, 0) < 0 || listen(s->listener, PEERS_MAX) < 0)
        return err_sys(e, "control socket");
    return 0;
}

static int write_small(struct shim *s, const char *name, const char *text, struct err *e)
{
    return statefile_replace(s->dir, name, text, strlen(text), 0600, false, e);
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
static int write_traces(struct shim *s, const struct ctr_spec *spec, struct err *e)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *pid = mem_printf("%d\n", getpid());

    if (ctr_cgroup_resolve(spec->cgroups_path, s->id, &path, e) < 0)
        return -1;
    join_supervisor(path);
    return write_small(s, SHIM_FILE_PID, pid, e) < 0 ? -1
                                                     : write_small(s, SHIM_FILE_CGROUP, path, e);
}

static int read_config(int fd, struct ctr_spec **ret, struct err *e)
{
    AUTO(str) struct str text = STR_INIT(BOUND_CONFIG_JSON);

    if (fd_read_all(fd, &text, e) < 0)
        return err_wrap(e, "config.json");
    return ctr_spec_from_json(str_text(&text), text.len, ret, e);
}

static int create(struct shim *s, int config_fd, struct err *e)
{
    AUTO(ctr_spec) struct ctr_spec *spec = NULL;
    AUTO_CLOSE int out = -1;

    if (read_config(config_fd, &spec, e) < 0 || write_traces(s, spec, e) < 0 ||
        shim_log_open(s->dir, SHIM_FILE_LOG, &s->log, &out, e) < 0)
        return -1;
    struct ctr_create_opts o = {
        .id = s->id,
        .stdio = {-1, out, out},
        .console_socket = -1,
        .partial_cgroup =
            str_eq(ctr_spec_annotation(spec, CTR_ANNOTATION "cgroup.partial"), "true")};

    return ctr_create(spec, &o, &s->ctr, e);
}

/*
 * Signals to processes with other ids than ours are all that a capability is needed for from now on: the group, the
 * record and the socket are root's own files. What we cannot have back cannot be taken from us by a bug (S48).
 */
static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct sets[2] = {
        {.effective = 1U << CAP_KILL, .permitted = 1U << CAP_KILL}};

    for (int cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    BUG_ON(syscall(SYS_capset, &header, sets) < 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/*
 * After the container exists: it has inherited what it may inherit of us, and from now on we are out of its reach. Not
 * before: a process made from a non-dumpable one owns none of its files in /proc, and would be as safe from the OOM
 * killer as we are.
 */
static void withdraw(struct shim *s)
{
    struct err ignored = ERR_INIT;
    sigset_t all;

    s->netns = ctr_netns(s->ctr, &ignored);

    /* systemd's stop of a service, a terminal's hang-up: none of them ends a run. SIGKILL does, and is handled. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_DUMPABLE, 0);
    if (fd_write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", "-999", &ignored) < 0)
        err_clear(&ignored);
    drop_capabilities();
    malloc_trim(0);
}

/* --- messages --------------------------------------------------------------------------------------------- */

static void drop(struct shim *s, size_t i)
{
    close_fd(&s->peers[i]);
}

/* Sending never blocks: who does not read his answers loses the connection. */
static void answer(struct shim *s, size_t i, const struct shim_msg *m, const int *fds, size_t n)
{
    struct err ignored = ERR_INIT;

    if (s->peers[i] >= 0 && shim_msg_send(s->peers[i], m, fds, n, &ignored) < 0)
        drop(s, i);
}

static void say_hello(struct shim *s, size_t i)
{
    struct shim_msg m = shim_msg_make(SHIM_HELLO, getpid(), 0, NULL);
    AUTO_CLOSE int self = fd_pidfd_open(getpid());

    if (self >= 0)
        answer(s, i, &m, &self, 1);
    else
        drop(s, i);
}

static void say_state(struct shim *s, size_t i)
{
    struct shim_msg m =
        shim_msg_make(SHIM_STATE, ctr_pid(s->ctr), s->record.started, ctr_note(s->ctr));
    int fds[2];
    size_t n = 0;

    if (s->netns >= 0) {
        m.flags |= SHIM_HAS_NETNS;
        fds[n++] = s->netns;
    }
    if (ctr_cgroup_dir(s->ctr) >= 0) {
        m.flags |= SHIM_HAS_CGROUP;
        fds[n++] = ctr_cgroup_dir(s->ctr);
    }
    answer(s, i, &m, fds, n);
}

static void note_failure(struct shim *s, const struct err *why)
{
    snprintf(s->record.start_error, sizeof(s->record.start_error), "%s", why->msg);
    s->record.start_error_kind = (int)why->kind;
}

static void on_start(struct shim *s, size_t i)
{
    struct err why = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_OK, 0, 0, NULL);

    if (s->record.started) {
        err_set(&why, ERR_USER, "container %s is started already", s->id);
        m = shim_msg_of_error(SHIM_ERROR, &why);
    } else if (ctr_start(s->ctr, &why) < 0) {
        note_failure(s, &why);
        s->ended = true;
        m = shim_msg_of_error(SHIM_FAILED, &why);
    } else {
        s->record.started = true;
        s->record.start_ns = clock_now_ns();
        s->record.start_epoch = clock_epoch();
    }
    answer(s, i, &m, NULL, 0);
}

static void on_kill(struct shim *s, size_t i, int signal)
{
    struct err why = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_OK, 0, 0, NULL);

    if (signal < 1 || signal > SIGRTMAX) {
        err_set(&why, ERR_USER, "%d is no signal", signal);
        m = shim_msg_of_error(SHIM_ERROR, &why);
    } else if (ctr_kill(s->ctr, signal, signal == SIGKILL, &why) < 0) {
        m = shim_msg_of_error(SHIM_ERROR, &why);
    }
    answer(s, i, &m, NULL, 0);
}

static void on_message(struct shim *s, size_t i)
{
    struct err ignored = ERR_INIT;
    struct shim_msg m;

    if (shim_msg_recv(s->peers[i], &m, NULL, NULL, &ignored) <= 0) {
        drop(s, i);
        return;
    }
    switch (m.type) {
    case SHIM_START: on_start(s, i); break;
    case SHIM_KILL: on_kill(s, i, m.a); break;
    case SHIM_ASK:
        say_hello(s, i);
        say_state(s, i);
        break;
    default: drop(s, i);
    }
}

static bool is_root(int sock)
{
    struct ucred c;
    socklen_t n = sizeof(c);

    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && c.uid == geteuid();
}

static void on_connection(struct shim *s)
{
    AUTO_CLOSE int sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (sock < 0 || !is_root(sock))
        return;
    for (size_t i = 0; i < PEERS_MAX; i++) {
        if (s->peers[i] < 0) {
            s->peers[i] = take_fd(&sock);
            return;
        }
    }
}

/* --- waiting ------------------------------------------------------------------------------------------------ */

static void reap(struct shim *s)
{
    struct rusage usage = {0};
    int status = 0;
    pid_t pid = wait4(ctr_pid(s->ctr), &status, WNOHANG, &usage);

    if (pid == 0 || (pid < 0 && errno == EINTR))
        return;
    s->ended = true;
    s->record.status = -1;
    s->record.max_rss_kib = (uint64_t)usage.ru_maxrss;
    if (pid < 0)
        return;
    if (WIFEXITED(status)) {
        s->record.status = WEXITSTATUS(status);
    } else if (WIFSIGNALED(status)) {
        s->record.signal = WTERMSIG(status);
        s->record.status = 128 + s->record.signal;
    }
}

static bool is_orphan(const struct shim *s)
{
    if (s->record.started || clock_now_ns() - s->created_ns < ORPHAN_TIMEOUT_NS)
        return false;
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (s->peers[i] >= 0)
            return false;
    return true;
}

static void turn(struct shim *s)
{
    struct pollfd p[3 + PEERS_MAX] = {
        {.fd = ctr_pidfd(s->ctr), .events = POLLIN},
        {.fd = s->listener, .events = POLLIN},
        {.fd = s->log.pipe, .events = POLLIN},
    };

    for (size_t i = 0; i < PEERS_MAX; i++)
        p[3 + i] = (struct pollfd){.fd = s->peers[i], .events = POLLIN};
    if (poll(p, ARRAY_SIZE(p), s->record.started ? -1 : 60000) < 0)
        return;
    /* A container that floods its output is slowed down to some 64 MiB a second, not followed with a whole CPU. */
    if (p[2].revents && shim_log_drain(&s->log, LOG_BUDGET))
        poll(NULL, 0, 1);
    for (size_t i = 0; i < PEERS_MAX && !s->ended; i++)
        if (p[3 + i].revents)
            on_message(s, i);
    if (p[1].revents)
        on_connection(s);
    if (p[0].revents && !s->ended)
        reap(s);
    if (is_orphan(s))
        s->ended = true;
}

/* --- the end -------------------------------------------------------------------------------------------------- */

static void read_figures(struct shim *s, struct ctr_cgroup *cg)
{
    struct ctr_cgroup_stats c;
    struct err ignored = ERR_INIT;

    if (!cg || ctr_cgroup_stats(cg, &c, &ignored) < 0)
        return;
    s->record.user_us = c.cpu_user_us;
    s->record.system_us = c.cpu_system_us;
    s->record.memory_peak = c.memory_peak;
    s->record.oom_kills = c.oom_kills;
    s->record.oom_killed = c.oom_kills > 0;
}

static int write_record(struct shim *s)
{
    struct err why = ERR_INIT;

    for (int attempt = 0; attempt < 5; attempt++) {
        if (ctr_exit_write(s->dir, &s->record, &why) == 0)
            return 0;
        poll(NULL, 0,
             200); /* /run may be full for a moment; without a record the run counts as vanished */
    }
    return -1;
}

static int finish(struct shim *s)
{
    struct ctr_cgroup *cg = s->ctr ? ctr_cgroup_of(s->ctr) : NULL;
    struct err why = ERR_INIT;
    bool empty = true;

    s->record.end_ns = clock_now_ns();
    s->record.end_epoch = clock_epoch();
    if (cg &&
        (ctr_cgroup_kill(cg, &why) < 0 || ctr_cgroup_wait_empty(cg, DIE_TIMEOUT_NS, &why) < 0))
        empty = false; /* stuck in the kernel: the daemon's clean-up finds it and says so */
    while (shim_log_drain(&s->log, LOG_BUDGET))
        continue;
    shim_log_close(&s->log);
    read_figures(s, cg);
    int rc = write_record(s);

    if (s->ctr && empty && ctr_delete(s->ctr, true, &why) < 0)
        err_clear(&why);
    unlinkat(s->dir, SHIM_FILE_CONTROL, 0);
    return rc;
}

static int run(struct shim *s, int config_fd, struct err *e)
{
    if (take_lock(s, e) < 0 || listen_control(s, e) < 0)
        return -1;
    say_hello(s, 0);
    if (create(s, config_fd, e) < 0)
        return -1;
    s->created_ns = clock_now_ns();
    withdraw(s);
    say_state(s, 0);
    while (!s->ended)
        turn(s);
    return 0;
}

int ctr_shim_loop(const char *id, int config_fd, int dir_fd, int control_fd)
{
    struct shim s = {.id = id,
                     .dir = dir_fd,
                     .lock = -1,
                     .listener = -1,
                     .netns = -1,
                     .log = {.pipe = -1, .file = -1},
                     .record = {.status = -1}};
    AUTO_CLOSE int config = config_fd;
    struct err why = ERR_INIT;

    for (size_t i = 0; i < PEERS_MAX; i++)
        s.peers[i] = -1;
    s.peers[0] = control_fd;
    if (run(&s, config, &why) < 0) {
        struct shim_msg m = shim_msg_of_error(SHIM_FAILED, &why);

        note_failure(&s, &why);
        answer(&s, 0, &m, NULL, 0);
    }
    return finish(&s) < 0 ? 1 : 0;
}
