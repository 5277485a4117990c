/*
 * Helper programs by posix_spawn. The daemon has threads, so it never forks; posix_spawn is the C library's
 * vfork-like path. Descriptors are placed by file actions, everything else is closed in the child
 * (posix_spawn_file_actions_addclosefrom_np), though all of ours are close-on-exec anyway.
 */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

static char *const clean_env[] = {(char *)"PATH=" PROC_PATH, (char *)"HOME=/", (char *)"LC_ALL=C",
                                  NULL};

/* Absolute, or looked up in the fixed path: the caller's own PATH is not trusted. */
static char *find_program(const char *name)
{
    AUTO(str_list) struct str_list dirs = {0};

    if (strchr(name, '/'))
        return mem_strdup(name);
    str_list_split(&dirs, PROC_PATH, ':');
    for (size_t i = 0; i < dirs.n; i++) {
        AUTO_FREE char *path = mem_printf("%s/%s", dirs.items[i], name);

        if (access(path, X_OK) == 0)
            return take_ptr(&path);
    }
    return NULL;
}

static void set_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setsigdefault(attr, &all);
    posix_spawnattr_setflags(attr,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
}

/*
 * Place fds[i] at descriptor i. A source below n_fds could be overwritten before it is used, so all sources are
 * first moved up; `moved` holds them until the spawn.
 */
static int place_fds(posix_spawn_file_actions_t *actions, const int *fds, size_t n_fds, int *moved,
                     struct err *e)
{
    for (size_t i = 0; i < n_fds; i++) {
        if (fds[i] < 0) {
            posix_spawn_file_actions_addopen(actions, (int)i, "/dev/null", O_RDWR, 0);
            continue;
        }
        moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, (int)n_fds + 3);
        if (moved[i] < 0)
            return err_sys(e, "duplicate a descriptor");
        posix_spawn_file_actions_adddup2(actions, moved[i], (int)i);
    }
    posix_spawn_file_actions_addclosefrom_np(actions, (int)n_fds);
    return 0;
}

int proc_spawn(const char *path, char *const argv[], char *const env[], const int *fds,
               size_t n_fds, pid_t *ret_pid, struct err *e)
{
    AUTO_FREE int *moved = mem_array(n_fds, sizeof(int));
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    pid_t pid = -1;
    int rc = 0;

    for (size_t i = 0; i < n_fds; i++)
        moved[i] = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    set_attributes(&attr);
    if (place_fds(&actions, fds, n_fds, moved, e) < 0)
        rc = -1;
    else if ((rc = posix_spawn(&pid, path, &actions, &attr, argv, env ? env : clean_env)))
        err_sysno(e, rc, "start %s", path);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    for (size_t i = 0; i < n_fds; i++)
        close_fd(&moved[i]);
    if (rc)
        return -1;
    int pidfd = fd_pidfd_open(pid);

    if (pidfd < 0) {
        err_sys(e, "pidfd of %s", path);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return -1;
    }
    if (ret_pid)
        *ret_pid = pid;
    return pidfd;
}

struct stream {
    int fd; /* our end, -1 when done */
    struct str *into;
    const char *from;
    size_t left;
};

/* One readable or writable pipe. 0 go on; -1 with e. */
static int serve(struct stream *s, short revents, struct err *e)
{
    char buf[16384];

    if (!revents)
        return 0;
    if (s->from) {
        ssize_t w = write(s->fd, s->from, s->left > 4096 ? 4096 : s->left);

        if (w < 0 && errno != EPIPE && errno != EAGAIN && errno != EINTR)
            return err_sys(e, "write its input");
        if (w < 0 && errno == EPIPE)
            s->left = 0; /* it does not want more: its own affair */
        else if (w > 0) {
            s->from += w;
            s->left -= (size_t)w;
        }
        if (!s->left)
            close_fd(&s->fd);
        return 0;
    }
    BUG_ON(!s->into);
    ssize_t r = read(s->fd, buf, sizeof(buf));

    if (r < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (r < 0)
        return err_sys(e, "read its output");
    if (r == 0)
        close_fd(&s->fd);
    else if (str_append(s->into, buf, (size_t)r) < 0)
        return err_set(e, ERR_LIMIT, "more output than %zu bytes", s->into->max);
    return 0;
}

static int exchange(struct stream *streams, size_t n, int pidfd, uint64_t deadline, struct err *e)
{
    for (;;) {
        struct pollfd p[4] = {{.fd = pidfd, .events = POLLIN}};
        bool open_output = false;

        for (size_t i = 0; i < n; i++) {
            p[i + 1] =
                (struct pollfd){.fd = streams[i].fd, .events = streams[i].from ? POLLOUT : POLLIN};
            open_output |= streams[i].fd >= 0 && streams[i].into;
        }
        int rc = poll(p, (nfds_t)(n + 1), clock_left_ms(deadline));

        if (rc < 0 && errno != EINTR)
            return err_sys(e, "wait for it");
        if (rc == 0)
            return err_set(e, ERR_LIMIT, "no end within its time");
        for (size_t i = 0; rc > 0 && i < n; i++)
            if (serve(&streams[i], p[i + 1].revents, e) < 0)
                return -1;
        /* Ended, and what it wrote is read: a grandchild that keeps the pipe open is not waited for. */
        if ((p[0].revents & POLLIN) && (!open_output || rc == 1))
            return 0;
    }
}

static int pipe_for(struct stream *s, int *theirs, bool input, struct err *e)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, "pipe");
    s->fd = ends[input ? 1 : 0];
    *theirs = ends[input ? 0 : 1];
    if (fcntl(s->fd, F_SETFL, O_NONBLOCK) < 0)
        return err_sys(e, "pipe");
    return 0;
}

static int make_streams(struct stream s[3], int theirs[3], const void *input, size_t input_n,
                        struct str *out, struct str *err_out, struct err *e)
{
    if (input && input_n) {
        s[0].from = input;
        s[0].left = input_n;
        if (pipe_for(&s[0], &theirs[0], true, e) < 0)
            return -1;
    }
    s[1].into = out;
    s[2].into = err_out;
    if (out && pipe_for(&s[1], &theirs[1], false, e) < 0)
        return -1;
    return err_out ? pipe_for(&s[2], &theirs[2], false, e) : 0;
}

static void reap(int pidfd, struct proc_result *ret)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        continue;
    ret->status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int proc_run(char *const argv[], char *const env[], const void *input, size_t input_n,
             struct str *out, struct str *err_out, uint64_t timeout_ns, struct proc_result *ret,
             struct err *e)
{
    AUTO_FREE char *path = find_program(argv[0]);
    struct stream s[3] = {{.fd = -1}, {.fd = -1}, {.fd = -1}};
    int theirs[3] = {-1, -1, -1};
    AUTO_CLOSE int pidfd = -1;
    struct proc_result result = {0};

    if (!path)
        return err_set(e, ERR_ABSENT, "program %s is not installed", argv[0]);
    int rc = make_streams(s, theirs, input, input_n, out, err_out, e);

    if (rc == 0 && (pidfd = proc_spawn(path, argv, env, theirs, 3, NULL, e)) < 0)
        rc = -1;
    for (size_t i = 0; i < 3; i++)
        close_fd(&theirs[i]);
    if (rc == 0)
        rc = exchange(s, 3, pidfd, clock_in_ns(timeout_ns), e);
    if (pidfd >= 0) {
        if (rc < 0)
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        reap(pidfd, &result);
    }
    for (size_t i = 0; i < 3; i++)
        close_fd(&s[i].fd);
    if (rc < 0)
        return err_wrap(e, "%s", argv[0]);
    *ret = result;
    return 0;
}
