/*
 * shim_loop.c - the life of a shim, after shim_make.c has made the container. Order of a container's end:
 *
 *   init reaped ─► cgroup.kill ─► last words drained ─► figures read ─► record renamed into place
 *        ─► cgroup removed ─► socket unlinked ─► the process ends (the event the daemon waits for)
 *
 * so whoever sees the shim gone finds the record, and a crash in between leaves at worst an empty group.
 */
#include "runtime/shim_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "runtime/cgroup.h"
#include "runtime/exit.h"
#include "runtime/launch.h"
#include "runtime/shim_hand.h"
#include "runtime/shim_log.h"
#include "runtime/shim_proto.h"
#include "runtime/shim_withdraw.h"

enum { PEERS_MAX = 8 };
enum { LOG_BUDGET = 64 << 10 }; /* bytes a turn: what a pipe holds */
#define DIE_TIMEOUT_NS (10 * NS_PER_S)
/* A container nobody starts: its daemon died while it was made, and none came after it. */
#define ORPHAN_TIMEOUT_NS (600 * NS_PER_S)

struct shim {
    const char *id;
    int fds[SHIM_FD_END]; /* by number, -1: not there */
    int peers[PEERS_MAX];
    struct shim_hand hand;
    struct ctr_cgroup *cgroup; /* NULL: none */
    struct shim_log log;
    struct exit_record record;
    uint64_t created_ns;
    bool ended;
};

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
    struct err ignored = ERR_INIT;

    if (shim_msg_hello(s->peers[i], &ignored) < 0)
        drop(s, i);
}

static void say_state(struct shim *s, size_t i)
{
    struct shim_msg m = shim_msg_make(SHIM_STATE, s->hand.pid, s->record.started, s->hand.note);
    int fds[2];
    size_t n = 0;

    if (s->fds[SHIM_FD_NETNS] >= 0) {
        m.flags |= SHIM_HAS_NETNS;
        fds[n++] = s->fds[SHIM_FD_NETNS];
    }
    if (s->cgroup) {
        m.flags |= SHIM_HAS_CGROUP;
        fds[n++] = ctr_cgroup_fd(s->cgroup);
    }
    answer(s, i, &m, fds, n);
}

static void note_failure(struct shim *s, const struct err *why)
{
    snprintf(s->record.start_error, sizeof(s->record.start_error), "%s", why->msg);
    s->record.start_error_kind = (int)why->kind;
}

/* From the start to the end there is nothing to do but to wait: the pages of the program that led there need not stay in our
 * address space, and what is needed again comes back from the page cache. */
static int let_go_of_segment(struct dl_phdr_info *info, size_t size UNUSED, void *arg UNUSED)
{
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t page = (uintptr_t)getpagesize(), from = info->dlpi_addr + p->p_vaddr;

        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W))
            madvise((void *)(from & ~(page - 1)), p->p_memsz, MADV_DONTNEED);
    }
    return 0;
}

static void on_start(struct shim *s, size_t i)
{
    struct err why = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_OK, 0, 0, NULL);

    if (s->record.started) {
        err_set(&why, ERR_USER, "container %s is started already", s->id);
        m = shim_msg_of_error(SHIM_ERROR, &why);
    } else if (launch_release(s->fds[SHIM_FD_CHANNEL], NULL, &why) != 0) {
        note_failure(s, &why);
        s->ended = true;
        m = shim_msg_of_error(SHIM_FAILED, &why);
    } else {
        s->record.started = true;
        s->record.start_ns = clock_now_ns();
        s->record.start_epoch = clock_epoch();
    }
    answer(s, i, &m, NULL, 0);
    if (s->record.started)
        dl_iterate_phdr(let_go_of_segment, NULL);
}

static int signal_container(const struct shim *s, int signal, struct err *e)
{
    if (signal == SIGKILL && s->cgroup)
        return ctr_cgroup_kill(s->cgroup, e);
    if (syscall(SYS_pidfd_send_signal, s->fds[SHIM_FD_INIT], signal, NULL, 0) < 0)
        return errno == ESRCH ? err_set(e, ERR_USER, "container not running")
                              : err_sys(e, "signal container %s", s->id);
    return 0;
}

