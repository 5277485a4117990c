#include "runtime/tty.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/fd.h"

int tty_connect(const char *path, struct err *e)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(a.sun_path))
        return err_set(e, ERR_USER, "socket %s: the path is too long", path);
    memcpy(a.sun_path, path, strlen(path) + 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return err_sys(e, "socket %s", path);
    return take_fd(&fd);
}

int tty_receive(int sock, struct err *e)
{
    char name[64];
    int fds[FD_PASS_MAX];
    size_t n = FD_PASS_MAX;
    unsigned number;

    if (fd_recv(sock, name, sizeof(name), fds, &n, e) < 0)
        return err_wrap(e, "receive the terminal");
    if (n != 1 || ioctl(fds[0], TIOCGPTN, &number) < 0) {
        for (size_t i = 0; i < n; i++)
            close(fds[i]);
        return err_set(e, ERR_BUG, "what came over the console socket is not a terminal");
    }
    return fds[0];
}

void tty_copy_size(int master)
{
    struct winsize size;

    if (ioctl(0, TIOCGWINSZ, &size) == 0)
        ioctl(master, TIOCSWINSZ, &size);
}

int tty_enter_raw(struct tty_raw *t, int master, struct err *e)
{
    struct termios raw;

    if (tcgetattr(0, &t->saved) < 0)
        return 0;
    if (master >= 0)
        tty_copy_size(master);
    raw = t->saved;
    cfmakeraw(&raw);
    if (tcsetattr(0, TCSANOW, &raw) < 0)
        return err_sys(e, "set the terminal to raw mode");
    t->active = true;
    return 0;
}

void tty_leave_raw(struct tty_raw *t)
{
    if (t->active)
        tcsetattr(0, TCSANOW, &t->saved);
    t->active = false;
}
