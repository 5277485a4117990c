#pragma once
/*
 * tty.h - consoles: the caller's end. The container's terminal is made inside by OP_CONSOLE, and its master comes
 * over a socket. Single-threaded programs only.
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
/* Size of ours to the master, ours to raw; nothing when standard input is no terminal. */
int tty_enter_raw(struct tty_raw *t, int master, struct err *e) MUST_CHECK;
void tty_leave_raw(struct tty_raw *t);
DEFINE_AUTO_VALUE(tty_raw, tty_leave_raw)
void tty_copy_size(int master);
