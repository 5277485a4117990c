/*
 * launch_msg.c - the parent's end of the messages that launch.h draws. Apart from launch.c, because the shim, which knows
 * no spec, speaks them too.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/str.h"
#include "runtime/launch.h"
#include "runtime/plan.h"

/* Where the errno alone would mislead. */
static const char *advice(const struct launch_msg *m)
{
    if (m->op == OP_FIND || m->op == OP_EXEC)
        return m->sys == ENOENT   ? ": executable file not found in $PATH"
               : m->sys == EACCES ? ": not executable"
               : m->sys == ENOEXEC
                   ? ": neither a program for this machine nor a script that begins with #!"
                   : NULL;
    if (m->sys == ELOOP && m->op == OP_ATTACH)
        return ": it is a symbolic link in the image, which is not followed";
    if (m->sys == ESTALE && m->op == OP_MASK)
        return ": something else is there now";
    if (m->sys == EPERM && m->op == OP_NEW_FS)
        return ": not allowed in this user namespace (is /proc or /sys partly covered on this host?)";
    if (m->sys == ENOTDIR && m->op == OP_ATTACH)
        return ": the source is a directory, the place in the image is a file";
    if (m->sys == EISDIR && m->op == OP_ATTACH)
        return ": the source is a file, the place in the image is a directory";
    return NULL;
}

static int failed(const struct launch_msg *m, struct err *e)
{
    char text[LAUNCH_TEXT + 1], shown[STR_SHOW_MAX];
    const char *more = advice(m);
    bool program = m->op == OP_FIND || m->op == OP_EXEC;

    memcpy(text, m->text, LAUNCH_TEXT);
    text[LAUNCH_TEXT] = '\0';
    str_show(shown, text);
    if (more) {
        err_set(e,
                program || m->sys == ELOOP || m->sys == ENOTDIR || m->sys == EISDIR ? ERR_USER
                                                                                    : ERR_HOST,
                "%s%s%s%s", program ? "exec" : plan_op_name(m->op), *shown ? " " : "", shown, more);
        e->sys = m->sys;
        return -1;
    }
    return err_sysno(e, m->sys, "%s%s%s", program ? "exec" : plan_op_name(m->op), *shown ? " " : "",
                     shown);
}

static ssize_t receive(int fd, struct launch_msg *m)
{
    ssize_t n;

    do
        n = recv(fd, m, sizeof(*m), 0);
    while (n < 0 && errno == EINTR);
    return n;
}

int launch_expect(struct launch *l, enum launch_msg_kind kind, struct err *e)
{
    struct launch_msg m = {0};
    ssize_t n = receive(l->channel, &m);

    if (n < 0)
        return err_sys(e, "wait for the container");
    if (n == 0)
        return err_set(
            e, ERR_HOST,
            "the container's first process died while it was set up (out of memory, or killed)");
    if (n != sizeof(m))
        return err_set(e, ERR_BUG, "a message of %zd bytes from the container", n);
    if (m.kind == LAUNCH_FAILED)
        return failed(&m, e);
    return m.kind == kind
               ? 0
               : err_set(e, ERR_BUG, "message %u from the container, not %d", m.kind, kind);
}

static int send_go(int fd, struct err *e)
{
    struct launch_msg m = {.kind = LAUNCH_GO};

    return send(fd, &m, sizeof(m), MSG_NOSIGNAL) < 0 ? err_sys(e, "tell the container to go on")
                                                     : 0;
}

int launch_go(struct launch *l, struct err *e)
{
    return send_go(l->channel, e);
}

/* 0: the program was executed; 1: a listener comes first. */
static int outcome(int fd, uint64_t *ret_cell, struct err *e)
{
    struct launch_msg m = {0};
    ssize_t n = receive(fd, &m);

    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return 0;
    if (n < 0)
        return err_sys(e, "wait for the container's program");
    if (m.kind == LAUNCH_FAILED)
        return failed(&m, e);
    if (m.kind != LAUNCH_NOTIFY_FD)
        return err_set(e, ERR_BUG, "message %u instead of the program's start", m.kind);
    if (!ret_cell)
        return err_set(e, ERR_USER, "linux.seccomp.listenerPath: a listener has no place here");
    memcpy(ret_cell, m.text, sizeof(*ret_cell));
    return 1;
}

int launch_release(int fd, uint64_t *ret_cell, struct err *e)
{
    return send_go(fd, e) < 0 ? -1 : outcome(fd, ret_cell, e);
}

int launch_outcome(int fd, struct err *e)
{
    return outcome(fd, NULL, e);
}
