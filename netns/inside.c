/*
 * Each call is done by a thread made for it, which enters the namespace and never comes back: so no thread
 * of the program is ever in a namespace that is not its own, whatever fails.
 */
#include "netns/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "netns/ipam.h"

#define THREAD_STACK (256 * 1024)

struct call {
    int netns_fd; /* -1: a new namespace */
    net_inside_fn *fn;
    void *arg;
    int rc;
    struct err e;
};

static void *enter_and_call(void *arg)
{
    struct call *c = arg;

    if (c->netns_fd < 0 && unshare(CLONE_NEWNET) < 0)
        c->rc = err_sys(&c->e, "make a network namespace");
    else if (c->netns_fd >= 0 && setns(c->netns_fd, CLONE_NEWNET) < 0)
        c->rc = err_sys(&c->e, "enter the network namespace");
    else
        c->rc = c->fn(c->arg, &c->e);
    return NULL;
}

static int call_inside(struct call *c, struct err *e)
{
    pthread_attr_t attr;
    pthread_t thread;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    rc = pthread_create(&thread, &attr, enter_and_call, c);
    pthread_attr_destroy(&attr);
    if (rc)
        return err_sysno(e, rc, "start a thread for a network namespace");
    pthread_join(thread, NULL);
    if (c->rc < 0)
        *e = c->e;
    return c->rc;
}

int net_inside_call(int netns_fd, net_inside_fn *fn, void *arg, struct err *e)
{
    struct call c = {.netns_fd = netns_fd, .fn = fn, .arg = arg, .e = ERR_INIT};

    BUG_ON(netns_fd < 0);
    return call_inside(&c, e);
}

static int open_socket(void *arg, struct err *e)
{
    int fd = socket(*(int *)arg, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);

    return fd < 0 ? err_sys(e, "make a socket") : fd;
}

static socklen_t socket_address(const struct net_addr *a, uint16_t port,
                                struct sockaddr_storage *ret)
{
    struct sockaddr_in *in = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

    memset(ret, 0, sizeof(*ret));
    ret->ss_family = (sa_family_t)a->family;
    if (a->family == AF_INET) {
        in->sin_port = htons(port);
        memcpy(&in->sin_addr, a->b, 4);
        return sizeof(*in);
    }
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, a->b, 16);
    return sizeof(*in6);
}

/* Finish a non-blocking connect; the errno of the attempt. */
static int await_connect(int fd, uint64_t deadline_ns)
{
    int rc, sys = 0;
    socklen_t n = sizeof(sys);

    do
        rc = fd_wait(fd, POLLOUT, deadline_ns);
    while (rc < 0 && errno == EINTR);
    if (rc <= 0)
        return rc < 0 ? errno : ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &n) < 0 ? errno : sys;
}

int net_connect_inside(int netns_fd, const char *host, uint16_t port, uint64_t timeout_ns,
                       struct err *e)
{
    uint64_t deadline = clock_in_ns(timeout_ns);
    struct sockaddr_storage to;
    struct net_addr a;
    socklen_t n;
    int sys = 0, flags;

    if (net_ipam_parse_addr(host, &a, e) < 0)
        return -1;
    if (!port)
        return err_set(e, ERR_USER, "port 0: ports are 1 to 65535");
    n = socket_address(&a, port, &to);
    AUTO_CLOSE int fd = net_inside_call(netns_fd, open_socket, &a.family, e);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&to, n) < 0)
        sys = errno == EINPROGRESS ? await_connect(fd, deadline) : errno;
    if (sys) {
        err_sysno(e, sys, "connect to %s port %u", host, port);
        e->kind = ERR_REMOTE;
        return -1;
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return err_sys(e, "make the socket blocking");
    return take_fd(&fd);
}

static int loopback_up(void *arg, struct err *e)
{
    AUTO_CLOSE int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq req = {.ifr_name = "lo"};
    int fd;

    (void)arg;
    if (sock < 0 || ioctl(sock, SIOCGIFFLAGS, &req) < 0)
        return err_sys(e, "look at the loopback link");
    req.ifr_flags |= IFF_UP;
    if (ioctl(sock, SIOCSIFFLAGS, &req) < 0)
        return err_sys(e, "set the loopback link up");
    fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? err_sys(e, "open the new network namespace") : fd;
}

int net_namespace_new(struct err *e)
{
    struct call c = {.netns_fd = -1, .fn = loopback_up, .e = ERR_INIT};

    return call_inside(&c, e);
}
