#pragma once
/*
 * veth.h - a run's links: a pair from a bridge into the container's network namespace.
 *
 * The host end is made down, a port of its bridge; it is set up only with the port's rules on: isolated from
 * other ports, learning and flooding off, its one MAC address and its IP addresses written down by us. The
 * container's end gets /32 and /128 addresses and reaches its gateway only; so there is no ARP and no
 * neighbour discovery on these networks, and none to trick (S51).
 * Order: net_veth_add for each pair and net_nl_send, net_veth_port with the index, net_nl_send; then
 * net_veth_inside with a socket opened in the namespace. Threads: the caller's lock.
 */
#include <stdbool.h>

#include "base/cleanup.h"
#include "netns/ipam.h"
#include "netns/names.h"

struct err;
struct net_nl;

struct net_port {
    enum net_which which;
    unsigned slot, shard;
    char name[NET_LINK_NAME]; /* host end */
    uint8_t mac[NET_MAC];     /* container's end */
    struct net_addr addr[2];  /* IPv4; IPv6 or family 0 */
    struct net_addr gateway[2];
    uint8_t gateway_mac[NET_MAC];
};

void net_veth_port_make(const struct net_names *names, const struct net_plan *plan,
                        enum net_which w, unsigned slot, struct net_port *ret);

/*
 * The kernel removes links of one group in one go, waiting for the end of all packets in flight once instead of once
 * a link. This is the group of a run's links: the place in the shard, and the index of its general bridge, which
 * no other worker has. 0 (no group) for indices too great for that.
 */
uint32_t net_veth_group(int general_bridge, unsigned slot);
/* Queue the making of a pair whose other end is called `inside` and is in netns_fd. */
void net_veth_add(struct net_nl *nl, const struct net_port *p, int bridge, uint32_t group,
                  const char *inside, int netns_fd, unsigned mtu);
/* Queue (again): port of the bridge, with rules, up. index: of the host end. fine: ENODEV where the link may
 * go away meanwhile, as its namespace does when a run ends; else 0. */
void net_veth_port(struct net_nl *nl, const struct net_port *p, int bridge, int index, int fine);
/* Queue the removal of a link; one that is gone is fine. */
void net_veth_remove(struct net_nl *nl, const char *name);
/* The same for all of a group; 0: nothing. */
void net_veth_remove_group(struct net_nl *nl, uint32_t group);
/* Queue the removal of what net_veth_port wrote about the port on its bridge. */
void net_veth_forget(struct net_nl *nl, const struct net_port *p, int bridge);

enum { NET_VETH_DEFAULT4 = 1, NET_VETH_DEFAULT6 = 2, NET_VETH_GATEWAY = 4 };
/* In the namespace: lo up, addresses, routes by flags (one set for each port), links up. `nl` was opened
 * there. Port i is called eth<i>. out_rate: bytes a second the last of them may send, 0 for no limit. */
int net_veth_inside(struct net_nl *nl, const struct net_port *ports, const unsigned *flags,
                    size_t n, uint64_t out_rate, unsigned mtu, struct err *e) MUST_CHECK;
