#include "netns/ways.h"

#include <fcntl.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "netns/nl.h"

#define LINKS_MAX 65536 /* a host with more is not ours to judge */

struct search {
    struct net_ways *w;
    const char *own_tag;
    int own[NET_NETS * NET_SHARDS], up[NET_WAYS_LINKS]; /* indices */
    size_t n_own, n_up;
};

static bool has_index(const int *list, size_t n, int index)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == index)
            return true;
    return false;
}

static int visit_own(void *arg, const struct nlmsghdr *h, struct err *e)
{
    struct search *s = arg;
    struct net_link link;

    (void)e;
    if (net_nl_parse_link(h, &link) < 0 || !str_eq(link.kind, "bridge") ||
        !str_starts(link.name, NET_LINK_COMMON))
        return 0;
    if (!str_starts(link.name, s->own_tag))
        s->w->others = true;
    else if (s->n_own < ARRAY_SIZE(s->own))
        s->own[s->n_own++] = link.index;
    return 0;
}

static int visit_uplink(void *arg, const struct nlmsghdr *h, struct err *e)
{
    struct search *s = arg;
    struct net_link link;

    (void)e;
    if (net_nl_parse_link(h, &link) < 0 || !has_index(s->up, s->n_up, link.index))
        return 0;
    for (size_t i = 0; i < NET_WAYS_LINKS; i++)
        if (!s->w->uplink[i][0]) {
            memcpy(s->w->uplink[i], link.name, NET_LINK_NAME);
            break;
        }
    if (link.mtu && link.mtu < s->w->mtu)
        s->w->mtu = link.mtu;
    return 0;
}

static void add_uplink(struct search *s, int index)
{
    if (index && s->n_up < NET_WAYS_LINKS && !has_index(s->up, s->n_up, index))
        s->up[s->n_up++] = index;
}

static void add_busy(struct search *s, int family, unsigned len, const struct nlattr *a)
{
    struct net_cidr c = {.addr = {.family = family}, .len = len};

    /* 127.0.0.0/8, multicast and link-local routes are on every host and in no pool; what is wider than a private
     * range (0.0.0.0/1, 2000::/3) leads to the world like a default route, and takes nothing */
    if (len < (family == AF_INET ? 8 : 7) || !a || nla_len(a) > (int)sizeof(c.addr.b) ||
        s->w->busy.n >= LINKS_MAX)
        return;
    memcpy(c.addr.b, nla_data(a), (size_t)nla_len(a));
    net_ipam_add(&s->w->busy, &c);
}

static int visit_route(void *arg, const struct nlmsghdr *h, struct err *e)
{
    struct nlattr *tb[RTA_MAX + 1];
    const struct rtmsg *rt = nlmsg_data(h);
    struct search *s = arg;
    int oif = 0;

    (void)e;
    if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*rt), tb, RTA_MAX, NULL) < 0 ||
        rt->rtm_flags & RTM_F_CLONED)
        return 0;
    if (tb[RTA_OIF])
        oif = (int)nla_get_u32(tb[RTA_OIF]);
    if (has_index(s->own, s->n_own, oif))
        return 0;
    if (rt->rtm_dst_len) {
        if (rt->rtm_type != RTN_MULTICAST)
            add_busy(s, rt->rtm_family, rt->rtm_dst_len, tb[RTA_DST]);
        return 0;
    }
    if (rt->rtm_type != RTN_UNICAST)
        return 0;
    *(rt->rtm_family == AF_INET ? &s->w->has4 : &s->w->has6) = true;
    add_uplink(s, oif);
    if (tb[RTA_MULTIPATH]) {
        struct rtnexthop *hop = nla_data(tb[RTA_MULTIPATH]);

        for (int left = nla_len(tb[RTA_MULTIPATH]); RTNH_OK(hop, left);
             left -= RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
            add_uplink(s, hop->rtnh_ifindex);
    }
    return 0;
}

static int dump_links(struct net_nl *nl, net_nl_visit *fn, struct search *s, struct err *e)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m = net_nl_msg(RTM_GETLINK, NLM_F_DUMP, &ifi, sizeof(ifi));

    return net_nl_ask(nl, m, fn, s, "list links", e);
}

static int dump_routes(struct net_nl *nl, int family, struct search *s, struct err *e)
{
    struct rtmsg rt = {.rtm_family = (unsigned char)family};
    struct nl_msg *m = net_nl_msg(RTM_GETROUTE, NLM_F_DUMP, &rt, sizeof(rt));

    return net_nl_ask(nl, m, visit_route, s, "list routes", e);
}

