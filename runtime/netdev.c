#include "runtime/netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "runtime/spec.h"

enum { MESSAGE_MAX = 1024, REPLY_MAX = 32768, ADDRESSES_MAX = 256 };

/* A message being put together. */
struct request {
    struct nlmsghdr h;
    char room[MESSAGE_MAX];
};

static void begin(struct request *r, uint16_t type, uint16_t flags, const void *head, size_t n)
{
    *r = (struct request){.h = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(n),
                                .nlmsg_type = type,
                                .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)}};
    memcpy(NLMSG_DATA(&r->h), head, n);
}

static void add_attr(struct request *r, uint16_t type, const void *data, size_t n)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));

    BUG_ON(NLMSG_ALIGN(r->h.nlmsg_len) + RTA_SPACE(n) > sizeof(*r));
    a->rta_type = type;
    a->rta_len = (uint16_t)RTA_LENGTH(n);
    memcpy(RTA_DATA(a), data, n);
    r->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* 0, or the kernel's errno. */
static int ask(const struct request *r, int sock)
{
    union {
        struct nlmsghdr h;
        char bytes[MESSAGE_MAX * 2];
    } reply;

    if (send(sock, r, r->h.nlmsg_len, 0) < 0)
        return errno;
    ssize_t n = recv(sock, &reply, sizeof(reply), 0);

    if (n < 0)
        return errno;
    if (!NLMSG_OK(&reply.h, (uint32_t)n) || reply.h.nlmsg_type != NLMSG_ERROR)
        return EPROTO;
    return -((const struct nlmsgerr *)NLMSG_DATA(&reply.h))->error;
}

static int open_socket(struct err *e)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    return fd < 0 ? err_sys(e, "netlink socket") : fd;
}

/* --- addresses ----------------------------------------------------------------------------------------------------- */

/* RTM_NEWADDR messages, ready but for the index. */
struct addresses {
    struct request items[ADDRESSES_MAX];
    size_t n;
};

/* Permanent and of global scope; without its label, which has the old name in it. */
static void keep_address(struct addresses *l, const struct nlmsghdr *h, int index)
{
    const struct ifaddrmsg *ifa = NLMSG_DATA(h);
    uint32_t flags = ifa->ifa_flags;
    struct request *r = &l->items[l->n];
    int left = (int)IFA_PAYLOAD(h);

    if (ifa->ifa_index != (uint32_t)index || ifa->ifa_scope != RT_SCOPE_UNIVERSE ||
        l->n == ADDRESSES_MAX)
        return;
    begin(r, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, ifa, sizeof(*ifa));
    for (struct rtattr *a = IFA_RTA(ifa); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFA_FLAGS)
            memcpy(&flags, RTA_DATA(a), sizeof(flags));
        if (a->rta_type != IFA_LABEL && a->rta_type != IFA_CACHEINFO)
            add_attr(r, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
    }
    if (flags & IFA_F_PERMANENT)
        l->n++;
}

static int read_addresses(int sock, int index, struct addresses *l, struct err *e)
{
    AUTO_FREE char *buf = mem_alloc(REPLY_MAX);
    struct ifaddrmsg all = {.ifa_family = AF_UNSPEC};
    struct request r;

    begin(&r, RTM_GETADDR, NLM_F_DUMP, &all, sizeof(all));
    if (send(sock, &r, r.h.nlmsg_len, 0) < 0)
        return err_sys(e, "ask for addresses");
    for (;;) {
        ssize_t n = recv(sock, buf, REPLY_MAX, 0);

        if (n <= 0)
            return err_sys(e, "read addresses");
        uint32_t left = (uint32_t)n;

        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, left);
             h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (h->nlmsg_type == RTM_NEWADDR)
                keep_address(l, h, index);
        }
    }
}

/* --- inside ----------------------------------------------------------------------------------------------------------- */

static bool has_index(const struct if_nameindex *list, unsigned index)
{
    for (; list && list->if_index; list++)
        if (list->if_index == index)
            return true;
    return false;
}

/* The device that was not there before: with a pattern for a name, only the kernel knows what it is called. */
static unsigned new_index(const struct if_nameindex *before)
{
    struct if_nameindex *now = if_nameindex();
    unsigned found = 0;

    for (const struct if_nameindex *i = now; i && i->if_index && !found; i++)
        if (!has_index(before, i->if_index))
            found = i->if_index;
    if_freenameindex(now);
    return found;
}

static int set_up(int sock, unsigned index, struct addresses *l, struct err *e)
{
    struct ifinfomsg up = {.ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct request r;

    for (size_t i = 0; i < l->n; i++) {
        ((struct ifaddrmsg *)NLMSG_DATA(&l->items[i].h))->ifa_index = index;
        int why = ask(&l->items[i], sock);

        if (why)
            return err_sysno(e, why, "give it an address");
    }
    begin(&r, RTM_NEWLINK, NLM_F_ACK, &up, sizeof(up));
    int why = ask(&r, sock);

    return why ? err_sysno(e, why, "set it up") : 0;
}

static int move(int sock, int index, const char *name, int netns, struct err *e)
{
    struct ifinfomsg head = {.ifi_index = index};
    struct request r;

    begin(&r, RTM_NEWLINK, NLM_F_ACK, &head, sizeof(head));
    add_attr(&r, IFLA_NET_NS_FD, &netns, sizeof(netns));
    add_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    int why = ask(&r, sock);

    return why ? err_sysno(e, why, "move it into the container") : 0;
}

/* Before the move: the kernel moves first and renames then, and what is inside by then is lost with the container. */
static int is_name_free(const char *name, struct err *e)
{
    return !strchr(name, '%') && if_nametoindex(name)
               ? err_set(e, ERR_USER, "a device named %s is in the container already", name)
               : 0;
}

/* Sockets belong to the namespace they were made in, so one is made on each side. */
static int move_between(int outside, int index, const char *name, int netns, int back,
                        struct err *e)
{
    AUTO_FREE struct addresses *l = mem_new(struct addresses);
    int r = -1;

    if (read_addresses(outside, index, l, e) < 0)
        return -1;
    if (setns(netns, CLONE_NEWNET) < 0)
        return err_sys(e, "enter the network namespace");
    struct if_nameindex *before = if_nameindex();
    AUTO_CLOSE int inside = open_socket(e);

    if (inside >= 0 && is_name_free(name, e) == 0 && move(outside, index, name, netns, e) == 0)
        r = set_up(inside, new_index(before), l, e);
    if_freenameindex(before);
    BUG_ON(setns(back, CLONE_NEWNET) < 0);
    return r;
}

int netdev_move(const struct ctr_net_device *d, int netns, struct err *e)
{
    AUTO_CLOSE int sock = open_socket(e);
    AUTO_CLOSE int back = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int index = (int)if_nametoindex(d->host);
    char shown[STR_SHOW_MAX];

    if (sock < 0)
        return -1;
    if (back < 0)
        return err_sys(e, "our network namespace");
    if (!index)
        return err_set(e, ERR_USER, "linux.netDevices: the host has no %s",
                       str_show(shown, d->host));
    if (move_between(sock, index, d->name ? d->name : d->host, netns, back, e) < 0)
        return err_wrap(e, "linux.netDevices.%s", d->host);
    return 0;
}
