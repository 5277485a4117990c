/* Waiting for a container in the foreground: its end, signals to forward, a terminal to relay. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cwrt.h"
#include "runtime/tty.h"

enum { RELAY_BYTES = 16384 };

static int reap(int pidfd, struct err *e)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
        if (errno != EINTR)
            return err_sys(e, "wait for the container");
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

/* Kernel-made ones are about us, not about the container. */
static void forward(int sfd, int pidfd, int master)
{
    struct signalfd_siginfo s;

    if (read(sfd, &s, sizeof(s)) != sizeof(s))
        return;
    if (s.ssi_signo == SIGWINCH && master >= 0)
        tty_copy_size(master);
    else if (s.ssi_signo != SIGCHLD && s.ssi_signo != SIGPIPE && s.ssi_signo != SIGURG)
        syscall(SYS_pidfd_send_signal, pidfd, (int)s.ssi_signo, NULL, 0);
}

/* One read's worth; false at the end. */
static bool copy(int from, int to)
{
    char buf[RELAY_BYTES];
    ssize_t n = read(from, buf, sizeof(buf));

    return n > 0 && fd_write_all(to, buf, (size_t)n) == 0;
}

int cwrt_wait_forwarding(int pidfd, int tty_master, struct err *e)
{
    sigset_t all, old;

    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigprocmask(SIG_BLOCK, &all, &old);
    AUTO_CLOSE int sfd = signalfd(-1, &all, SFD_CLOEXEC);
    struct pollfd fds[] = {{pidfd, POLLIN, 0},
                           {sfd, POLLIN, 0},
                           {tty_master, POLLIN, 0},
                           {tty_master < 0 ? -1 : 0, POLLIN, 0}};

    if (sfd < 0)
        return err_sys(e, "signalfd");
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return err_sys(e, "poll");
        if (fds[1].revents)
            forward(sfd, pidfd, tty_master);
        if (fds[2].revents && !copy(tty_master, 1))
            fds[2].fd = -1;
        if (fds[3].revents && !copy(0, tty_master))
            fds[3].fd = -1;
    }
    /* The last words: what the terminal still holds. */
    while (fds[2].fd >= 0 && poll(&fds[2], 1, 0) > 0 && copy(tty_master, 1))
        ;
    sigprocmask(SIG_SETMASK, &old, NULL);
    return reap(pidfd, e);
}
