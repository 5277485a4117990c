#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

int fd_write_all(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

ssize_t fd_read_full(int fd, void *buf, size_t n)
{
    size_t got = 0;

    while (got < n) {
        ssize_t r = read(fd, (char *)buf + got, n - got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

int fd_read_all(int fd, struct str *s, struct err *e)
{
    char buf[8192];

    for (;;) {
        ssize_t r = fd_read_full(fd, buf, sizeof(buf));

        if (r < 0)
            return err_sys(e, "read");
        if (str_append(s, buf, (size_t)r) < 0)
            return err_set(e, ERR_LIMIT, "larger than %zu bytes", s->max);
        if ((size_t)r < sizeof(buf))
            return 0;
    }
}

int fd_read_file_at(int dirfd, const char *name, struct str *s, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open %s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USER, "%s is not a regular file", name);
    if (fd_read_all(fd, s, e) < 0)
        return err_wrap(e, "%s", name);
    return 0;
}

int fd_write_file_at(int dirfd, const char *name, const char *text, struct err *e)
{
    AUTO_CLOSE int fd = openat(dirfd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t n = strlen(text);

    if (fd < 0)
        return err_sys(e, "open %s", name);
    ssize_t w = write(fd, text, n);

    if (w < 0)
        return err_sys(e, "write \"%s\" to %s", text, name);
    if ((size_t)w != n)
        return err_set(e, ERR_HOST, "write to %s: only %zd of %zu bytes taken", name, w, n);
    return 0;
}

union control {
    struct cmsghdr align;
    char buf[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
};

int fd_send(int sock, const void *data, size_t n, const int *fds, size_t n_fds, struct err *e)
{
    union control control = {0};
    struct iovec iov = {.iov_base = (void *)data, .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    BUG_ON(n_fds > FD_PASS_MAX);
    if (n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
    }
    ssize_t w;

    do
        w = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (w < 0 && errno == EINTR);
    if (w < 0)
        return err_sys(e, "send a message");
    if ((size_t)w != n)
        return err_set(e, ERR_HOST, "send a message: only %zd of %zu bytes taken", w, n);
    return 0;
}

/* Keep what fits into the caller's array; what does not is closed, never leaked. */
static void take_fds(struct msghdr *msg, int *fds, size_t *n_fds, size_t room)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (*n_fds < room)
                fds[(*n_fds)++] = fd;
            else
                close(fd);
        }
    }
}

ssize_t fd_recv(int sock, void *data, size_t n, int *fds, size_t *n_fds, struct err *e)
{
    union control control = {0};
    struct iovec iov = {.iov_base = data, .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    size_t room = n_fds ? *n_fds : 0, got = 0;
    ssize_t r;

    do
        r = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return err_sys(e, "receive a message");
    take_fds(&msg, fds, &got, room);
    if (n_fds)
        *n_fds = got;
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        for (size_t i = 0; i < got; i++)
            close(fds[i]);
        if (n_fds)
            *n_fds = 0;
        return err_set(e, ERR_REMOTE, "receive a message: longer than %zu bytes", n);
    }
    return r;
}

int fd_pidfd_open(pid_t pid)
{
    /* pidfds are always close-on-exec (pidfd_open(2)). */
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int fd_memfd(const char *name, const void *data, size_t n, struct err *e)
{
    AUTO_CLOSE int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return err_sys(e, "memfd %s", name);
    if (fd_write_all(fd, data, n) < 0)
        return err_sys(e, "memfd %s: write", name);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return err_sys(e, "memfd %s: seal", name);
    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(e, "memfd %s: seek", name);
    return take_fd(&fd);
}

int fd_dup(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

bool fd_peer_is_us(int sock)
{
    struct ucred c;
    socklen_t n = sizeof(c);

    return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && c.uid == geteuid();
}

int fd_wait(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int rc = poll(&p, 1, clock_left_ms(deadline_ns));

        if (rc < 0 && errno == EINTR)
            continue;
        return rc;
    }
}
