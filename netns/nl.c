#include "netns/nl.h"

#include <errno.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

/* A batch is sent when it holds so much: the answers of this many requests fit the socket's default buffer. */
#define BATCH_REQUESTS 64
#define BATCH_BYTES    16384
#define ANSWER_BYTES   32768

struct request {
    uint32_t seq;
    int fine;
    char what[96];
};

struct net_nl {
    struct nl_sock *sk;
    uint32_t seq;
    size_t n, bytes;
    struct request requests[BATCH_REQUESTS];
    struct err failed; /* first failure of a batch that was sent early */
    _Alignas(NLMSG_ALIGNTO) uint8_t out[BATCH_BYTES];
    _Alignas(NLMSG_ALIGNTO) uint8_t in[ANSWER_BYTES];
};

int net_nl_open(struct net_nl **ret, struct err *e)
{
    AUTO(net_nl) struct net_nl *nl = mem_new(struct net_nl);
    int rc, on = 1;

    nl->sk = nl_socket_alloc();
    if (!nl->sk)
        return err_set(e, ERR_HOST, "netlink socket: out of memory");
    rc = nl_connect(nl->sk, NETLINK_ROUTE);
    if (rc < 0)
        return err_set(e, ERR_HOST, "netlink socket: %s", nl_geterror(rc));
    /* best effort: without them messages are only shorter */
    setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    *ret = take_ptr(&nl);
    return 0;
}

void net_nl_close(struct net_nl *nl)
{
    if (!nl)
        return;
    nl_socket_free(nl->sk);
    free(nl);
}

struct nl_msg *net_nl_msg(uint16_t type, uint16_t flags, const void *header, size_t n)
{
    struct nl_msg *m = nlmsg_alloc_simple(type, NLM_F_REQUEST | flags);

    BUG_ON(!m || nlmsg_append(m, (void *)header, n, NLMSG_ALIGNTO) < 0);
    return m;
}

/* The text the kernel sent with an error, or NULL. */
static const char *kernel_text(const struct nlmsghdr *h)
{
    const struct nlmsgerr *err = NLMSG_DATA(h);
    size_t at = sizeof(*err);
    struct nlattr *a;

    if (!(h->nlmsg_flags & NLM_F_ACK_TLVS))
        return NULL;
    if (!(h->nlmsg_flags & NLM_F_CAPPED))
        at += err->msg.nlmsg_len - sizeof(struct nlmsghdr);
    if (NLMSG_LENGTH(at) >= h->nlmsg_len)
        return NULL;
    a = nla_find((const struct nlattr *)((const char *)err + at),
                 (int)(h->nlmsg_len - NLMSG_LENGTH(at)), NLMSGERR_ATTR_MSG);
    return a && nla_len(a) > 0 && ((char *)nla_data(a))[nla_len(a) - 1] == 0 ? nla_data(a) : NULL;
}

static int answer_error(const struct nlmsghdr *h, const char *what, struct err *e)
{
    const struct nlmsgerr *err = NLMSG_DATA(h);
    const char *text = kernel_text(h);
    char shown[STR_SHOW_MAX];

    if (!text)
        return err_sysno(e, -err->error, "%s", what);
    return err_sysno(e, -err->error, "%s: %s", what, str_show(shown, text));
}