static int visit_towards(void *arg, const struct nlmsghdr *h, struct err *e)
{
    struct nlattr *tb[RTA_MAX + 1];
    const struct rtmsg *rt = nlmsg_data(h);

    (void)e;
    if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*rt), tb, RTA_MAX, NULL) < 0 ||
        rt->rtm_type != RTN_UNICAST)
        return 0;
    if (tb[RTA_OIF])
        *(int *)arg = (int)nla_get_u32(tb[RTA_OIF]);
    else if (tb[RTA_MULTIPATH] && nla_len(tb[RTA_MULTIPATH]) >= (int)sizeof(struct rtnexthop))
        *(int *)arg = ((struct rtnexthop *)nla_data(tb[RTA_MULTIPATH]))->rtnh_ifindex;
    return 0;
}

/*
 * Asked for a resolver that everybody knows, as an address of the world; nothing is sent there. The route as it
 * stands in the table: for a route as taken the kernel would go through every link for a source address.
 */
static int find_towards(struct net_nl *nl, int family, int *ret, struct err *e)
{
    static const uint8_t world4[4] = {1, 1, 1, 1};
    static const uint8_t world6[16] = {0x26, 0x06, 0x47, 0, 0x47, 0, [14] = 0x11, 0x11};
    bool is4 = family == AF_INET;
    struct rtmsg rt = {.rtm_family = (unsigned char)family,
                       .rtm_dst_len = is4 ? 32 : 128,
                       .rtm_flags = RTM_F_FIB_MATCH};
    struct nl_msg *m = net_nl_msg(RTM_GETROUTE, 0, &rt, sizeof(rt));
    struct err none = ERR_INIT;

    *ret = 0;
    BUG_ON(nla_put(m, RTA_DST, is4 ? 4 : 16, is4 ? world4 : world6) < 0);
    if (net_nl_ask(nl, m, visit_towards, ret, "look up a route", &none) == 0 || none.sys)
        return 0; /* ENETUNREACH, EACCES of a prohibiting route, …: no way */
    *e = none;
    return -1;
}

static bool proc_get(int family, const char *link, const char *key, char *ret)
{
    char path[96];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv%c/conf/%s/%s", family == AF_INET ? '4' : '6',
             link, key);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && fd_read_full(fd, ret, 1) == 1;
}

static int proc_set(int family, const char *link, const char *key, char value)
{
    char path[96];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv%c/conf/%s/%s", family == AF_INET ? '4' : '6',
             link, key);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -1 : fd_write_all(fd, &value, 1);
}

