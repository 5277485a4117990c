/* tty_session.c - how visitors and keepers find each other. */
#include "runtime/tty_session.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "base/units.h"

int tty_say(int sock, enum tty_word word, const void *data, size_t n)
{
    struct tty_packet p = {.word = (char)word};

    BUG_ON(n > sizeof(p.data));
    memcpy(p.data, data, n);
    return send(sock, &p, n + 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Through a descriptor, as a socket's path may have 107 bytes only. */
static struct sockaddr_un address(int dir, pid_t pid)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" TTY_SOCKET_PREFIX "%d", dir, pid);
    return a;
}

int tty_listen(int dir, pid_t pid, struct err *e)
{
    struct sockaddr_un a = address(dir, pid);
    const char *name = strrchr(a.sun_path, '/') + 1;
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* One of this name is of a keeper that was killed, and of a program whose number is in use again. */
    unlinkat(dir, name, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        fchmodat(dir, name, 0600, 0) < 0 || listen(fd, 4) < 0)
        return err_sys(e, "make the terminal's socket");
    return take_fd(&fd);
}

int tty_come_back(int dir, pid_t pid, struct err *e)
{
    struct sockaddr_un a = address(dir, pid);
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return errno == ENOENT || errno == ECONNREFUSED
                   ? err_set(e, ERR_ABSENT, "program %d has no terminal to come back to", pid)
                   : err_sys(e, "the terminal of program %d", pid);
    if (!fd_peer_is_us(fd))
        return err_set(e, ERR_HOST, "the terminal of program %d is not kept by us", pid);
    return take_fd(&fd);
}

size_t tty_sessions(int dir, pid_t *ret, size_t max)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    size_t n = 0;

    if (!d) {
        close_fd(&fd);
        return 0;
    }
    for (struct dirent *entry; n < max && (entry = readdir(d));) {
        struct err ignored = ERR_INIT;
        uint64_t pid = 0;

        if (str_starts(entry->d_name, TTY_SOCKET_PREFIX) &&
            units_u64(entry->d_name + strlen(TTY_SOCKET_PREFIX), INT32_MAX, &pid, &ignored) == 0 &&
            pid > 1 && kill((pid_t)pid, 0) == 0)
            ret[n++] = (pid_t)pid;
    }
    closedir(d);
    return n;
}

/* Above the numbers first, as one may lie where another one is to be. */
static int lay_down(const int fds[TTY_FD_END])
{
    int high[TTY_FD_END];

    for (int i = TTY_FD_MASTER; i < TTY_FD_END; i++)
        if ((high[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, TTY_FD_END)) < 0 &&
            fds[i] >= 0)
            return -1;
    for (int i = TTY_FD_MASTER; i < TTY_FD_END; i++)
        if (high[i] < 0 ? close(i) < 0 && errno != EBADF : dup2(high[i], i) < 0)
            return -1;
    for (int i = 0; i < 3; i++) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (null < 0 || dup2(null, i) < 0)
            return -1;
    }
    return close_range(TTY_FD_END, ~0U, 0);
}

_Noreturn void tty_become_keeper(const char *shim, const char *socket_name,
                                 const int fds[TTY_FD_END])
{
    char *const argv[] = {(char *)"cwshim", (char *)TTY_KEEPER, (char *)socket_name, NULL};
    char *const nothing[] = {NULL};

    if (lay_down(fds) < 0)
        _exit(1);
    if (shim)
        execve(shim, argv, nothing);
    tty_keep(socket_name);
    _exit(0);
}
