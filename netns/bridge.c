#include "netns/bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/str.h"
#include "netns/nl.h"

static struct nl_msg *link_request(uint16_t flags, const char *name)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m = net_nl_msg(RTM_NEWLINK, flags, &ifi, sizeof(ifi));

    BUG_ON(nla_put_string(m, IFLA_IFNAME, name) < 0);
    return m;
}

static struct nlattr *nest(struct nl_msg *m, int type)
{
    struct nlattr *a = nla_nest_start(m, type);

    BUG_ON(!a);
    return a;
}

/* No spanning tree, no snooping: their timers and queries are for bridges with switches behind them. */
static void add_bridge(struct net_nl *nl, const char *name, const uint8_t mac[NET_MAC])
{
    struct nl_msg *m = link_request(NLM_F_CREATE | NLM_F_EXCL, name);
    struct nlattr *info, *data;

    BUG_ON(nla_put(m, IFLA_ADDRESS, NET_MAC, mac) < 0);
    info = nest(m, IFLA_LINKINFO);
    BUG_ON(nla_put_string(m, IFLA_INFO_KIND, "bridge") < 0);
    data = nest(m, IFLA_INFO_DATA);
    BUG_ON(nla_put_u32(m, IFLA_BR_STP_STATE, 0) < 0 ||
           nla_put_u8(m, IFLA_BR_MCAST_SNOOPING, 0) < 0 ||
           nla_put_u32(m, IFLA_BR_FORWARD_DELAY, 0) < 0);
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    net_nl_add(nl, m, EEXIST, "make bridge %s", name);
}

/* IPv4 settings of the link travel in the request: (id, value) pairs, ids of linux/ip.h. */
static void put_ipv4_conf(struct nl_msg *m, bool forwarding)
{
    const struct {
        int id;
        uint32_t value;
    } conf[] = {{IPV4_DEVCONF_FORWARDING, forwarding}, {IPV4_DEVCONF_ROUTE_LOCALNET, 0},
                {IPV4_DEVCONF_ACCEPT_REDIRECTS, 0},    {IPV4_DEVCONF_SECURE_REDIRECTS, 0},
                {IPV4_DEVCONF_SEND_REDIRECTS, 0},      {IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE, 0},
                {IPV4_DEVCONF_PROXY_ARP, 0},           {IPV4_DEVCONF_ARP_ACCEPT, 0}};
    struct nlattr *inet = nest(m, AF_INET), *list = nest(m, IFLA_INET_CONF);

    for (size_t i = 0; i < ARRAY_SIZE(conf); i++)
        BUG_ON(nla_put_u32(m, conf[i].id, conf[i].value) < 0);
    nla_nest_end(m, list);
    nla_nest_end(m, inet);
}

static void set_bridge(struct net_nl *nl, const struct net_names *names, unsigned shard,
                       enum net_which w, unsigned mtu, int index)
{
    struct nl_msg *m = link_request(0, names->bridge[shard][w]);
    struct nlattr *spec;
    uint8_t mac[NET_MAC];

    net_names_bridge_mac(names, shard, w, mac);
    BUG_ON(nla_put(m, IFLA_ADDRESS, NET_MAC, mac) < 0 || nla_put_u32(m, IFLA_MTU, mtu) < 0 ||
           nla_put_string(m, IFLA_IFALIAS, names->alias[w]) < 0);
    spec = nest(m, IFLA_AF_SPEC);
    put_ipv4_conf(m, w == NET_EXTERNAL_NET);
    nla_nest_end(m, spec);
    net_nl_add(nl, m, 0, "set up bridge %s", names->bridge[shard][w]);
    net_nl_no_link_local(nl, index, 0);
}

/* The seed's name (B082), by which `ip link show` finds the bridge. Taken or unknown to the kernel: go without. */
static void add_alt_name(struct net_nl *nl, int index, const char *alt)
{
    struct ifinfomsg ifi = {.ifi_index = index};
    struct nl_msg *m =
        net_nl_msg(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND, &ifi, sizeof(ifi));
    struct nlattr *list = nest(m, IFLA_PROP_LIST);
    struct err ignored = ERR_INIT;

    BUG_ON(nla_put_string(m, IFLA_ALT_IFNAME, alt) < 0);
    nla_nest_end(m, list);
    net_nl_add(nl, m, EEXIST, "name link %d %s", index, alt);
    if (net_nl_send(nl, &ignored) < 0)
        err_clear(&ignored);
}

int net_bridge_ensure(struct net_nl *nl, const struct net_names *names, unsigned shard,
                      enum net_which w, unsigned mtu, int *ret_index, struct err *e)
{
    const char *name = names->bridge[shard][w];
    uint8_t mac[NET_MAC];
    struct net_link link;

    if (net_nl_link(nl, name, &link, e) < 0)
        return -1;
    if (!link.index) {
        net_names_bridge_mac(names, shard, w, mac);
        add_bridge(nl, name, mac);
        if (net_nl_send(nl, e) < 0 || net_nl_link(nl, name, &link, e) < 0)
            return -1;
        if (!shard && names->alt[w][0])
            add_alt_name(nl, link.index, names->alt[w]);
    }
    if (!str_eq(link.kind, "bridge"))
        return err_set(
            e, ERR_HOST,
            "link %s exists and is no bridge; remove it, or choose another --network-prefix", name);
    set_bridge(nl, names, shard, w, mtu, link.index);
    if (net_nl_send(nl, e) < 0)
        return -1;
    *ret_index = link.index;
    return 0;
}

/*
 * IPv6 settings have no netlink form. Written only where they differ: /proc/sys may be read-only for a worker
 * that is itself in a container and was given the right values.
 */
static int set_ipv6(const char *link, const char *key, char value, struct err *e)
{
    char path[96], now[2] = "";

    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", link, key);
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (fd_read_full(fd, now, 1) == 1 && now[0] == value))
        return 0; /* no IPv6, or a kernel without the setting; or right already */
    close_fd(&fd);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, &value, 1) < 0)
        return err_sys(e, "set %s to %c", path + strlen("/proc/sys/"), value);
    return 0;
}

int net_bridge_up(struct net_nl *nl, const struct net_names *names, unsigned shard,
                  enum net_which w, const struct net_plan *plan, int index, struct err *e)
{
    static const int families[] = {AF_INET, AF_INET6};
    const char *name = names->bridge[shard][w];

    if (set_ipv6(name, "accept_ra", '0', e) < 0 || set_ipv6(name, "accept_redirects", '0', e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        struct net_addr gw;

        net_ipam_gateway(plan, w, families[i], shard, &gw);
        if (!gw.family)
            continue;
        net_nl_add_address(nl, index, &gw, net_ipam_bridge_len(plan, families[i], shard), EEXIST);
    }
    net_nl_link_up(nl, index);
    return net_nl_send(nl, e) < 0 ? err_wrap(e, "bridge %s", name) : 0;
}

void net_bridge_remove(struct net_nl *nl, const struct net_names *names, unsigned shard,
                       enum net_which w)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m = net_nl_msg(RTM_DELLINK, 0, &ifi, sizeof(ifi));

    BUG_ON(nla_put_string(m, IFLA_IFNAME, names->bridge[shard][w]) < 0);
    net_nl_add(nl, m, ENODEV, "remove bridge %s", names->bridge[shard][w]);
}
