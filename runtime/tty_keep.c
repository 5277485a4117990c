/*
 * tty_keep.c - the keeper of a program's terminal (tty_session.h). It never blocks but in poll.
 *
 * What the program writes goes into a ring, and what the visitor has been told is a place in it: so a slow visitor holds up
 * the program when the ring is full, as a slow terminal does, and one who comes later begins where the ring does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "runtime/shim_withdraw.h"
#include "runtime/tty.h"
#include "runtime/tty_session.h"

enum { RING = 64 << 10 };
#define LAST_WORDS_NS (10 * NS_PER_S)

struct keeper {
    int visitor;
    bool open;           /* to visitors: there is a listener */
    bool silent;         /* nobody has the terminal open any more */
    bool redraw;         /* who came back has not told the size of the screen yet */
    uint64_t end, told;  /* bytes written by the program; of these, told the visitor */
    size_t typed, taken; /* bytes of `input`; of these, taken by the program */
    char ring[RING], input[TTY_PACKET_MAX];
};

static void drop_visitor(struct keeper *k)
{
    close_fd(&k->visitor);
    k->told = k->end;
}

/* --- output ------------------------------------------------------------------------------------------------ */

static size_t room(const struct keeper *k)
{
    return k->visitor < 0 ? RING : RING - (size_t)(k->end - k->told);
}