static ssize_t receive(struct net_nl *nl, struct err *e)
{
    struct sockaddr_nl from;
    struct iovec iov = {.iov_base = nl->in, .iov_len = sizeof(nl->in)};
    struct msghdr msg = {
        .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    do
        n = recvmsg(nl_socket_get_fd(nl->sk), &msg, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_sys(e, "read from netlink");
    if (msg.msg_flags & MSG_TRUNC)
        return err_set(e, ERR_BUG, "an answer from netlink has more than %d bytes", ANSWER_BYTES);
    return from.nl_pid == 0 ? n : 0; /* only the kernel is believed */
}

static struct request *find_request(struct net_nl *nl, uint32_t seq)
{
    for (size_t i = 0; i < nl->n; i++)
        if (nl->requests[i].seq == seq)
            return &nl->requests[i];
    return NULL;
}

static int read_acks(struct net_nl *nl, struct err *e)
{
    for (size_t left = nl->n; left;) {
        ssize_t n = receive(nl, e);
        int rest = (int)n;

        if (n < 0)
            return -1;
        for (struct nlmsghdr *h = (struct nlmsghdr *)nl->in; nlmsg_ok(h, rest);
             h = nlmsg_next(h, &rest)) {
            struct request *r = find_request(nl, h->nlmsg_seq);
            const struct nlmsgerr *err = NLMSG_DATA(h);

            if (h->nlmsg_type != NLMSG_ERROR || !r)
                continue; /* left over from a request given up */
            left--;
            if (err->error && -err->error != r->fine && nl->failed.kind == ERR_NONE)
                answer_error(h, r->what, &nl->failed);
        }
    }
    return 0;
}

static int write_all(struct net_nl *nl, struct err *e)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

    if (sendto(nl_socket_get_fd(nl->sk), nl->out, nl->bytes, 0, (struct sockaddr *)&kernel,
               sizeof(kernel)) < 0)
        return err_sys(e, "write to netlink");
    return 0;
}

static void flush(struct net_nl *nl)
{
    struct err e = ERR_INIT;

    if (nl->n && (write_all(nl, &e) < 0 || read_acks(nl, &e) < 0) && nl->failed.kind == ERR_NONE)
        nl->failed = e;
    nl->n = nl->bytes = 0;
}

static void queue(struct net_nl *nl, struct nl_msg *m, uint16_t flags)
{
    struct nlmsghdr *h = nlmsg_hdr(m);

    BUG_ON(NLMSG_ALIGN(h->nlmsg_len) > BATCH_BYTES);
    h->nlmsg_seq = ++nl->seq;
    h->nlmsg_pid = 0;
    h->nlmsg_flags |= NLM_F_REQUEST | flags;
    memset(nl->out + nl->bytes, 0, NLMSG_ALIGN(h->nlmsg_len));
    memcpy(nl->out + nl->bytes, h, h->nlmsg_len);
    nl->bytes += NLMSG_ALIGN(h->nlmsg_len);
    nlmsg_free(m);
}

void net_nl_add(struct net_nl *nl, struct nl_msg *m, int fine, const char *fmt, ...)
{
    struct request *r;
    va_list args;

    if (nl->n == BATCH_REQUESTS || nl->bytes + NLMSG_ALIGN(nlmsg_hdr(m)->nlmsg_len) > BATCH_BYTES)
        flush(nl);
    r = &nl->requests[nl->n++];
    queue(nl, m, NLM_F_ACK);
    r->seq = nl->seq;
    r->fine = fine;
    va_start(args, fmt);
    vsnprintf(r->what, sizeof(r->what), fmt, args);
    va_end(args);
}

int net_nl_send(struct net_nl *nl, struct err *e)
{
    flush(nl);
    if (nl->failed.kind == ERR_NONE)
        return 0;
    *e = nl->failed;
    err_clear(&nl->failed);
    return -1;
}

/* 1: that was the last answer; a dump that was disturbed is told as EINTR. */
static int visit_answer(struct net_nl *nl, const struct nlmsghdr *h, net_nl_visit *fn, void *arg,
                        const char *what, struct err *e)
{
    const struct nlmsgerr *err = NLMSG_DATA(h);

    if (h->nlmsg_seq != nl->seq)
        return 0;
    if (h->nlmsg_type == NLMSG_DONE)
        return 1;
    if (h->nlmsg_type == NLMSG_ERROR) {
        if (!err->error)
            return 1;
        answer_error(h, what, e);
        if (err->error == -ENODEV || err->error == -ENOENT)
            e->kind = ERR_ABSENT;
        return -1;
    }
    return fn(arg, h, e);
}

int net_nl_ask(struct net_nl *nl, struct nl_msg *m, net_nl_visit *fn, void *arg, const char *what,
               struct err *e)
{
    struct err visit = ERR_INIT;
    bool failed = false;

    BUG_ON(nl->n);
    nl->bytes = 0;
    queue(nl, m, nlmsg_hdr(m)->nlmsg_flags & NLM_F_DUMP ? 0 : NLM_F_ACK);
    if (write_all(nl, e) < 0)
        return -1;
    nl->bytes = 0;
    for (int done = 0; !done;) {
        ssize_t n = receive(nl, e);
        int rest = (int)n;

        if (n < 0)
            return -1;
        for (struct nlmsghdr *h = (struct nlmsghdr *)nl->in; nlmsg_ok(h, rest) && !done;
             h = nlmsg_next(h, &rest)) {
            /* behind a failure the rest of a dump is read and dropped; an error answer ends it */
            bool last = h->nlmsg_seq == nl->seq &&
                        (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR);
            int rc = failed ? 0 : visit_answer(nl, h, fn, arg, what, &visit);

            failed = failed || rc < 0;
            done = last || rc > 0;
        }
    }
    if (failed)
        *e = visit;
    return failed ? -1 : 0;
}

int net_nl_parse_link(const struct nlmsghdr *h, struct net_link *ret)
{
    struct nlattr *tb[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1];
    const struct ifinfomsg *ifi = nlmsg_data(h);
    struct rtnl_link_stats64 stats;

    memset(ret, 0, sizeof(*ret));
    if (h->nlmsg_type != RTM_NEWLINK ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*ifi), tb, IFLA_MAX, NULL) < 0)
        return -1;
    ret->index = ifi->ifi_index;
    ret->flags = ifi->ifi_flags;
    if (tb[IFLA_MTU])
        ret->mtu = nla_get_u32(tb[IFLA_MTU]);
    ret->running = tb[IFLA_OPERSTATE] && nla_get_u8(tb[IFLA_OPERSTATE]) == IF_OPER_UP;
    if (tb[IFLA_STATS64] && nla_len(tb[IFLA_STATS64]) >= (int)sizeof(stats)) {
        memcpy(&stats, nla_data(tb[IFLA_STATS64]), sizeof(stats));
        ret->rx_bytes = stats.rx_bytes;
        ret->tx_bytes = stats.tx_bytes;
    }
    if (tb[IFLA_MASTER])
        ret->master = (int)nla_get_u32(tb[IFLA_MASTER]);
    if (tb[IFLA_IFNAME])
        nla_strlcpy(ret->name, tb[IFLA_IFNAME], sizeof(ret->name));
    if (tb[IFLA_LINKINFO] && nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], NULL) >= 0 &&
        info[IFLA_INFO_KIND])
        nla_strlcpy(ret->kind, info[IFLA_INFO_KIND], sizeof(ret->kind));
    return 0;
}

