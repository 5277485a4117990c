/* tty_visit.c - the visitor's end of a terminal (tty_session.h), and waiting for a program that has none. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "runtime/tty.h"
#include "runtime/tty_session.h"

enum { CTRL_D = 0x04, CTRL_P = 0x10, CTRL_Q = 0x11 };

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

/* --- without a terminal ----------------------------------------------------------------------------------- */

int tty_reap(int pidfd, struct err *e)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
        if (errno != EINTR)
            return err_sys(e, "wait for the program");
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

int tty_wait(int pidfd, int signals, struct err *e)
{
    struct pollfd p[] = {{pidfd, POLLIN, 0}, {signals, POLLIN, 0}};
    struct signalfd_siginfo s;

    while (!(p[0].revents & POLLIN)) {
        if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
            return err_sys(e, "poll");
        while (read(signals, &s, sizeof(s)) == (ssize_t)sizeof(s))
            syscall(SYS_pidfd_send_signal, pidfd, (int)s.ssi_signo, NULL, 0);
    }
    return tty_reap(pidfd, e);
}

/* --- a visit ---------------------------------------------------------------------------------------------- */

struct visit {
    int sock, signals;
    bool terminal, input_over, resized, left, over;
    enum tty_parting parting;
    int status;
    struct tty_keys keys;
    /* The one packet on its way to the keeper. It is sent while output is taken, never waited for: the keeper takes none
     * while the program takes no input, and the program none while nobody takes its output. */
    struct tty_packet packet;
    size_t pending; /* bytes of it; 0: none */
};

static void prepare(struct visit *v, enum tty_word word, const void *data, size_t n)
{
    v->packet.word = (char)word;
    memcpy(v->packet.data, data, n);
    v->pending = n + 1;
}

static void part(struct visit *v, enum tty_parting how)
{
    v->parting = how;
    v->over = true;
}

static void take_signal(struct visit *v)
{
    struct signalfd_siginfo s;

    if (read(v->signals, &s, sizeof(s)) != (ssize_t)sizeof(s))
        return;
    int number = (int)s.ssi_signo;

    if (number == SIGWINCH)
        v->resized = true;
    else if (number == SIGHUP && v->terminal)
        part(v, TTY_PART_LEFT);
    else
        prepare(v, TTY_SIGNAL, &number, sizeof(number));
}

static void take_size(struct visit *v)
{
    struct winsize size;

    v->resized = false;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        prepare(v, TTY_SIZE, &size, sizeof(size));
}

/* The end of our input is the end of its: where it reads lines from a terminal, that is what Ctrl-D says. The end of a
 * terminal is a person who has gone. */
static void take_input(struct visit *v)
{
    char buf[TTY_PACKET_MAX - 1], out[TTY_PACKET_MAX];
    static const char end_of_input = CTRL_D;
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0 && v->terminal) {
        part(v, TTY_PART_LEFT);
    } else if (n <= 0) {
        v->input_over = true;
        prepare(v, TTY_INPUT, &end_of_input, 1);
    } else if (!v->terminal) {
        prepare(v, TTY_INPUT, buf, (size_t)n);
    } else {
        size_t have = tty_filter_keys(&v->keys, buf, (size_t)n, out, &v->left);

        if (have)
            prepare(v, TTY_INPUT, out, have);
    }
}

static int take_packet(struct visit *v, struct err *e)
{
    struct tty_packet p;
    ssize_t n = recv(v->sock, &p, sizeof(p), 0);

    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0)
        return err_set(e, ERR_HOST,
                       "whoever kept the program's terminal is gone, and so the terminal");
    switch ((enum tty_word)p.word) {
    case TTY_OUTPUT:
        return fd_write_all(STDOUT_FILENO, p.data, (size_t)n - 1) < 0
                   ? err_sys(e, "write to standard output")
                   : 0;
    case TTY_ENDED:
        memcpy(&v->status, p.data, sizeof(v->status));
        part(v, TTY_PART_ENDED);
        return 0;
    case TTY_TAKEN: part(v, TTY_PART_TAKEN); return 0;
    default: return 0;
    }
}

static void send_packet(struct visit *v)
{
    ssize_t n = send(v->sock, &v->packet, v->pending, MSG_DONTWAIT | MSG_NOSIGNAL);

    /* A keeper that is gone is noticed where its words are missed. */
    if (n >= 0 || (errno != EAGAIN && errno != EINTR))
        v->pending = 0;
}

static int turn(struct visit *v, struct err *e)
{
    bool idle = v->pending == 0;
    struct pollfd p[] = {{v->sock, (short)(idle ? POLLIN : POLLIN | POLLOUT), 0},
                         {idle ? v->signals : -1, POLLIN, 0},
                         {idle && !v->input_over ? STDIN_FILENO : -1, POLLIN, 0}};

    if (poll(p, ARRAY_SIZE(p), -1) < 0)
        return errno == EINTR ? 0 : err_sys(e, "poll");
    if (p[0].revents & ~POLLOUT && take_packet(v, e) < 0)
        return -1;
    if (!v->over && p[1].revents)
        take_signal(v);
    if (!v->over && v->resized && !v->pending)
        take_size(v);
    if (!v->over && p[2].revents && !v->pending)
        take_input(v);
    if (v->pending)
        send_packet(v);
    if (v->left && !v->pending)
        part(v, TTY_PART_LEFT);
    return 0;
}

int tty_visit(int sock, int signals, bool terminal, enum tty_parting *ret, struct err *e)
{
    struct visit v = {.sock = sock, .signals = signals, .terminal = terminal, .resized = true};

    take_size(&v);
    while (!v.over)
        if (turn(&v, e) < 0)
            return -1;
    *ret = v.parting;
    return v.parting == TTY_PART_ENDED ? v.status : 0;
}

int tty_await_start(int sock, pid_t *ret_pid, struct err *e)
{
    struct tty_packet p = {0};
    ssize_t n;

    do
        n = recv(sock, &p, sizeof(p), 0);
    while (n < 0 && errno == EINTR);
    if (n == 1 + (ssize_t)sizeof(*e) && p.word == TTY_FAILED) {
        memcpy(e, p.data, sizeof(*e));
        return -1;
    }
    if (n != 1 + (ssize_t)sizeof(*ret_pid) || p.word != TTY_STARTED)
        return err_set(e, ERR_HOST, "the program's terminal could not be made");
    memcpy(ret_pid, p.data, sizeof(*ret_pid));
    return 0;
}
