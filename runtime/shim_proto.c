#include "runtime/shim_proto.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

_Static_assert(sizeof(struct shim_msg) == 520, "shims of other versions speak this layout");

struct shim_msg shim_msg_make(enum shim_msg_type type, int a, int b, const char *text)
{
    struct shim_msg m = {.magic = SHIM_MAGIC, .type = (uint16_t)type, .a = a, .b = b};

    snprintf(m.text, sizeof(m.text), "%s", text ? text : "");
    return m;
}

int shim_msg_parse(const void *buf, size_t n, struct shim_msg *ret, struct err *e)
{
    struct shim_msg m;

    if (n != sizeof(m))
        return err_set(e, ERR_REMOTE, "shim: a message of %zu bytes", n);
    memcpy(&m, buf, sizeof(m));
    if (m.magic != SHIM_MAGIC || !memchr(m.text, '\0', sizeof(m.text)))
        return err_set(e, ERR_REMOTE, "shim: a message that is none of ours");
    *ret = m;
    return 0;
}

int shim_msg_send(int sock, const struct shim_msg *m, const int *fds, size_t n_fds, struct err *e)
{
    return fd_send(sock, m, sizeof(*m), fds, n_fds, e);
}

int shim_msg_recv(int sock, struct shim_msg *ret, int *fds, size_t *n_fds, struct err *e)
{
    struct shim_msg m;
    ssize_t n = fd_recv(sock, &m, sizeof(m), fds, n_fds, e);

    if (n <= 0)
        return (int)n;
    if (shim_msg_parse(&m, (size_t)n, ret, e) == 0)
        return 1;
    for (size_t i = 0; n_fds && i < *n_fds; i++)
        close_fd(&fds[i]);
    if (n_fds)
        *n_fds = 0;
    return -1;
}

int shim_msg_error(const struct shim_msg *m, struct err *e)
{
    enum err_kind kind = m->a > ERR_NONE && m->a <= ERR_BUG ? (enum err_kind)m->a : ERR_HOST;

    err_set(e, kind, "%s", m->text);
    e->sys = m->b;
    return -1;
}

struct shim_msg shim_msg_of_error(enum shim_msg_type type, const struct err *e)
{
    return shim_msg_make(type, (int)e->kind, e->sys, e->msg);
}

int shim_msg_hello(int sock, struct err *e)
{
    struct shim_msg m = shim_msg_make(SHIM_HELLO, getpid(), 0, NULL);
    AUTO_CLOSE int self = fd_pidfd_open(getpid());

    return self < 0 ? err_sys(e, "hold ourselves") : shim_msg_send(sock, &m, &self, 1, e);
}
