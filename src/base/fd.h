#pragma once
/*
 * fd.h - whole reads and writes, passing descriptors. Threads: any.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct err;
struct str;

/* Write all n bytes, retrying EINTR and short writes. 0 or -1 with errno. */
int fd_write_all(int fd, const void *data, size_t n);
/* Read up to n bytes until the end of file; returns the count, or -1 with errno. */
ssize_t fd_read_full(int fd, void *buf, size_t n);
/* Read the rest of fd into s (bounded by its max). ERR_LIMIT when it is larger. */
int fd_read_all(int fd, struct str *s, struct err *e) MUST_CHECK;

/* Read a small regular file beneath dirfd (O_NOFOLLOW|O_NONBLOCK, must be S_ISREG or a kernel file). */
int fd_read_file_at(int dirfd, const char *name, struct str *s, struct err *e) MUST_CHECK;
/* Write text to an existing file (kernel interfaces: cgroup, proc); one write(2). */
int fd_write_file_at(int dirfd, const char *name, const char *text, struct err *e) MUST_CHECK;

/* Send and receive one message with up to FD_PASS_MAX descriptors over a unix socket.
 * Received descriptors are close-on-exec. recv returns the byte count, 0 at the end. */
#define FD_PASS_MAX 16
int fd_send(int sock, const void *data, size_t n, const int *fds, size_t n_fds, struct err *e)
    MUST_CHECK;
ssize_t fd_recv(int sock, void *data, size_t n, int *fds, size_t *n_fds, struct err *e) MUST_CHECK;

/* pidfd of a process, close-on-exec; -1 with errno. */
int fd_pidfd_open(pid_t pid);
/* A memfd holding the n bytes, sealed against change. */
int fd_memfd(const char *name, const void *data, size_t n, struct err *e) MUST_CHECK;
/* Duplicate with close-on-exec, from 3 up; -1 with errno. */
int fd_dup(int fd);
/* Is the other end of a Unix socket of our user? */
bool fd_peer_is_us(int sock) MUST_CHECK;
/* poll(2) one descriptor until the deadline: 1 ready, 0 time-out, -1 errno. */
int fd_wait(int fd, short events, uint64_t deadline_ns);
