#pragma once
/*
 * ways.h - the host's ways out: default routes, their links and MTU, which networks are taken, forwarding.
 *
 * Forwarding is switched on per link and only for our runs: for the external bridge and the links with a
 * default route. A link we switched on is remembered (net_nft drops what arrives there for anybody else)
 * and switched off again by net_ways_restore. IPv6 has such a switch only since Linux 6.17
 * (force_forwarding); before, only net.ipv6.conf.all.forwarding helps, which also makes the host a router
 * that ignores router advertisements: that is the admin's decision, and external runs go without IPv6 until then.
 * Threads: the caller's lock.
 */
#include <stdbool.h>

#include "base/cleanup.h"
#include "netns/ipam.h"
#include "netns/names.h"

struct err;
struct net_nl;

#define NET_WAYS_LINKS 16
typedef char net_link_list[NET_WAYS_LINKS][NET_LINK_NAME]; /* "" behind the last */

struct net_ways {
    net_link_list uplink;
    int towards[2];        /* the link that packets to the world take, IPv4 and IPv6; 0: none */
    bool has4, has6;       /* a default route */
    unsigned mtu;          /* smallest of the uplinks; 1500 when there is none */
    bool others;           /* there are bridges of other workers of ours */
    bool host_ipv6;        /* this host can have IPv6 addresses */
    bool forward6;         /* IPv6 of external runs gets out */
    struct net_cidrs busy; /* routes and addresses that are not ours; freed by net_ways_free */
};

/* own_tag: links beginning so are ours and not counted as taken. */
int net_ways_find(struct net_nl *nl, const char *own_tag, struct net_ways *ret, struct err *e)
    MUST_CHECK;
void net_ways_free(struct net_ways *w);

bool net_ways_list_has(const net_link_list l, const char *name);
/* Is forwarding on for the whole host? family AF_INET or AF_INET6. */
bool net_ways_host_forwards(int family);
/*
 * Which links must be switched on: added to opened (IPv4, IPv6); what need not be ours any more, as the whole
 * host forwards, is taken out. Sets forward6. Switches nothing yet: first the rules, then net_ways_open.
 */
void net_ways_plan(struct net_ways *w, const char *external, net_link_list opened[2]);
int net_ways_open(const struct net_ways *w, const char *external, struct err *e) MUST_CHECK;
/* Cheap: do packets still leave where they did, and are the uplinks' MTUs the same? */
int net_ways_same(const struct net_ways *w, struct net_nl *nl, bool *ret, struct err *e) MUST_CHECK;
/* Is everything still switched on? */
bool net_ways_are_open(const struct net_ways *w, const char *external);
/* Switch off what is in opened. Failures are left: the link may be gone. */
void net_ways_restore(net_link_list opened[2]);
