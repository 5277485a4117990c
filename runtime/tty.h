#pragma once
/*
 * tty.h - consoles: the caller's end. The container's terminal is made inside by OP_CONSOLE, and its master comes
 * over a socket. A terminal that can be left and come back to: tty_session.h. Single-threaded programs only.
 */
#include <stdbool.h>
#include <termios.h>

#include "base/cleanup.h"

struct err;

/* Connect to a --console-socket, or another stream socket by path. */
int tty_connect(const char *path, struct err *e) MUST_CHECK;
/* Take the master that the child sent; proven to be the master of a pty. */
int tty_receive(int sock, struct err *e) MUST_CHECK;

/* Our own terminal in raw mode, restored on release. */
struct tty_raw {
    bool active;
    struct termios saved;
};
#define TTY_RAW_INIT ((struct tty_raw){.active = false})
/* Size of ours to the master (-1: none), ours to raw; nothing when standard input is no terminal. */
int tty_enter_raw(struct tty_raw *t, int master, struct err *e) MUST_CHECK;
void tty_leave_raw(struct tty_raw *t);
DEFINE_AUTO_VALUE(tty_raw, tty_leave_raw)
void tty_copy_size(int master);

/*
 * The keys that leave a program running: Ctrl-P Ctrl-Q, as Docker's. Bytes of a terminal go through here on their way
 * in; a Ctrl-P is held back until the next byte shows what it was.
 *   out  room for n + 1 bytes
 * Returns how many are to be sent on; *detach when the keys were pressed, what follows them is dropped.
 */
struct tty_keys {
    bool held;
};
size_t tty_filter_keys(struct tty_keys *k, const char *in, size_t n, char *out, bool *detach);

/*
 * Wait for a program without a terminal; signals are passed on.
 *   signals   signalfd(2), not blocking
 * Returns the program's status, 128 + signal. Blocks.
 */
int tty_wait(int pidfd, int signals, struct err *e) MUST_CHECK;
/* Its status, when the pidfd of a child of ours says that it has ended. */
int tty_reap(int pidfd, struct err *e) MUST_CHECK;