/* One read's worth; false when there was nothing. */
static bool take_output(struct keeper *k)
{
    size_t at = (size_t)(k->end % RING), n = room(k) < RING - at ? room(k) : RING - at;

    if (k->silent || n == 0)
        return false;
    ssize_t got = read(TTY_FD_MASTER, k->ring + at, n);

    if (got > 0)
        k->end += (uint64_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        k->silent = true;
    if (k->visitor < 0)
        k->told = k->end;
    return got > 0;
}

static void tell(struct keeper *k)
{
    while (k->visitor >= 0 && k->told < k->end) {
        size_t at = (size_t)(k->told % RING), n = (size_t)(k->end - k->told);

        if (n > RING - at)
            n = RING - at;
        if (n > TTY_PACKET_MAX)
            n = TTY_PACKET_MAX;
        if (tty_say(k->visitor, TTY_OUTPUT, k->ring + at, n) == 0) {
            k->told += n;
        } else {
            if (errno != EAGAIN && errno != EINTR)
                drop_visitor(k);
            return;
        }
    }
}

/* --- input --------------------------------------------------------------------------------------------------- */

static void feed(struct keeper *k)
{
    ssize_t n = write(TTY_FD_MASTER, k->input + k->taken, k->typed - k->taken);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        k->taken += (size_t)n;
    if (n <= 0 || k->taken == k->typed)
        k->typed = k->taken = 0;
}

/* A screen of the same size is no news, and a program that fills the screen would not draw it again: so it is told of two. */
static void resize(struct keeper *k, const struct winsize *size)
{
    struct winsize other = *size;

    if (k->redraw && size->ws_row > 1) {
        other.ws_row--;
        ioctl(TTY_FD_MASTER, TIOCSWINSZ, &other);
    }
    k->redraw = false;
    ioctl(TTY_FD_MASTER, TIOCSWINSZ, size);
}

static void hear(struct keeper *k)
{
    struct tty_packet p;
    struct winsize size;
    int number;
    ssize_t got = recv(k->visitor, &p, sizeof(p), MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop_visitor(k);
        return;
    }
    size_t n = (size_t)got - 1;

    if (p.word == TTY_INPUT && n) {
        memcpy(k->input, p.data, n);
        k->typed = n;
        feed(k);
    } else if (p.word == TTY_SIZE && n == sizeof(size)) {
        memcpy(&size, p.data, n);
        resize(k, &size);
    } else if (p.word == TTY_SIGNAL && n == sizeof(number)) {
        memcpy(&number, p.data, n);
        syscall(SYS_pidfd_send_signal, TTY_FD_PROGRAM, number, NULL, 0);
    }
}

/* --- visitors ------------------------------------------------------------------------------------------------- */

/* The ring's first line may be half of one, or half of a sequence that sets colours. */
static void begin_at_line(struct keeper *k)
{
    k->told = k->end > RING ? k->end - RING : 0;
    if (k->told == 0)
        return;
    for (uint64_t at = k->told; at < k->end; at++) {
        if (k->ring[at % RING] == '\n') {
            k->told = at + 1;
            return;
        }
    }
}

static void greet(struct keeper *k)
{
    AUTO_CLOSE int sock = accept4(TTY_FD_LISTENER, NULL, NULL, SOCK_CLOEXEC);

    if (sock < 0 || !fd_peer_is_us(sock))
        return;
    /* Best effort: who does not read it finds the connection closed. */
    if (k->visitor >= 0 && tty_say(k->visitor, TTY_TAKEN, "", 0) < 0)
        errno = 0;
    close_fd(&k->visitor);
    k->visitor = take_fd(&sock);
    k->redraw = true;
    begin_at_line(k);
}

static void turn(struct keeper *k, bool *ended)
{
    short master = (short)((!k->silent && room(k) ? POLLIN : 0) | (k->typed ? POLLOUT : 0));
    short visitor = (short)((k->typed ? 0 : POLLIN) | (k->told < k->end ? POLLOUT : 0));
    struct pollfd p[] = {{TTY_FD_PROGRAM, POLLIN, 0},
                         {k->open ? TTY_FD_LISTENER : -1, POLLIN, 0},
                         {master ? TTY_FD_MASTER : -1, master, 0},
                         {visitor ? k->visitor : -1, visitor, 0}};

    if (poll(p, ARRAY_SIZE(p), -1) < 0)
        return;
    if (p[2].revents & POLLOUT)
        feed(k);
    /* What nobody looks at comes slowly, not as fast as a CPU of the host's can take it. */
    if (p[2].revents & ~POLLOUT && take_output(k) && k->visitor < 0)
        poll(NULL, 0, 1);
    if (p[3].revents & ~POLLOUT && !k->typed)
        hear(k);
    if (p[1].revents & POLLIN)
        greet(k);
    tell(k);
    *ended = p[0].revents & POLLIN;
}

/* --- the end -------------------------------------------------------------------------------------------------- */

/* The last words: what the terminal still holds, for as long as somebody listens. */
static void finish(struct keeper *k)
{
    uint64_t deadline = clock_in_ns(LAST_WORDS_NS);
    struct err ignored = ERR_INIT;
    int status = tty_reap(TTY_FD_PROGRAM, &ignored);

    greet(k); /* who came in the last moment is told, too */
    for (bool more = true; k->visitor >= 0 && !clock_passed(deadline);) {
        more = take_output(k);
        tell(k);
        if (!more && k->told == k->end)
            break;
        if (k->visitor >= 0 && k->told < k->end)
            fd_wait(k->visitor, POLLOUT, deadline);
    }
    if (k->visitor < 0 || fd_wait(k->visitor, POLLOUT, deadline) != 1)
        return;
    if (status < 0)
        status = 125;
    if (tty_say(k->visitor, TTY_ENDED, &status, sizeof(status)) < 0)
        drop_visitor(k);
}

void tty_keep(const char *socket_name)
{
    static struct keeper k; /* no initial values: it costs memory where it is written to only */
    bool ended = false;

    shim_withdraw();
    k.visitor = TTY_FD_VISITOR;
    k.open = fcntl(TTY_FD_LISTENER, F_GETFD) >= 0;
    for (int fd = TTY_FD_MASTER; fd < TTY_FD_END; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(TTY_FD_MASTER, F_SETFL, O_RDWR | O_NONBLOCK);
    while (!ended)
        turn(&k, &ended);
    unlinkat(TTY_FD_DIR, socket_name, 0);
    finish(&k);
}
