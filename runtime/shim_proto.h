#pragma once
/*
 * shim_proto.h - what the daemon and cwshim say to each other.
 *
 *   daemon                              cwrt shim, that becomes cwshim (shim_hand.h)
 *     │  spawn: config.json on fd 3,      │
 *     │  runtime directory on 4,          │
 *     │  this connection on 5             │
 *     │ ◄──────── HELLO(pid) [pidfd] ──── │  lives; holds the lock; listens on "control"
 *     │                                   │  …ctr_create, execve…
 *     │ ◄─ STATE(pid, 0, note) [netns, cgroup]   created, stopped before exec
 *     │   or FAILED(kind, text)           │  the record is written, the shim ends
 *     │ START ──────────────────────────► │
 *     │ ◄──────────── OK, or FAILED(kind, text)  the program runs, or could not be executed (shim ends)
 *     │ KILL(signal) ───────────────────► │
 *     │ ◄──────────── OK, or ERROR(kind, text)
 *
 *   A daemon that comes later connects to "control" and asks:
 *     │ ASK ────────────────────────────► │
 *     │ ◄─ HELLO(pid) [pidfd], STATE(pid, started, note) [netns, cgroup]
 *
 * Each is one message of fixed size on a SOCK_SEQPACKET socket; anything else ends the connection. The peer must be
 * root (SO_PEERCRED). The layout never changes: shims live on while the daemon is upgraded; a new need is a new type.
 * Threads: any. Ownership: plain data.
 */
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct err;

enum shim_msg_type {
    SHIM_HELLO = 1, /* a: pid of the shim; descriptor: its pidfd */
    SHIM_STATE,     /* a: pid of the init, b: 1 started; text: note; descriptors: see flags */
    SHIM_FAILED,    /* a: enum err_kind, b: errno; text: why */
    SHIM_ERROR,     /* the same, and nothing else changed */
    SHIM_OK,
    SHIM_START = 16,
    SHIM_KILL, /* a: signal */
    SHIM_ASK,
};

/* Which descriptors follow a STATE, in this order. */
enum { SHIM_HAS_NETNS = 1, SHIM_HAS_CGROUP = 2 };

struct shim_msg {
    uint32_t magic;
    uint16_t type, flags;
    int32_t a, b;
    char text[504]; /* NUL-terminated */
};

#define SHIM_MAGIC 0x31687763U /* "cwh1" */
enum { SHIM_FD_CONFIG = 3, SHIM_FD_DIR, SHIM_FD_CONTROL, SHIM_N_FDS };

/* Names in the runtime directory. */
#define SHIM_FILE_LOCK    "lock"
#define SHIM_FILE_CONTROL "control"
#define SHIM_FILE_CONFIG  "config.json"
#define SHIM_FILE_PID     "pid"
#define SHIM_FILE_CGROUP  "cgroup"
#define SHIM_FILE_LOG     "ctr.log"

/* A message of this type; text may be NULL. */
struct shim_msg shim_msg_make(enum shim_msg_type type, int a, int b, const char *text);
/* The n bytes at buf as a message: ERR_REMOTE when they are none. */
int shim_msg_parse(const void *buf, size_t n, struct shim_msg *ret, struct err *e) MUST_CHECK;
/* Send and receive one. recv: *n_fds is the room and then the count; 0 at the end of the connection, else 1. */
int shim_msg_send(int sock, const struct shim_msg *m, const int *fds, size_t n_fds, struct err *e)
    MUST_CHECK;
int shim_msg_recv(int sock, struct shim_msg *ret, int *fds, size_t *n_fds, struct err *e)
    MUST_CHECK;
/* The error that FAILED and ERROR carry, into e: and back. Returns -1. */
int shim_msg_error(const struct shim_msg *m, struct err *e);
struct shim_msg shim_msg_of_error(enum shim_msg_type type, const struct err *e);
/* HELLO of this process, with its pidfd. */
int shim_msg_hello(int sock, struct err *e) MUST_CHECK;
