#include "netns/veth.h"

#include <errno.h>
#include <fcntl.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <stdio.h>
#include <sys/socket.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "base/err.h"
#include "base/fd.h"
#include "netns/nl.h"
#include "netns/rate.h"

static const int families[2] = {AF_INET, AF_INET6};

void net_veth_port_make(const struct net_names *names, const struct net_plan *plan,
                        enum net_which w, unsigned slot, struct net_port *ret)
{
    *ret = (struct net_port){.which = w, .slot = slot, .shard = net_ipam_shard(slot)};
    net_names_port(names, w, slot, ret->name);
    net_names_port_mac(names, w, slot, ret->mac);
    net_names_bridge_mac(names, ret->shard, w, ret->gateway_mac);
    for (int i = 0; i < 2; i++) {
        net_ipam_address(plan, w, families[i], slot, &ret->addr[i]);
        net_ipam_gateway(plan, w, families[i], ret->shard, &ret->gateway[i]);
    }
}

uint32_t net_veth_group(int general_bridge, unsigned slot)
{
    const uint32_t ours = 1U << 31, slots = 256;

    return (uint32_t)general_bridge < ours / slots
               ? ours | (uint32_t)general_bridge * slots | slot % NET_SHARD_SLOTS
               : 0;
}

void net_veth_add(struct net_nl *nl, const struct net_port *p, int bridge, uint32_t group,
                  const char *inside, int netns_fd, unsigned mtu)
{
    struct rtnl_link *host = rtnl_link_veth_alloc(), *peer;
    struct nl_addr *mac = nl_addr_build(AF_LLC, p->mac, NET_MAC);
    struct nl_msg *m = NULL;

    BUG_ON(!host || !mac);
    rtnl_link_set_name(host, p->name);
    rtnl_link_set_mtu(host, mtu);
    rtnl_link_set_master(host, bridge);
    rtnl_link_set_group(host, group);
    /* by default a queue for each processor of the machine, all of them allocated */
    rtnl_link_set_num_tx_queues(host, 1);
    rtnl_link_set_num_rx_queues(host, 1);
    peer = rtnl_link_veth_get_peer(host);
    rtnl_link_set_name(peer, inside);
    rtnl_link_set_mtu(peer, mtu);
    rtnl_link_set_addr(peer, mac);
    rtnl_link_set_ns_fd(peer, netns_fd);
    rtnl_link_set_num_tx_queues(peer, 1);
    rtnl_link_set_num_rx_queues(peer, 1);
    BUG_ON(rtnl_link_build_add_request(host, NLM_F_CREATE | NLM_F_EXCL, &m) < 0);
    net_nl_add(nl, m, 0, "make link %s (%s inside)", p->name, inside);
    rtnl_link_put(peer);
    nl_addr_put(mac);
    rtnl_link_veth_release(host);
}

static struct nl_msg *link_change(int index, unsigned flags)
{
    struct ifinfomsg ifi = {
        .ifi_family = AF_UNSPEC, .ifi_index = index, .ifi_flags = flags, .ifi_change = IFF_UP};

    return net_nl_msg(RTM_NEWLINK, 0, &ifi, sizeof(ifi));
}

/* Down while it changes masters, so that it is no port without its rules for an instant. */
static void enslave(struct net_nl *nl, const struct net_port *p, int bridge, int index, int fine)
{
    struct nl_msg *m = link_change(index, 0);

    BUG_ON(nla_put_u32(m, IFLA_MASTER, (uint32_t)bridge) < 0);
    net_nl_add(nl, m, fine, "make %s a port", p->name);
}

/* One request does both: the kernel applies the port's settings before it sets the link up. */
static void rules_and_up(struct net_nl *nl, const struct net_port *p, int index, int fine)
{
    static const struct {
        int attr;
        uint8_t value;
    } rules[] = {{IFLA_BRPORT_ISOLATED, 1},
                 {IFLA_BRPORT_LEARNING, 0},
                 {IFLA_BRPORT_UNICAST_FLOOD, 0},
                 {IFLA_BRPORT_MCAST_FLOOD, 0},
                 {IFLA_BRPORT_BCAST_FLOOD, 0}};
    struct nl_msg *m = link_change(index, IFF_UP);
    struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO), *data;

    BUG_ON(!info || nla_put_string(m, IFLA_INFO_SLAVE_KIND, "bridge") < 0);
    data = nla_nest_start(m, IFLA_INFO_SLAVE_DATA);
    BUG_ON(!data);
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        BUG_ON(nla_put_u8(m, rules[i].attr, rules[i].value) < 0);
    nla_nest_end(m, data);
    nla_nest_end(m, info);
    net_nl_add(nl, m, fine, "set port rules of %s", p->name);
}

