#include "runtime/shim_hand.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

#define HAND_MAGIC 0x32687763U /* "cwh2" */

int shim_hand_reserve(struct err *e)
{
    for (int i = SHIM_FD_LOCK; i < SHIM_FD_END; i++)
        if (fcntl(i, F_GETFD) >= 0 || fcntl(SHIM_FD_DIR, F_DUPFD_CLOEXEC, i) != i)
            return err_set(e, ERR_HOST, "descriptor %d is in use", i);
    return 0;
}

/* dup2 clears close-on-exec, but not of a descriptor that is in its place already. */
static int lay_down(const int fds[SHIM_FD_END])
{
    for (int i = SHIM_FD_HAND; i < SHIM_FD_END; i++) {
        if (fds[i] < 0)
            close(i);
        else if (fds[i] == i ? fcntl(i, F_SETFD, 0) < 0 : dup2(fds[i], i) < 0)
            return -1;
    }
    return 0;
}

int shim_hand_over(const char *shim, const char *id, const struct shim_hand *h,
                   const int fds[SHIM_FD_END], struct err *e)
{
    char *const argv[] = {(char *)"cwshim", (char *)id, NULL}, *const nothing[] = {NULL};
    struct shim_hand marked = *h;
    int all[SHIM_FD_END];

    marked.magic = HAND_MAGIC;
    marked.size = sizeof(marked);
    AUTO_CLOSE int memfd = fd_memfd("hand", &marked, sizeof(marked), e);

    if (memfd < 0)
        return -1;
    memcpy(all, fds, sizeof(all));
    all[SHIM_FD_HAND] = memfd;
    all[SHIM_FD_DIR] = SHIM_FD_DIR;
    all[SHIM_FD_CONTROL] = SHIM_FD_CONTROL;
    if (lay_down(all) == 0)
        execve(shim, argv, nothing);
    return err_sys(e, "start %s", shim);
}

static int check(const struct shim_hand *h, ssize_t n, struct err *e)
{
    if (n != sizeof(*h) || h->magic != HAND_MAGIC || h->size != sizeof(*h) || h->pid < 1 ||
        !memchr(h->cgroup, '\0', sizeof(h->cgroup)) || !memchr(h->note, '\0', sizeof(h->note)))
        return err_set(e, ERR_HOST, "what the shim was left is of another version");
    return 0;
}

int shim_hand_take(struct shim_hand *ret, int fds[SHIM_FD_END], struct err *e)
{
    ssize_t n = pread(SHIM_FD_HAND, ret, sizeof(*ret), 0);

    for (int i = 0; i < SHIM_FD_END; i++)
        fds[i] = fcntl(i, F_SETFD, i < SHIM_FD_HAND ? 0 : FD_CLOEXEC) < 0 ? -1 : i;
    if (check(ret, n, e) < 0)
        return -1;
    close_fd(&fds[SHIM_FD_HAND]);
    if (fds[SHIM_FD_DIR] < 0 || fds[SHIM_FD_LISTENER] < 0 || fds[SHIM_FD_INIT] < 0 ||
        fds[SHIM_FD_CHANNEL] < 0)
        return err_set(e, ERR_HOST, "the shim was left too few descriptors");
    return 0;
}