static int visit_link(void *arg, const struct nlmsghdr *h, struct err *e)
{
    (void)e;
    net_nl_parse_link(h, arg);
    return 0;
}

int net_nl_link(struct net_nl *nl, const char *name, struct net_link *ret, struct err *e)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m = net_nl_msg(RTM_GETLINK, 0, &ifi, sizeof(ifi));
    struct err mine = ERR_INIT;

    memset(ret, 0, sizeof(*ret));
    BUG_ON(nla_put_string(m, IFLA_IFNAME, name) < 0);
    if (net_nl_ask(nl, m, visit_link, ret, "look up link", &mine) == 0 || mine.sys == ENODEV)
        return 0;
    *e = mine;
    return err_wrap(e, "%s", name);
}

int net_nl_await_running(struct net_nl *nl, const char *name, struct err *e)
{
    const struct timespec pause = {.tv_nsec = NS_PER_MS / 2};
    uint64_t deadline = clock_in_ns(2 * NS_PER_S);
    struct net_link link;

    for (;;) {
        if (net_nl_link(nl, name, &link, e) < 0)
            return -1;
        if (link.running || clock_passed(deadline))
            return 0;
        nanosleep(&pause, NULL);
    }
}

static size_t address_bytes(const struct net_addr *a)
{
    return a->family == AF_INET ? 4 : 16;
}

/* A libnl address of our own bytes. */
static struct nl_addr *nl_address(const struct net_addr *a, unsigned len)
{
    struct nl_addr *n = nl_addr_build(a->family, a->b, address_bytes(a));

    BUG_ON(!n);
    nl_addr_set_prefixlen(n, (int)len);
    return n;
}

void net_nl_add_address(struct net_nl *nl, int index, const struct net_addr *a, unsigned len,
                        int fine)
{
    struct rtnl_addr *ra = rtnl_addr_alloc();
    struct nl_addr *local = nl_address(a, len);
    struct nl_msg *m = NULL;
    char text[NET_ADDR_TEXT_MAX];

    net_ipam_text(a, text);
    BUG_ON(!ra || rtnl_addr_set_local(ra, local) < 0);
    rtnl_addr_set_ifindex(ra, index);
    /* nobody else can have the address: no second is spent on asking */
    if (a->family == AF_INET6)
        rtnl_addr_set_flags(ra, IFA_F_NODAD);
    BUG_ON(rtnl_addr_build_add_request(ra, NLM_F_CREATE | NLM_F_EXCL, &m) < 0);
    net_nl_add(nl, m, fine, "add address %s/%u", text, len);
    nl_addr_put(local);
    rtnl_addr_put(ra);
}