/* Also where no default route leads there, but two halves of one, as tunnels like to set. */
static int add_towards(struct net_nl *nl, struct search *s, struct err *e)
{
    int *link = s->w->towards;

    if (find_towards(nl, AF_INET, &link[0], e) < 0 || find_towards(nl, AF_INET6, &link[1], e) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        if (link[i] && !has_index(s->own, s->n_own, link[i])) {
            *(i ? &s->w->has6 : &s->w->has4) = true;
            add_uplink(s, link[i]);
        }
    return 0;
}

int net_ways_find(struct net_nl *nl, const char *own_tag, struct net_ways *ret, struct err *e)
{
    struct search s = {.w = ret, .own_tag = own_tag};
    char off;

    *ret = (struct net_ways){.mtu = 65535};
    if (dump_links(nl, visit_own, &s, e) < 0 || dump_routes(nl, AF_INET, &s, e) < 0 ||
        dump_routes(nl, AF_INET6, &s, e) < 0 || add_towards(nl, &s, e) < 0 ||
        dump_links(nl, visit_uplink, &s, e) < 0)
        return -1;
    if (!ret->uplink[0][0])
        ret->mtu = 1500;
    ret->host_ipv6 = proc_get(AF_INET6, "default", "disable_ipv6", &off) && off == '0';
    return 0;
}

void net_ways_free(struct net_ways *w)
{
    free(w->busy.items);
    w->busy = (struct net_cidrs){0};
}

int net_ways_same(const struct net_ways *w, struct net_nl *nl, bool *ret, struct err *e)
{
    unsigned mtu = w->uplink[0][0] ? 65535 : w->mtu;
    int link[2];

    if (find_towards(nl, AF_INET, &link[0], e) < 0 || find_towards(nl, AF_INET6, &link[1], e) < 0)
        return -1;
    for (size_t i = 0; i < NET_WAYS_LINKS && w->uplink[i][0]; i++) {
        struct net_link now;

        if (net_nl_link(nl, w->uplink[i], &now, e) < 0)
            return -1;
        if (now.mtu && now.mtu < mtu)
            mtu = now.mtu;
    }
    *ret = mtu == w->mtu && memcmp(link, w->towards, sizeof(link)) == 0;
    return 0;
}

bool net_ways_list_has(const net_link_list l, const char *name)
{
    for (size_t i = 0; i < NET_WAYS_LINKS && l[i][0]; i++)
        if (strncmp(l[i], name, NET_LINK_NAME) == 0)
            return true;
    return false;
}

static void list_add(net_link_list l, const char *name)
{
    if (net_ways_list_has((const char(*)[NET_LINK_NAME])l, name))
        return;
    for (size_t i = 0; i < NET_WAYS_LINKS; i++)
        if (!l[i][0]) {
            memcpy(l[i], name, NET_LINK_NAME);
            return;
        }
}

bool net_ways_host_forwards(int family)
{
    char on = '0';

    return proc_get(family, "all", "forwarding", &on) && on == '1';
}

static const char *switch_key(int family)
{
    return family == AF_INET ? "forwarding" : "force_forwarding";
}

/* A link that forwards while the host does not was switched on by another worker of ours, and is then theirs and
 * ours alike: the last of us switches it off. */
static void plan_family(const struct net_ways *w, int family, net_link_list opened)
{
    char on;

    if (net_ways_host_forwards(family)) {
        memset(opened, 0, sizeof(net_link_list));
        return;
    }
    for (size_t i = 0; i < NET_WAYS_LINKS && w->uplink[i][0]; i++)
        if (proc_get(family, w->uplink[i], switch_key(family), &on) && (on == '0' || w->others))
            list_add(opened, w->uplink[i]);
}

void net_ways_plan(struct net_ways *w, const char *external, net_link_list opened[2])
{
    char on;

    plan_family(w, AF_INET, opened[0]);
    w->forward6 = w->host_ipv6 && w->has6 &&
                  (net_ways_host_forwards(AF_INET6) ||
                   proc_get(AF_INET6, external, switch_key(AF_INET6), &on));
    if (w->forward6)
        plan_family(w, AF_INET6, opened[1]);
}

/* Written only where it differs: /proc/sys may be read-only, with the right values in it. */
static int switch_on(int family, const char *link, struct err *e)
{
    char on = '0';

    if (proc_get(family, link, switch_key(family), &on) && on == '1')
        return 0;
    if (proc_set(family, link, switch_key(family), '1') < 0)
        return err_sys(e, "switch %s on for link %s", switch_key(family), link);
    return 0;
}

static int open_family(const struct net_ways *w, int family, const char *external, struct err *e)
{
    if (net_ways_host_forwards(family))
        return 0;
    for (size_t i = 0; i < NET_WAYS_LINKS && w->uplink[i][0]; i++)
        if (switch_on(family, w->uplink[i], e) < 0)
            return -1;
    return switch_on(family, external, e);
}

int net_ways_open(const struct net_ways *w, const char *external, struct err *e)
{
    if (open_family(w, AF_INET, external, e) < 0)
        return -1;
    return w->forward6 ? open_family(w, AF_INET6, external, e) : 0;
}

static bool is_open(const struct net_ways *w, int family, const char *external)
{
    char on;

    if (net_ways_host_forwards(family))
        return true;
    for (size_t i = 0; i < NET_WAYS_LINKS && w->uplink[i][0]; i++)
        if (!proc_get(family, w->uplink[i], switch_key(family), &on) || on != '1')
            return false;
    return proc_get(family, external, switch_key(family), &on) && on == '1';
}

bool net_ways_are_open(const struct net_ways *w, const char *external)
{
    return is_open(w, AF_INET, external) && (!w->forward6 || is_open(w, AF_INET6, external));
}

void net_ways_restore(net_link_list opened[2])
{
    for (size_t i = 0; i < NET_WAYS_LINKS && opened[0][i][0]; i++)
        (void)proc_set(AF_INET, opened[0][i], "forwarding", '0');
    for (size_t i = 0; i < NET_WAYS_LINKS && opened[1][i][0]; i++)
        (void)proc_set(AF_INET6, opened[1][i], "force_forwarding", '0');
    memset(opened, 0, 2 * sizeof(net_link_list));
}
