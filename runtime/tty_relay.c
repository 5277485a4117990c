/* Relaying between our terminal and that of a program in a container. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "runtime/tty.h"

enum { RELAY_BYTES = 16384, CTRL_P = 0x10, CTRL_Q = 0x11 };

size_t tty_filter_keys(struct tty_keys *k, const char *in, size_t n, char *out, bool *detach)
{
    size_t have = 0;

    *detach = false;
    for (size_t i = 0; i < n; i++) {
        if (k->held && in[i] == CTRL_Q) {
            *detach = true;
            return have;
        }
        if (k->held)
            out[have++] = CTRL_P;
        k->held = in[i] == CTRL_P;
        if (!k->held)
            out[have++] = in[i];
    }
    return have;
}

struct relay {
    int pidfd, master, signals;
    bool detachable, detached;
    struct tty_keys keys;
};

static void on_signal(const struct relay *r)
{
    struct signalfd_siginfo s;

    while (read(r->signals, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
        if (s.ssi_signo == SIGWINCH && r->master >= 0)
            tty_copy_size(r->master);
        else
            syscall(SYS_pidfd_send_signal, r->pidfd, (int)s.ssi_signo, NULL, 0);
    }
}

/* One read's worth; false at the end. */
static bool copy_out(int from)
{
    char buf[RELAY_BYTES];
    ssize_t n = read(from, buf, sizeof(buf));

    return n > 0 && fd_write_all(STDOUT_FILENO, buf, (size_t)n) == 0;
}

/* The end of our input is the end of its: where it reads lines from a terminal, that is what Ctrl-D says. */
static bool copy_in(struct relay *r)
{
    char buf[RELAY_BYTES], out[RELAY_BYTES + 1];
    static const char end_of_input = 4;
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n <= 0) {
        (void)!write(r->master, &end_of_input, 1);
        return false;
    }
    if (!r->detachable)
        return fd_write_all(r->master, buf, (size_t)n) == 0;
    size_t have = tty_filter_keys(&r->keys, buf, (size_t)n, out, &r->detached);

    return fd_write_all(r->master, out, have) == 0;
}

static int reap(int pidfd, struct err *e)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
        if (errno != EINTR)
            return err_sys(e, "wait for the program");
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int tty_relay(int pidfd, int master, int signals, bool detachable, bool *ret_detached,
              struct err *e)
{
    struct relay r = {pidfd, master, signals, detachable, false, {false}};
    struct pollfd fds[] = {{pidfd, POLLIN, 0},
                           {signals, POLLIN, 0},
                           {master, POLLIN, 0},
                           {master < 0 ? -1 : STDIN_FILENO, POLLIN, 0}};

    *ret_detached = false;
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return err_sys(e, "poll");
        if (fds[1].revents)
            on_signal(&r);
        if (fds[2].revents && !copy_out(master))
            fds[2].fd = -1;
        if (fds[3].revents && !copy_in(&r))
            fds[3].fd = -1;
        if (r.detached) {
            *ret_detached = true;
            return 0;
        }
    }
    /* The last words: what the terminal still holds. */
    while (fds[2].fd >= 0 && poll(&fds[2], 1, 0) > 0 && copy_out(master))
        ;
    return reap(pidfd, e);
}

void tty_hold(int pidfd, int master)
{
    char buf[RELAY_BYTES];
    struct pollfd fds[] = {{pidfd, POLLIN, 0}, {master, POLLIN, 0}};

    setsid();
    for (int fd = 0; fd < 3; fd++) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (null >= 0 && dup2(null, fd) < 0)
            _exit(1);
        if (null > 2)
            close(null);
    }
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            break;
        if (fds[1].revents && read(master, buf, sizeof(buf)) <= 0)
            fds[1].fd = -1;
    }
    _exit(0);
}