void net_nl_add_route(struct net_nl *nl, int index, const struct net_cidr *dst,
                      const struct net_addr *via, int family, int fine)
{
    struct net_addr any = {.family = family};
    struct rtnl_route *r = rtnl_route_alloc();
    struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
    struct nl_addr *to = nl_address(dst ? &dst->addr : &any, dst ? dst->len : 0);
    struct nl_msg *m = NULL;
    char text[NET_ADDR_TEXT_MAX];

    net_ipam_text(dst ? &dst->addr : &any, text);
    BUG_ON(!r || !hop || rtnl_route_set_dst(r, to) < 0);
    rtnl_route_set_family(r, (uint8_t)family);
    rtnl_route_nh_set_ifindex(hop, index);
    if (via) {
        struct nl_addr *gw = nl_address(via, (unsigned)address_bytes(via) * 8);

        rtnl_route_nh_set_gateway(hop, gw);
        nl_addr_put(gw);
    }
    rtnl_route_add_nexthop(r, hop);
    rtnl_route_set_scope(r, via || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
    BUG_ON(rtnl_route_build_add_request(r, NLM_F_CREATE | NLM_F_EXCL, &m) < 0);
    net_nl_add(nl, m, fine, "add route to %s/%u", text, dst ? dst->len : 0);
    nl_addr_put(to);
    rtnl_route_put(r);
}

/* An entry of a link's neighbour table; mac may be NULL. */
static struct rtnl_neigh *neighbour(int index, const struct net_addr *a, const uint8_t *mac)
{
    struct rtnl_neigh *n = rtnl_neigh_alloc();
    struct nl_addr *dst = nl_address(a, (unsigned)address_bytes(a) * 8);

    BUG_ON(!n || rtnl_neigh_set_dst(n, dst) < 0);
    nl_addr_put(dst);
    rtnl_neigh_set_ifindex(n, index);
    if (mac) {
        struct nl_addr *ll = nl_addr_build(AF_LLC, mac, NET_MAC);

        BUG_ON(!ll);
        rtnl_neigh_set_lladdr(n, ll);
        nl_addr_put(ll);
    }
    return n;
}

void net_nl_add_neighbour(struct net_nl *nl, int index, const struct net_addr *a,
                          const uint8_t mac[NET_MAC])
{
    struct rtnl_neigh *n = neighbour(index, a, mac);
    struct nl_msg *m = NULL;
    char text[NET_ADDR_TEXT_MAX];

    net_ipam_text(a, text);
    rtnl_neigh_set_state(n, NUD_PERMANENT);
    BUG_ON(rtnl_neigh_build_add_request(n, NLM_F_CREATE | NLM_F_REPLACE, &m) < 0);
    net_nl_add(nl, m, 0, "add neighbour %s", text);
    rtnl_neigh_put(n);
}

void net_nl_del_neighbour(struct net_nl *nl, int index, const struct net_addr *a)
{
    struct rtnl_neigh *n = neighbour(index, a, NULL);
    struct nl_msg *m = NULL;
    char text[NET_ADDR_TEXT_MAX];

    net_ipam_text(a, text);
    BUG_ON(rtnl_neigh_build_delete_request(n, 0, &m) < 0);
    net_nl_add(nl, m, ENOENT, "remove neighbour %s", text);
    rtnl_neigh_put(n);
}

void net_nl_link_up(struct net_nl *nl, int index)
{
    struct ifinfomsg ifi = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    net_nl_add(nl, net_nl_msg(RTM_NEWLINK, 0, &ifi, sizeof(ifi)), 0, "set link %d up", index);
}

/* Once there, always there; looked up by name each time it would cost more the more namespaces there are. */
static bool kernel_has_ipv6(void)
{
    static atomic_bool seen;

    if (!atomic_load(&seen) && access("/proc/sys/net/ipv6", F_OK) == 0)
        atomic_store(&seen, true);
    return atomic_load(&seen);
}

/* Where IPv6 is off there is nothing to say, and the kernel would refuse it. */
void net_nl_no_link_local(struct net_nl *nl, int index, int fine)
{
    struct ifinfomsg ifi = {.ifi_index = index};
    struct nlattr *spec, *inet6;
    struct nl_msg *m;

    if (!kernel_has_ipv6())
        return;
    m = net_nl_msg(RTM_NEWLINK, 0, &ifi, sizeof(ifi));
    spec = nla_nest_start(m, IFLA_AF_SPEC);
    BUG_ON(!spec);
    inet6 = nla_nest_start(m, AF_INET6);
    BUG_ON(!inet6 || nla_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) < 0);
    nla_nest_end(m, inet6);
    nla_nest_end(m, spec);
    net_nl_add(nl, m, fine, "set up link %d for IPv6", index);
}