static void add_forwarding_entry(struct net_nl *nl, const struct net_port *p, int index, int fine)
{
    struct ndmsg nd = {.ndm_family = AF_BRIDGE,
                       .ndm_ifindex = index,
                       .ndm_state = NUD_NOARP,
                       .ndm_flags = NTF_MASTER};
    struct nl_msg *m = net_nl_msg(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &nd, sizeof(nd));

    BUG_ON(nla_put(m, NDA_LLADDR, NET_MAC, p->mac) < 0);
    net_nl_add(nl, m, fine, "add the MAC address behind %s", p->name);
}

/* The host has nothing to say or hear on the port itself. Best effort: it only spares the kernel work. */
static void no_ipv6(const char *name)
{
    char path[96];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)fd_write_all(fd, "1", 1);
}

void net_veth_port(struct net_nl *nl, const struct net_port *p, int bridge, int index, int fine)
{
    no_ipv6(p->name);
    enslave(nl, p, bridge, index, fine);
    rules_and_up(nl, p, index, fine);
    add_forwarding_entry(nl, p, index, fine);
    for (int i = 0; i < 2; i++)
        if (p->addr[i].family)
            net_nl_add_neighbour(nl, bridge, &p->addr[i], p->mac);
}

void net_veth_remove(struct net_nl *nl, const char *name)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m = net_nl_msg(RTM_DELLINK, 0, &ifi, sizeof(ifi));

    BUG_ON(nla_put_string(m, IFLA_IFNAME, name) < 0);
    net_nl_add(nl, m, ENODEV, "remove link %s", name);
}

void net_veth_remove_group(struct net_nl *nl, uint32_t group)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *m;

    if (!group)
        return;
    m = net_nl_msg(RTM_DELLINK, 0, &ifi, sizeof(ifi));
    BUG_ON(nla_put_u32(m, IFLA_GROUP, group) < 0);
    net_nl_add(nl, m, ENODEV, "remove links of group %#x", group);
}

void net_veth_forget(struct net_nl *nl, const struct net_port *p, int bridge)
{
    for (int i = 0; i < 2; i++)
        if (p->addr[i].family)
            net_nl_del_neighbour(nl, bridge, &p->addr[i]);
}

/* The gateway's MAC address is written down, so the container never asks for it. */
static void add_way_out(struct net_nl *nl, const struct net_port *p, int index, int i,
                        unsigned flags)
{
    const unsigned by_default[2] = {NET_VETH_DEFAULT4, NET_VETH_DEFAULT6};
    const struct net_addr *gw = &p->gateway[i];
    struct net_cidr to = {.addr = *gw, .len = gw->family == AF_INET ? 32 : 128};

    if (!(flags & NET_VETH_GATEWAY))
        return;
    net_nl_add_neighbour(nl, index, gw, p->gateway_mac);
    net_nl_add_route(nl, index, &to, NULL, gw->family, 0);
    if (flags & by_default[i])
        net_nl_add_route(nl, index, NULL, gw, gw->family, 0);
}

static void set_up_inside(struct net_nl *nl, const struct net_port *p, int index, unsigned flags)
{
    net_nl_no_link_local(nl, index, 0);
    net_nl_link_up(nl, index);
    for (int i = 0; i < 2; i++) {
        if (!p->addr[i].family)
            continue;
        net_nl_add_address(nl, index, &p->addr[i], p->addr[i].family == AF_INET ? 32 : 128, 0);
        add_way_out(nl, p, index, i, flags);
    }
}

int net_veth_inside(struct net_nl *nl, const struct net_port *ports, const unsigned *flags,
                    size_t n, uint64_t out_rate, unsigned mtu, struct err *e)
{
    int index[NET_NETS];

    BUG_ON(n > NET_NETS);
    for (size_t i = 0; i < n; i++) {
        struct net_link link;
        char name[NET_LINK_NAME];

        snprintf(name, sizeof(name), "eth%zu", i);
        if (net_nl_link(nl, name, &link, e) < 0)
            return -1;
        if (!link.index)
            return err_set(e, ERR_ABSENT, "link %s is not in the container", name);
        index[i] = link.index;
    }
    net_nl_link_up(nl, 1); /* lo is always the first */
    for (size_t i = 0; i < n; i++)
        set_up_inside(nl, &ports[i], index[i], flags[i]);
    if (n)
        net_rate_add(nl, index[n - 1], out_rate, mtu, "inside");
    return net_nl_send(nl, e);
}
