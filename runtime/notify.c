#include "runtime/notify.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/json.h"
#include "runtime/tty.h"

enum { POLL_NS = 500000 };
#define LOAD_WAIT_NS (10 * NS_PER_S)

static int await_fd(pid_t pid, uint64_t cell, struct err *e)
{
    uint64_t deadline = clock_in_ns(LOAD_WAIT_NS);
    int fd = -1;
    struct iovec mine = {&fd, sizeof(fd)};
    struct iovec its = {(void *)(uintptr_t)(cell + offsetof(struct notify_cell, fd)), sizeof(fd)};

    while (!clock_passed(deadline)) {
        if (process_vm_readv(pid, &mine, 1, &its, 1, 0) != sizeof(fd))
            return err_sys(e, "wait for the seccomp filter");
        if (fd >= 0)
            return fd;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return err_set(e, ERR_HOST, "the seccomp filter was not loaded in time");
}

static int let_go(pid_t pid, uint64_t cell, struct err *e)
{
    int done = 1;
    struct iovec mine = {&done, sizeof(done)};
    struct iovec its = {(void *)(uintptr_t)(cell + offsetof(struct notify_cell, done)),
                        sizeof(done)};

    return process_vm_writev(pid, &mine, 1, &its, 1, 0) == sizeof(done)
               ? 0
               : err_sys(e, "let the container go on");
}

static char *process_state(const struct notify_to *to, struct err *e)
{
    AUTO(cJSON) cJSON *o = cJSON_CreateObject(), *state = NULL;
    AUTO(str_list) struct str_list fds = {0};

    if (json_parse(to->state, strlen(to->state), &state, e) < 0)
        return NULL;
    str_list_add(&fds, "seccompFd");
    json_add_str(o, "ociVersion",
                 cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(state, "ociVersion")));
    json_add_str_list(o, "fds", &fds);
    json_add_int(o, "pid", to->pid);
    if (to->metadata)
        json_add_str(o, "metadata", to->metadata);
    json_add_item(o, "state", cJSON_Duplicate(state, true));
    return json_text(o);
}

int notify_hand_over(const struct notify_to *to, uint64_t cell, struct err *e)
{
    AUTO_FREE char *message = process_state(to, e);
    AUTO_CLOSE int sock = message ? tty_connect(to->path, e) : -1;

    if (sock < 0)
        return err_wrap(e, "linux.seccomp.listenerPath");
    int number = await_fd(to->pid, cell, e);

    if (number < 0)
        return -1;
    AUTO_CLOSE int fd = (int)syscall(SYS_pidfd_getfd, to->pidfd, number, 0);

    if (fd < 0)
        return err_sys(e, "take the seccomp listener");
    if (fd_send(sock, message, strlen(message), &fd, 1, e) < 0)
        return err_wrap(e, "linux.seccomp.listenerPath %s", to->path);
    return let_go(to->pid, cell, e);
}