static void on_kill(struct shim *s, size_t i, int signal)
{
    struct err why = ERR_INIT;
    struct shim_msg m = shim_msg_make(SHIM_OK, 0, 0, NULL);

    if (signal < 1 || signal > SIGRTMAX) {
        err_set(&why, ERR_USER, "%d is no signal", signal);
        m = shim_msg_of_error(SHIM_ERROR, &why);
    } else if (signal_container(s, signal, &why) < 0) {
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

/* Who comes when all places are taken waits in the kernel's queue until somebody leaves. */
static bool has_place(const struct shim *s)
{
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (s->peers[i] < 0)
            return true;
    return false;
}

static void on_connection(struct shim *s)
{
    AUTO_CLOSE int sock =
        accept4(s->fds[SHIM_FD_LISTENER], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (sock < 0 || !fd_peer_is_us(sock))
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
    pid_t pid = wait4(s->hand.pid, &status, WNOHANG, &usage);

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
        {.fd = s->fds[SHIM_FD_INIT], .events = POLLIN},
        {.fd = has_place(s) ? s->fds[SHIM_FD_LISTENER] : -1, .events = POLLIN},
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
        if (ctr_exit_write(SHIM_FD_DIR, &s->record, &why) == 0)
            return 0;
        poll(NULL, 0,
             200); /* /run may be full for a moment; without a record the run counts as vanished */
    }
    return -1;
}

/* All processes; false when one is stuck in the kernel: the daemon's clean-up finds it and says so. */
static bool end_all(struct shim *s)
{
    struct err why = ERR_INIT;

    syscall(SYS_pidfd_send_signal, s->fds[SHIM_FD_INIT], SIGKILL, NULL, 0);
    if (s->cgroup && (ctr_cgroup_kill(s->cgroup, &why) < 0 ||
                      ctr_cgroup_wait_empty(s->cgroup, DIE_TIMEOUT_NS, &why) < 0))
        return false;
    return fd_wait(s->fds[SHIM_FD_INIT], POLLIN, clock_in_ns(DIE_TIMEOUT_NS)) == 1;
}

static int finish(struct shim *s)
{
    struct err why = ERR_INIT;

    s->record.end_ns = clock_now_ns();
    s->record.end_epoch = clock_epoch();
    bool ended = end_all(s);

    while (shim_log_drain(&s->log, LOG_BUDGET))
        continue;
    shim_log_close(&s->log);
    read_figures(s, s->cgroup);
    int rc = write_record(s);

    if (s->cgroup && ended && ctr_cgroup_remove(s->cgroup, &why) < 0)
        err_clear(&why);
    unlinkat(SHIM_FD_DIR, SHIM_FILE_CONTROL, 0);
    return rc;
}

int ctr_shim_loop(const char *id)
{
    static struct shim s = {.record = {.status = -1}};
    struct err why = ERR_INIT;

    s.id = id;
    if (shim_hand_take(&s.hand, s.fds, &why) < 0) {
        struct shim_msg m = shim_msg_of_error(SHIM_FAILED, &why);

        fprintf(stderr, "cwshim: %s; cworkerd and cwrun start it\n", why.msg);
        (void)!shim_msg_send(SHIM_FD_CONTROL, &m, NULL, 0, &why);
        return 1; /* the daemon cleans up by what the maker has written */
    }
    if (s.fds[SHIM_FD_CGROUP] >= 0)
        s.cgroup = ctr_cgroup_from_fd(s.fds[SHIM_FD_CGROUP], s.hand.cgroup);
    s.log = (struct shim_log){.pipe = s.fds[SHIM_FD_LOG_PIPE], .file = s.fds[SHIM_FD_LOG_FILE]};
    s.created_ns = clock_now_ns();
    for (size_t i = 0; i < PEERS_MAX; i++)
        s.peers[i] = -1;
    s.peers[0] = s.fds[SHIM_FD_CONTROL];
    shim_withdraw();
    say_state(&s, 0);
    while (!s.ended)
        turn(&s);
    return finish(&s) < 0 ? 1 : 0;
}
