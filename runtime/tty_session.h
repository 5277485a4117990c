#pragma once
/*
 * tty_session.h - a terminal that a person may leave and come back to.
 *
 *   cwrun exec ───┐                                    ┌── master ── program in the container, the keeper's child
 *                 ├── SOCK_SEQPACKET ───── keeper ─────┤
 *   cwrun attach ─┘   RUN/tty-PID                      └── pidfd
 *
 * The keeper is there from the beginning, as only a program's parent is told how it ended. It executes the shim's small
 * static program over itself, so that what may stay for days is a few pages and 64 KiB of what was last written. One
 * visitor at a time: who comes takes over, as the one before may sit on a connection that is long dead. When nobody is
 * there the output is read all the same, so that the program neither blocks nor is hung up. The end of the program is the
 * end of its keeper and of the socket.
 * Threads: single-threaded programs only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;

/* A packet: one of these, and what it says. Visitor and keeper are of one installation. */
enum tty_word {
    TTY_INPUT = 'i',   /* visitor: bytes */
    TTY_SIZE = 'w',    /* visitor: struct winsize */
    TTY_SIGNAL = 's',  /* visitor: int, for the program */
    TTY_STARTED = 'b', /* keeper: pid_t; once, to the first visitor */
    TTY_FAILED = 'f',  /* keeper, instead: struct err */
    TTY_OUTPUT = 'o',  /* keeper: bytes */
    TTY_TAKEN = 'k',   /* keeper: another visitor has come */
    TTY_ENDED = 'x',   /* keeper: int, the status as shells count it */
};
enum { TTY_PACKET_MAX = 8192 };
struct tty_packet {
    char word, data[TTY_PACKET_MAX];
};
/* Does not block. 0, or -1 with errno. */
int tty_say(int sock, enum tty_word word, const void *data, size_t n) MUST_CHECK;

#define TTY_SOCKET_PREFIX "tty-"
/* The first argument of cwshim that makes it a keeper; the second one is the name of its socket. */
#define TTY_KEEPER "terminal"

/* What a keeper is left, at these numbers; a listener may be missing. */
enum {
    TTY_FD_MASTER = 3,
    TTY_FD_PROGRAM, /* pidfd of our child */
    TTY_FD_LISTENER,
    TTY_FD_VISITOR, /* the first one */
    TTY_FD_DIR,     /* where the socket lies */
    TTY_FD_END,
};
/* Become the keeper: execute `shim`, or when it is NULL or cannot be executed, go on as we are. */
_Noreturn void tty_become_keeper(const char *shim, const char *socket_name,
                                 const int fds[TTY_FD_END]);
/* A keeper's life. Returns when the program has ended. */
void tty_keep(const char *socket_name);

/* Make the socket for later visitors of the program `pid` in `dir`. Returns the listener. */
int tty_listen(int dir, pid_t pid, struct err *e) MUST_CHECK;
/* Come back to it. Errors: ERR_ABSENT when it has ended. */
int tty_come_back(int dir, pid_t pid, struct err *e) MUST_CHECK;
/* Programs in `dir` that have a keeper, up to max. Returns their number. */
size_t tty_sessions(int dir, pid_t *ret, size_t max);

/* The first visitor's wait: 0, or what kept the program from being started. Blocks. */
int tty_await_start(int sock, pid_t *ret_pid, struct err *e) MUST_CHECK;
enum tty_parting { TTY_PART_ENDED, TTY_PART_LEFT, TTY_PART_TAKEN };
/*
 * Relay between standard input and output and the keeper until the program ends or the visit does: the size of our terminal
 * with each SIGWINCH, other signals to the program; a hang-up of our terminal leaves.
 *   signals    signalfd(2), not blocking
 *   terminal   ours is one: its keys Ctrl-P Ctrl-Q leave
 * Returns the program's status, 128 + signal, and 0 when it lives on. Blocks.
 */
int tty_visit(int sock, int signals, bool terminal, enum tty_parting *ret, struct err *e)
    MUST_CHECK;
